package recognize

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A concept is what a word of an error message is about. Servers have few reasons to
// reject a token, and many ways to say them. So their words are looked up one by one,
// and the reason follows from which state is combined with which subject.
type concept uint8

const (
	nothing concept = iota

	// Subjects of a state.
	token        // a token, a key, a session: what a refresh replaces
	credentials  // that may be a token, and may be a password
	refreshToken // what a refresh needs, or the consent behind it
	clientID     // the application that a token was issued for
	account      // a user, an account
	password     // a password, a login by name
	certificate
	otherToken       // one that is not the request's
	signature        // of a token, or of a request, as its state decides
	requestSignature // of a request
	moment           // a timestamp of the request

	// States.
	expired
	invalid
	mismatch
	revoked
	disabled // or deleted: of a token as good as revoked, of nothing in particular no news
	locked   // suspended, banned: of people
	missing
	ended // of a trial, a plan

	login // an invitation to log in, of weight on a page only

	// Matters that a new token does not resolve, whatever their state.
	grant // that has ended
	quota
	money // which an error may mention in passing
	scope
	audience
	factor // a second one
	csrf
	nonce
	address
	denied
	upstream // a gateway speaks of the server behind it
	unsupported
	parse // the word token in the sense of a parser's

	// either is the "or" between a state of the token and another matter.
	either
)

