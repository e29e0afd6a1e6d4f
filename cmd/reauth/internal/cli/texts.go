package cli

import (
	"fmt"

	"github.com/reauth-go/reauth"
)

// A text is what is said in each language.
type text struct{ en, zh string }

func (t text) in(lang string) string {
	if lang == "zh" {
		return t.zh
	}
	return t.en
}

// reasons say what happened.
var reasons = map[reauth.Reason]text{
	reauth.ReasonInvalidToken:      {"the server does not know the token, or no longer", "服务器不认识（或不再认识）这个令牌"},
	reauth.ReasonExpired:           {"the token has expired", "令牌已过期"},
	reauth.ReasonRevoked:           {"the token was revoked, disabled or deleted", "令牌已被吊销、停用或删除"},
	reauth.ReasonMissing:           {"the server saw no token", "服务器没有收到令牌"},
	reauth.ReasonUnspecified:       {"the server rejects the credentials, and does not say why", "服务器拒绝了凭证，但没有说明原因"},
	reauth.ReasonClaims:            {"the token lacks claims that the server asks for", "令牌缺少服务器要求的声明"},
	reauth.ReasonInsufficientScope: {"the token lacks a scope or a permission", "令牌缺少所需的权限范围"},
	reauth.ReasonStepUp:            {"the user has to authenticate again", "用户需要再次验证身份"},
	reauth.ReasonDPoPNonce:         {"the server asks for a proof of possession with its nonce", "服务器要求带 nonce 的持有证明（DPoP）"},
	reauth.ReasonOtherScheme:       {"the server asks for another kind of credentials", "服务器要求另一种认证方式"},
	reauth.ReasonAudience:          {"the token was issued for, or by, another", "令牌是为其他服务（或由其他颁发者）签发的"},
	reauth.ReasonRequestSignature:  {"the request's own signature or timestamp is wrong", "请求本身的签名或时间戳不正确"},
	reauth.ReasonCSRF:              {"an anti-forgery token is missing", "缺少防跨站伪造（CSRF）令牌"},
	reauth.ReasonLoginRequired:     {"the login has ended", "登录已失效"},
	reauth.ReasonUpstream:          {"the gateway's own key was refused by the server behind it", "网关自己的上游密钥被拒绝"},
	reauth.ReasonDenied:            {"the account, the address or the key may not do this", "该账户、地址或密钥无权这样做"},
	reauth.ReasonQuota:             {"the balance or quota is used up, or requests come too fast", "余额或配额已用尽，或请求过于频繁"},
	reauth.ReasonOther:             {"the error is not about the token", "该错误与令牌无关"},
}

// advices say what to do, in other words than Advice.Text where a new token helps.
var advices = map[reauth.Reason]text{
	reauth.ReasonInvalidToken:      {"get a new token, and see that it is this server's", "请换一个新令牌，并确认它属于这个服务器"},
	reauth.ReasonExpired:           {"get a new token", "请换一个新令牌"},
	reauth.ReasonRevoked:           {"get a new token", "请换一个新令牌"},
	reauth.ReasonMissing:           {"see that the token is sent, in the header that the server expects; a proxy may remove it", "请确认令牌已发送，并且在服务器要求的请求头中；代理可能会将其删除"},
	reauth.ReasonUnspecified:       {"try a new token", "请换一个新令牌试试"},
	reauth.ReasonClaims:            {"get a new token with these claims", "请获取带有这些声明的新令牌"},
	reauth.ReasonInsufficientScope: {reauth.AdviceRequestScope.Text(), "请用服务器要求的权限范围重新登录"},
	reauth.ReasonStepUp:            {reauth.AdviceStepUp.Text(), "请按服务器的要求再次验证：第二因素、新密码或重新登录"},
	reauth.ReasonDPoPNonce:         {reauth.AdviceProveKey.Text(), "服务器要求持有证明，普通令牌无法满足"},
	reauth.ReasonOtherScheme:       {reauth.AdviceOtherScheme.Text(), "请使用服务器要求的认证方式"},
	reauth.ReasonAudience:          {reauth.AdviceCheckAudience.Text(), "请让颁发者为这个服务器签发令牌"},
	reauth.ReasonRequestSignature:  {reauth.AdviceCheckSignature.Text(), "请检查请求签名和本机时钟"},
	reauth.ReasonCSRF:              {reauth.AdviceSendCSRFToken.Text(), "请发送服务器要求的防伪令牌，或改用非浏览器接口"},
	reauth.ReasonLoginRequired:     {reauth.AdviceLogIn.Text(), "请重新登录"},
	reauth.ReasonUpstream:          {reauth.AdviceTellGateway.Text(), "请告知网关的管理员：被拒绝的是网关自己的密钥，而不是你的令牌"},
	reauth.ReasonDenied:            {reauth.AdviceAskOwner.Text(), "请联系服务器管理员启用该账户、密钥或地址"},
	reauth.ReasonQuota:             {reauth.AdviceTopUp.Text() + ", or wait", "请充值或等待"},
	reauth.ReasonOther:             {reauth.AdviceReadMessage.Text(), "请阅读服务器的消息：它与令牌无关"},
}

var texts = map[string]text{
	"helps":     {"a new token helps", "换新令牌有用"},
	"no help":   {"a new token does not help", "换新令牌没有用"},
	"undecided": {"This does not say whether it is about a token: paste more of it, with the status and the body", "无法判断这是否与令牌有关：请粘贴更多内容，包括状态码和响应正文"},
	"support":   {"the server's support", "服务器的技术支持"},
	"gateway":   {"the gateway's owner", "网关的管理员"},
	"give":      {"give the request id %s to %s", "请把请求 ID %s 提供给%s"},
	"sentence":  {"%s: %s; %s.", "%s：%s；%s。"},
	"exit 1":    {"failed", "失败"},
	"exit 2":    {"usage or configuration", "用法或配置有误"},
	"exit 20":   {"there is no token now: try again later", "暂时没有令牌：请稍后再试"},
	"exit 21":   {"log in again", "请重新登录（reauth login）"},
	"exit 22":   {"the server was not reached", "无法连接服务器"},
	"exit 125":  {"reauth failed", "reauth 出错"},
	"exit 126":  {"the command cannot be run", "命令无法运行"},
	"exit 127":  {"the command was not found", "找不到命令"},
	"and":       {" Else %s.", "如仍有问题，%s。"},
}

// adviceText returns what to do.
func adviceText(r reauth.Reason, lang string) string { return advices[r].in(lang) }

// summary returns the first line.
func (e *explanation) summary(r reauth.Reason, lang string) string {
	say := func(key string) string { return texts[key].in(lang) }
	id := ""
	if e.RequestID != "" {
		whom := "support"
		if r == reauth.ReasonUpstream {
			whom = "gateway"
		}
		id = fmt.Sprintf(say("and"), fmt.Sprintf(say("give"), e.RequestID, say(whom)))
	}
	if !e.decided {
		return say("undecided") + map[string]string{"en": ".", "zh": "。"}[lang] + id
	}
	helps := "no help"
	if e.Refreshable {
		helps = "helps"
	}
	what := reasons[r].in(lang)
	if lang == "en" {
		what = string(what[0]-'a'+'A') + what[1:]
	}
	return fmt.Sprintf(say("sentence"), what, say(helps), e.Advice) + id
}
