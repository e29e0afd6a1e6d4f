package cli

import (
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

// todo says what to do about a rejection, where the library's Advice says nothing or less.
var todo = map[reauth.Reason]text{
	reauth.ReasonInvalidToken: {"get a new token, and see that it is this server's", "请换一个新令牌，并确认它属于这个服务器"},
	reauth.ReasonExpired:      {"get a new token", "请换一个新令牌"},
	reauth.ReasonRevoked:      {"get a new token", "请换一个新令牌"},
	reauth.ReasonMissing:      {"see that the token is sent, in the header that the server expects; a proxy may remove it", "请确认令牌已发送，并且在服务器要求的请求头中；代理可能会将其删除"},
	reauth.ReasonUnspecified:  {"try a new token", "请换一个新令牌试试"},
	reauth.ReasonClaims:       {"get a new token with these claims", "请获取带有这些声明的新令牌"},
	reauth.ReasonQuota:        {reauth.AdviceTopUp.Text() + ", or wait", "请充值或等待"},
}

// statuses say what an exit status means.
var statuses = map[int]text{
	exitFailed:      {"failed", "失败"},
	exitUsage:       {"usage or configuration", "用法或配置有误"},
	exitLater:       {"there is no token now: try again later", "暂时没有令牌：请稍后再试"},
	exitLogin:       {"log in again: run reauth login, or renew what the source reads", "请重新登录：运行 reauth login，或更新来源中的令牌"},
	exitUnreachable: {"the server was not reached", "无法连接服务器"},
	exitExecFailed:  {"reauth failed", "reauth 出错"},
	exitNotRun:      {"the command cannot be run", "命令无法运行"},
	exitNotFound:    {"the command was not found", "找不到命令"},
}

// verdicts are what check says of a token.
var verdicts = map[string]text{
	"good":           {"The token is good.", "令牌有效。"},
	"cured":          {"The token was refused, and the new one is good.", "令牌被拒绝，新令牌有效。"},
	"refused":        {"The token is refused.", "令牌被拒绝。"},
	"known":          {"The server knows the token, and does not allow the request.", "服务器认识该令牌，但不允许这个请求。"},
	"proves nothing": {"This address proves nothing: it answers without a token too.", "这个地址不能说明问题：没有令牌它也会应答。"},
	"undecided":      {"The response says nothing of the token.", "响应没有说明令牌的情况。"},
}

// adviceText returns what to do about a rejection.
func adviceText(r reauth.Reason, lang string) string {
	if own, ok := todo[r]; ok {
		return own.in(lang)
	}
	return sayAdvice(r.Advice(), lang)
}

// sayAdvice returns what the library advises.
func sayAdvice(a reauth.Advice, lang string) string {
	if lang == "zh" {
		return advices[a]
	}
	return a.Text()
}

// advices are the texts of the library's Advice.
var advices = map[reauth.Advice]string{
	reauth.AdviceSendAgain:        "请重新发送请求",
	reauth.AdviceResume:           "连接在重试时中断：服务器可能已执行该请求，确认无害后再重新发送",
	reauth.AdviceWait:             "请等待片刻，然后重新发送请求",
	reauth.AdviceMoreTime:         "请给请求更多时间：重试需要刷新、等待和一次往返",
	reauth.AdviceResend:           "请用新令牌从头重新发送请求",
	reauth.AdviceLogIn:            "请重新登录",
	reauth.AdviceStepUp:           "请按服务器的要求再次验证：第二因素、新密码或重新登录",
	reauth.AdviceRequestScope:     "请用服务器要求的权限范围重新登录",
	reauth.AdviceCheckIssuer:      "服务器也拒绝新令牌：请把两个请求 ID 提供给其技术支持，并检查它要求的颁发者、受众和权限范围",
	reauth.AdviceCheckAudience:    "请让颁发者为这个服务器签发令牌：它要求其他受众、颁发者或环境",
	reauth.AdviceCheckRefresher:   "请查明为什么没有新令牌；下一个请求会再次尝试",
	reauth.AdviceShareLogin:       "请共用一个登录，或让每个进程各自登录；或者不要向总是拒绝令牌的路径发送令牌",
	reauth.AdviceOtherScheme:      "请使用服务器要求的认证方式",
	reauth.AdviceProveKey:         "服务器要求带 nonce 的持有证明，普通令牌无法满足",
	reauth.AdviceCheckSignature:   "请检查请求签名和本机时钟",
	reauth.AdviceSendCSRFToken:    "请发送服务器要求的防伪令牌，或改用非浏览器接口",
	reauth.AdviceTopUp:            "请为该令牌的余额或配额充值",
	reauth.AdviceAskOwner:         "请联系服务器管理员启用该账户、密钥或地址",
	reauth.AdviceTellGateway:      "请告知网关的管理员：被拒绝的是网关自己的密钥，而不是你的令牌",
	reauth.AdviceReadMessage:      "请阅读服务器的消息：它与令牌无关",
	reauth.AdviceRemoveCredential: "请去掉请求中由其他地方设置的凭证",
	reauth.AdviceListOrigin:       "请只对令牌所属的服务器使用它，或在配置中允许这个服务器",
	reauth.AdviceFinalURL:         "请直接请求重定向所指的地址",
	reauth.AdviceCheckHost:        "请让请求的 Host 与其 URL 一致",
	reauth.AdviceNewClient:        "请使用没有关闭的客户端",
}

// notRetried are the texts of the library's NotRetried.
var notRetried = map[reauth.NotRetried]string{
	reauth.NotRetriedReason:       "新令牌没有用",
	reauth.NotRetriedWithheld:     "请求没有带令牌",
	reauth.NotRetriedNoToken:      "没有新令牌",
	reauth.NotRetriedTooYoung:     "令牌是新的，而这个服务器还没有接受过它",
	reauth.NotRetriedBudget:       "刷新次数已用完",
	reauth.NotRetriedDeadline:     "请求的截止时间早于重试",
	reauth.NotRetriedRetryAfter:   "服务器要求等待超过 5 秒",
	reauth.NotRetriedCanceled:     "请求已取消",
	reauth.NotRetriedLoggedOut:    "请求属于已结束的登录",
	reauth.NotRetriedTokenExpired: "新令牌在重试前已过期",
	reauth.NotRetriedBodyTooLarge: "请求正文超过了保留的大小",
	reauth.NotRetriedBodyFailed:   "请求正文无法再次发送",
}

// summary returns the first line.
func (e *explanation) summary(r reauth.Reason, lang string) string {
	parts := []any{}
	format := "This does not say whether it is about a token: paste more of it, with the status and the body."
	if e.decided {
		format = "%s: a new token does not help; %s."
		if e.Refreshable {
			format = "%s: a new token helps; %s."
		}
		what := reasons[r].in(lang)
		if lang == "en" {
			what = string(what[0]-'a'+'A') + what[1:]
		}
		parts = append(parts, what, e.Advice)
	}
	first := (&message{format, parts}).in(lang)
	switch {
	case e.RequestID == "":
		return first
	case r == reauth.ReasonUpstream:
		return first + sayf(" Else give the request id %s to the gateway's owner.", e.RequestID).in(lang)
	}
	return first + sayf(" Else give the request id %s to the server's support.", e.RequestID).in(lang)
}