// phrases are the words by concept: lower case, single blanks, no punctuation.
// At most three words make one phrase.
var phrases = map[concept]string{
	token: `token|tokens|jwt|jws|bearer|key|apikey|accesstoken|authtoken|session|pat|assertion|ticket|
		jeton|token de acceso|chave|clave|clé|chiave|ключ|токен|токена|sitzung|sesión|sessão|sessione|сессия|сессии|sesja|tokenu|oturum|anahtar|sessie|sleutel|nyckel`,
	credentials:  `credential|credentials|anmeldedaten|zugangsdaten|identifiants|credenciales|credenciais|credenziali`,
	refreshToken: `refresh token|refreshtoken|refresh tokens|consent`,
	clientID:     `client id|clientid|application id|app id`,
	account: `license key|licence key|product key|user|account|member|organization|organisation|tenant|workspace|subscription|konto|benutzer|compte|cuenta|conta|utente|пользователь|
		usuario|usuário|utilisateur|gebruiker|użytkownik|kullanıcı|hesap|hesabınız|учетная запись|учётная запись|аккаунт|benutzerkonto|conto|developer|
		license|licence|trial|evaluation|plan|membership|project|lizenz|abonnement|licencia|licença|licenza|suscripción|лицензия|подписка|licencja|lisans`,
	password: `password|username|user name|email|e mail|passwort|kennwort|benutzername|mot de passe|contraseña|senha|wachtwoord|пароль|имя пользователя|логин|
		hasło|şifre|parola|kullanıcı adı|nome utente|nombre de usuario`,
	certificate: `certificate|certificates|client cert|zertifikat`,
	otherToken: `reset token|invitation token|invite token|verification token|confirmation token|activation token|registration token|device token|push token|
		captcha token|page token|continuation token|idempotency token|upload token|webhook|magic link`,
	signature:        `signature|sig|firma|assinatura|signatur|firma digitale|подпись`,
	requestSignature: `d po p|hmac|request signature|signaturedoesnotmatch|canonical request|string to sign|aksk|sign|dpop proof|proof of possession`,
	moment:           `timestamp|clock|request time|x date|request timestamp|request has expired|request is expired|request expired|unix epoch|recv window|recvwindow|clock skew|time skew|server time`,

	expired: `expired|expires|expire|expiry|expiration|outdated|lifetime|ttl|too old|no longer valid|timed out|timeout|lapsed|
		abgelaufen|abgelaufenes|abgelaufener|verlopen|expiré|expirée|expirado|expirada|expirou|expiró|expirait|caducado|caducada|caducó|venció|vencido|vencida|scaduto|scaduta|
		истек|истёк|истекло|истекла|истёкший|истекший|просрочен|просрочился|wygasł|wygasła|vypršel|vypršela|doldu|dolmuş|dolmuştur|kedaluwarsa|utgått|udløbet`,
	invalid: `invalid|not valid|not correct|isnt valid|incorrect|wrong|bad|malformed|unknown|unrecognized|not recognized|
		unverified|unrecognised|untrusted|rejected|cannot verify|could not verify|failed to verify|verification failed|validation failed|validation failure|not found|does not exist|doesnt exist|
		ungültig|ungültiger|ungültiges|ungültige|falsch|falsches|invalide|invalides|inválido|inválida|inválidos|inválidas|incorreto|incorreta|incorretos|
		incorrecto|incorrecta|incorrectos|incorrectas|incorrecte|incorrects|no válido|no válida|no es válido|no es válida|non valido|non valida|non valide|errato|errata|errati|errate|
		ongeldig|ongeldige|onjuist|недействителен|недействительный|неверный|неверное|неверная|неверные|неправильный|nieprawidłowy|nieprawidłowe|nieprawidłowa|
		błędny|błędne|neplatný|geçersiz|hatalı|yanlış|ogiltig|ugyldig|tidak valid`,
	mismatch: `does not match|doesnt match|did not match|do not match|not match|mismatch|we calculated|computed|calculated`,
	revoked:  `revoked|already used|already been used|reuse detected|blacklisted|denylisted|invalidated|rotated|widerrufen|révoqué|révoquée|revocado|revogado|revocato|отозван|unieważniony`,
	disabled: `disabled|deactivated|deleted|inactive|not active|cancelled|canceled|removed|
		deaktiviert|désactivé|désactivée|desactivado|desactivada|desativado|desativada|disattivato|disabilitato|отключен|отключён|деактивирован|devre dışı`,
	locked: `suspended|banned|locked|blocked|frozen|terminated|closed|taken down|takedown|
		gesperrt|suspendu|suspendue|bloqué|bloquée|suspendido|suspendida|bloqueado|bloqueada|suspenso|suspensa|bloccato|sospeso|
		заблокирован|заблокирована|zablokowane|zablokowany|geblokkeerd|engellendi|kilitlendi|askıya`,
	ended: `ended|has ended|over`,
	missing: `missing|not provided|required|absent|empty|no|without|none|didnt provide|not present|not supplied|must be sent|must be provided|must be supplied|must be set|
		fehlt|fehlend|manquant|falta|отсутствует`,

	login: `password change|password changed|password reset|password has changed|password was changed|sign in|sign into|sign back|sign on|sign up|sign out|log in|login|signin|anmelden|connexion`,
	grant: `invalid grant|refresh failed|failed to refresh|could not refresh|unable to refresh`,
	money: `billing|payment|payments`,
	quota: `quota|budget|balance|funds|exceededbudget|rate limit|usage limit|spending limit|too many requests|
		too many|tokens per|max tokens|limit exceeded|limit reached|exceeded your|unpaid|overdue|spending cap|usage cap|top up|insufficient quota|kontingent|guthaben|out of credits|credits|credit|invoice|invoices|payment method`,
	scope:    `admin rights|admin role|administrator rights|requires admin|not an admin|scope|scopes|permission|permissions|privilege|privileges|insufficient permissions|insufficient rights|insufficient role|required role|required roles|missing role|role required|entitlement|entitlements|berechtigung|permisos|permissões`,
	audience: `audience|aud|audiences|issuer|iss|not issued for|issued for a|issued for another|wrong tenant|wrong environment|aud claim|wrong resource`,
	factor:   `device not recognized|device not recognised|device is not|sso login|single sign on|we sent to|sent to your|text message|sms code|reset your password|change your password|factor|factors|authenticator|tfa|unrecognized device|unrecognised device|untrusted device|unknown device|new device|device not trusted|sso required|via sso|sudo required|sudo mode|account verification|fresh token required|two factor|twofactor|2fa|mfa|otp|insufficient user authentication|one time|onetime|second factor|multi factor|multifactor|verification code|totp|interaction required|step up|passcode|captcha`,
	csrf:     `csrf|xsrf|cross site|forgery|authenticity token|request forgery`,
	nonce:    `nonce|replay|replayed`,
	address:  `paid plan|upgrade your|upgrade to|not a member|email is not verified|address is not verified|address not verified|e mail not verified|not whitelisted|not allowlisted|ip|ip address|allowlist|whitelist|whitelisted|geo|country|referer|referrer|origin not|request domain|invalid domain|domain not|unauthorized domain`,
	denied: `email not verified|email not confirmed|email verification|unverified email|verify your email|confirm your email|verify your account|confirm your account|activate your account|
		not approved|been approved|not trusted|pending approval|no active account|maintenance|only available|upgrade to|upgrade your|plan required|unauthorized client|unusual activity|suspicious activity|
		invalid client|client authentication failed|not allowed|permission denied|not permitted|not enabled|not entitled`,
	upstream:    `provider returned|upstream error|upstream provider|upstream returned|upstream key|upstream api`,
	unsupported: `basic auth|basic authentication|digest authentication|not supported|unsupported|not currently supported|currently not supported`,
	parse:       `unexpected token|unexpected tokens|token at position|syntaxerror|syntax error`,
	either:      `or|oder|ou|o|или|lub|veya`,
}

// terms are those of languages that do not put blanks between words.
var terms = map[concept]string{
	token:            `登录|登入|登錄|登陆|ログイン|로그인|令牌|權杖|凭证|憑證|凭据|密钥|密鑰|金鑰|トークン|キー|토큰|키|会话|會話|登录状态|登錄狀態|登录态|セッション|세션`,
	refreshToken:     `刷新令牌|刷新token|刷新 token|刷新Token|刷新 Token|更新令牌|更新權杖|リフレッシュトークン|리프레시 토큰|리프레시토큰|리프레쉬 토큰|갱신 토큰|재발급`,
	account:          `用户|用戶|试用期|試用期|试用|許可證|许可证|账号|账户|帳號|帳戶|ユーザー|アカウント|사용자|계정`,
	password:         `密码|密碼|パスワード|비밀번호`,
	certificate:      `证书|證書|証明書`,
	requestSignature: `签名|簽名|验签|驗簽|署名|서명|签名错误|签名验证失败`,
	moment:           `时间戳|時間戳|タイムスタンプ|타임스탬프`,
	expired:          `过期|過期|失效|到期|已失效|逾時|超时|超時|有効期限|期限切れ|만료`,
	invalid:          `无效|無效|不合法|非法|错误|錯誤|不正确|不正確|不存在|校验失败|验证失败|驗證失敗|無効|正しくありません|유효하지|유효 하지|잘못된|올바르지|존재하지|변질`,
	mismatch:         `不匹配|不一致|一致しません|일치하지`,
	revoked:          `吊销|吊銷|撤销|撤銷|注销|状态不可用|狀態不可用|已删除|已刪除|被删除|作废|取り消|취소|폐기`,
	locked:           `封禁|冻结|凍結|被禁用|停用|停止|已禁用|锁定|鎖定|黑名单|정지|차단`,
	ended:            `结束|結束`,
	missing:          `未提供|缺少|缺失|为空|未携带|未登录|未登錄|ありません|없습니다|필요합니다|必要です`,
	quota:            `额度|額度|余额|餘額|欠费|欠費|充值|配额|配額|套餐|点数|续费|續費|残高|クォータ|잔액|할당량`,
	scope:            `权限|權限|权限不足|スコープ|権限|권한`,
	factor:           `验证码|驗證碼|二次验证|动态码|短信|認証コード|인증번호|二步`,
	address:          `白名单|白名單|IP地址`,
	upstream:         `上游`,
	denied:           `实名认证|實名認證|无权|無權|禁止|拒绝访问|不允许|不支持`,
	either:           `或|または|또는`,
}

// An entry of the lexicon is a phrase, or the first word of longer ones.
type entry struct {
	concept concept
	longest int // words of the longest phrase that begins with this one
}

type term struct {
	text    string
	concept concept
}

// lexicon returns phrases and terms as they are looked up: the terms by their
// first character, the longest first.
var lexicon = sync.OnceValues(func() (map[string]entry, map[rune][]term) {
	words, runes := map[string]entry{}, map[rune][]term{}
	for c, list := range phrases {
		for p := range strings.SplitSeq(list, "|") {
			p = strings.TrimSpace(p)
			e := words[p]
			e.concept = c
			words[p] = e
			first, _, _ := strings.Cut(p, " ")
			e = words[first]
			e.longest = max(e.longest, strings.Count(p, " ")+1)
			words[first] = e
		}
	}
	for c, list := range terms {
		for t := range strings.SplitSeq(list, "|") {
			r, _ := utf8.DecodeRuneInString(t)
			runes[r] = append(runes[r], term{t, c})
		}
	}
	for _, list := range runes {
		slices.SortFunc(list, func(a, b term) int { return len(b.text) - len(a.text) })
	}
	return words, runes
})
