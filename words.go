package reauth

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A concept is what a word of an error message is about. Servers have few things
// to say when they turn a token down, and many ways to say them: so their words
// are looked up one by one, and what is said follows from which state is put
// together with which subject.
type concept uint8

const (
	nothing concept = iota

	// Subjects: what a state is said of.
	token        // a token, a key, a session: what a refresh replaces
	refreshToken // what a refresh needs
	account      // a user, an account
	password     // a password, a login by name
	certificate
	otherToken       // one that is not the request's
	signature        // of a token, or of a request: what is said of it decides
	requestSignature // of a request
	moment           // a timestamp of the request

	// States.
	expired
	invalid
	mismatch
	revoked // also disabled, where it is said of a token
	locked  // suspended, banned: of people
	missing
	ended // said of a trial, a plan

	login // an invitation to log in, of weight on a page only

	// Matters that a fresh token does not settle, whatever is said of them.
	grant // a dead one
	quota
	scope
	audience
	factor // a second one
	csrf
	nonce
	address
	denied
	unsupported
	parse // the word token in the sense of a parser's

	// either is the "or" between a state of the token and another matter.
	either
)

// phrases are the words by concept: lower case, single blanks, no punctuation.
// At most three words make one phrase.
var phrases = map[concept]string{
	token: `token|tokens|jwt|jws|bearer|key|apikey|credential|credentials|accesstoken|authtoken|session|pat|assertion|
		jeton|token de acceso|chave|clave|clé|ключ|токен|ticket`,
	refreshToken: `refresh token|refreshtoken|refresh tokens`,
	account: `user|account|member|organization|organisation|tenant|workspace|subscription|konto|benutzer|compte|cuenta|conta|utente|пользователь|
		subscription|license|licence|trial|plan|membership|project`,
	password:    `password|passwort|username|user name|mot de passe|contraseña|senha|пароль`,
	certificate: `certificate|certificates|client cert|zertifikat`,
	otherToken: `reset token|invitation token|invite token|verification token|confirmation token|activation token|registration token|device token|push token|
		captcha token|page token|continuation token|idempotency token|upload token|webhook|magic link`,
	signature:        `signature`,
	requestSignature: `hmac|request signature|signaturedoesnotmatch|canonical request|string to sign`,
	moment:           `timestamp|clock|request time|x date|request timestamp|request has expired|request is expired|request expired`,

	expired: `expired|expires|expire|expiry|expiration|outdated|lifetime|ttl|too old|no longer valid|timed out|timeout|
		abgelaufen|verlopen|expiré|expirée|expirado|expirada|caducado|caducada|caducó|expirou|expiró|expirait|venció|vencido|scaduto|scaduta|
		истек|истёк|истекло|истекла|просрочен|wygasł|vypršel|doldu|kedaluwarsa|utgått|udløbet`,
	invalid: `invalid|not valid|isnt valid|incorrect|wrong|bad|malformed|unknown|unrecognized|unrecognised|not recognized|
		unverified|cannot verify|could not verify|failed to verify|verification failed|validation failed|validation failure|not found|does not exist|doesnt exist|
		ungültig|ungültiger|ungültiges|invalide|inválido|inválida|no válido|no es válido|non valido|non valide|ongeldig|
		недействителен|недействительный|неверный|nieprawidłowy|neplatný|geçersiz|tidak valid`,
	mismatch: `does not match|doesnt match|did not match|not match|mismatch|we calculated|computed|calculated`,
	revoked: `revoked|disabled|deactivated|deleted|inactive|not active|blacklisted|denylisted|cancelled|canceled|invalidated|removed|rotated|
		widerrufen|révoqué|revocado|revogado|отозван`,
	locked: `suspended|banned|locked|blocked|frozen|terminated|closed|gesperrt`,
	ended:  `ended|has ended|over`,
	missing: `missing|not provided|required|absent|empty|no|without|none|didnt provide|not present|not supplied|
		fehlt|fehlend|manquant|falta|отсутствует`,

	login: `sign in|log in|login|signin|anmelden|connexion`,
	grant: `invalid grant`,
	quota: `quota|budget|balance|billing|credits|credit|funds|payment|exceededbudget|rate limit|usage limit|spending limit|too many requests|
		tokens per|max tokens|limit exceeded|limit reached|exceeded your|insufficient quota|kontingent|guthaben`,
	scope:       `scope|scopes|permission|permissions|privilege|privileges|insufficient permissions|entitlement|entitlements|berechtigung|permisos|permissões`,
	audience:    `audience|aud|audiences|issuer|aud claim|wrong resource`,
	factor:      `two factor|twofactor|2fa|mfa|otp|insufficient user authentication|one time|onetime|second factor|multi factor|multifactor|verification code|totp|interaction required|step up|passcode|captcha`,
	csrf:        `csrf|xsrf|cross site|forgery|authenticity token|request forgery`,
	nonce:       `nonce|replay|replayed`,
	address:     `ip|ip address|allowlist|whitelist|whitelisted|geo|country|referer|referrer|origin not`,
	denied:      `email not verified|verify your email|invalid client|client authentication failed|not allowed|permission denied|forbidden|not permitted|not enabled|not entitled`,
	unsupported: `not supported|unsupported|not currently supported|currently not supported`,
	parse:       `unexpected token|unexpected tokens|token at position|syntaxerror|syntax error`,
	either:      `or|oder|ou|o`,
}

// terms are those of languages that do not put blanks between words.
var terms = map[concept]string{
	token:            `令牌|凭证|憑證|凭据|密钥|密鑰|金鑰|トークン|キー|토큰|키|会话|會話|登录状态|登錄狀態|登录态`,
	refreshToken:     `刷新令牌|刷新token|リフレッシュトークン|재발급`,
	account:          `用户|用戶|账号|账户|帳號|帳戶|ユーザー|アカウント|사용자|계정`,
	password:         `密码|密碼|パスワード|비밀번호`,
	certificate:      `证书|證書|証明書`,
	requestSignature: `签名|簽名|验签|署名|서명`,
	moment:           `时间戳|時間戳`,
	expired:          `过期|過期|失效|到期|已失效|有効期限|期限切れ|만료`,
	invalid:          `无效|無效|不合法|非法|错误|錯誤|不正确|不正確|不存在|校验失败|验证失败|驗證失敗|無効|正しくありません|유효하지|잘못된`,
	revoked:          `吊销|吊銷|撤销|撤銷|注销|状态不可用|狀態不可用|已删除|已刪除|被删除|作废|取り消|취소|폐기`,
	locked:           `封禁|冻结|凍結|被禁用|停用|锁定|鎖定|黑名单|정지`,
	missing:          `未提供|缺少|缺失|为空|未携带|未登录|未登錄|ありません|없습니다|필요합니다|必要です`,
	quota:            `额度|額度|余额|餘額|欠费|欠費|充值|配额|配額|套餐|点数|残高|クォータ|잔액|할당량`,
	scope:            `权限|權限|权限不足|スコープ|権限|권한`,
	factor:           `验证码|驗證碼|二次验证|动态码|短信|認証コード|인증번호|二步`,
	address:          `白名单|白名單|IP地址`,
	denied:           `无权|無權|禁止|拒绝访问|不允许|不支持`,
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

// A said is a concept where it stands in a sentence, counted in words.
type said struct {
	concept concept
	at, end int
}

// A listener hears what sentences say, and keeps the weightiest.
type listener struct {
	page   bool // an HTML page
	reason Reason

	// Of the sentence under way.
	words  []byte // each followed by a blank
	starts []int  // of the words
	inWord bool
	heard  []said
}

// maxHeard is how much of one text is listened to.
const maxHeard = 4 << 10

// hear listens to a text or a code: TOKEN_EXPIRED, tokenExpired and "token
// expired" are the same to it.
func (l *listener) hear(text string) {
	_, terms := lexicon()
	text = text[:min(len(text), maxHeard)]
	if l.words == nil {
		l.words, l.starts, l.heard = make([]byte, 0, 128), make([]int, 0, 16), make([]said, 0, 8)
	}
	var last rune
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(text[i:])
		}
		switch {
		case r == 'h' && (strings.HasPrefix(text[i:], "http://") || strings.HasPrefix(text[i:], "https://")):
			l.blank() // an address says nothing
			for i+n < len(text) && text[i+n] > ' ' && text[i+n] < utf8.RuneSelf && text[i+n] != '"' && text[i+n] != '\'' {
				n++
			}
		case 'a' <= r && r <= 'z':
			l.letter(r)
		case 'A' <= r && r <= 'Z':
			// tokenExpired, JWTExpired
			lower := i+1 < len(text) && 'a' <= text[i+1] && text[i+1] <= 'z'
			if 'a' <= last && last <= 'z' || 'A' <= last && last <= 'Z' && lower {
				l.blank()
			}
			l.letter(r | 0x20)
		case '0' <= r && r <= '9':
			l.letter(r)
		case r == '\'', r == '’':
		case r == '.' && i+1 < len(text) && text[i+1] > ' ': // invalid.token
			l.blank()
		case r == '.', r == '!', r == '?', r == ';', r == '\n', r == '。', r == '！', r == '？', r == '；':
			l.sentence()
		case r < utf8.RuneSelf:
			l.blank()
		case r >= 0x2E80: // no blanks between words from here on
			if t := longest(terms[r], text[i:]); t.concept != nothing {
				l.blank()
				l.starts = append(l.starts, len(l.words))
				l.words = append(l.words, ' ') // no word, but a place
				l.heard = append(l.heard, said{t.concept, len(l.starts) - 1, len(l.starts) - 1})
				n = len(t.text)
			} else {
				l.blank()
			}
		case unicode.IsLetter(r):
			l.letter(unicode.ToLower(r))
		default:
			l.blank()
		}
		last = r
		i += n
	}
	l.sentence()
}

// letter takes a letter of a word, in lower case.
func (l *listener) letter(r rune) {
	if !l.inWord {
		l.starts = append(l.starts, len(l.words))
		l.inWord = true
	}
	if r < utf8.RuneSelf {
		l.words = append(l.words, byte(r))
	} else {
		l.words = utf8.AppendRune(l.words, r)
	}
}

// blank ends a word.
func (l *listener) blank() {
	if l.inWord {
		l.words = append(l.words, ' ')
		l.inWord = false
	}
}

// longest returns the longest of the terms that text begins with.
func longest(list []term, text string) term {
	for _, t := range list {
		if strings.HasPrefix(text, t.text) {
			return t
		}
	}
	return term{}
}

// sentence ends a sentence, and weighs what it said.
func (l *listener) sentence() {
	l.blank()
	words, _ := lexicon()
	for i := 0; i < len(l.starts); {
		first := l.word(i, i+1)
		n := 1
		if e, ok := words[string(first)]; ok {
			for n = max(min(e.longest, len(l.starts)-i), 1); n > 1; n-- {
				if e, ok := words[string(l.word(i, i+n))]; ok && e.concept != nothing {
					l.heard = append(l.heard, said{e.concept, i, i + n})
					break
				}
			}
			if n == 1 && e.concept != nothing {
				l.heard = append(l.heard, said{e.concept, i, i + 1})
			}
		} else if len(first) > 5 && bytes.HasSuffix(first, []byte("token")) { // Zugriffstoken
			l.heard = append(l.heard, said{token, i, i + 1})
		}
		i += n
	}
	if len(l.heard) > 0 {
		slices.SortStableFunc(l.heard, func(a, b said) int { return a.at - b.at })
		if r := weigh(l.heard, l.page); r.rank() > l.reason.rank() {
			l.reason = r
		}
	}
	l.words, l.starts, l.heard = l.words[:0], l.starts[:0], l.heard[:0]
}

// word returns the words from i to j, without the last blank.
func (l *listener) word(i, j int) []byte {
	end := len(l.words)
	if j < len(l.starts) {
		end = l.starts[j]
	}
	return bytes.TrimRight(l.words[l.starts[i]:end], " ")
}

func (c concept) subject() bool { return c >= token && c <= moment }
func (c concept) state() bool   { return c >= expired && c <= ended }

// weigh returns what a sentence says of the token, if anything.
func weigh(heard []said, page bool) Reason {
	var has [either + 1]bool
	for _, s := range heard {
		has[s.concept] = true
	}
	cure, other := pairs(heard)
	switch {
	case has[parse]:
		return ReasonOther
	case has[quota]:
		return ReasonQuota
	case has[csrf]:
		return ReasonCSRF
	case has[grant]:
		return ReasonLogin
	case has[factor]:
		return ReasonStepUp
	case has[nonce]:
		return ReasonNonce
	case has[audience]:
		return ReasonAudience
	case has[requestSignature] && !has[token], has[signature] && has[mismatch] && !has[token], has[moment] && !has[token]:
		return ReasonSignature
	case other != "":
	case has[scope]:
		other = ReasonInsufficientScope
	case has[address], has[denied]:
		other = ReasonDenied
	case has[unsupported], has[certificate], has[login] && page:
		other = ReasonOtherScheme
	}
	// "Invalid token or insufficient permissions" leaves it open: in doubt, refresh.
	if other == "" || has[either] && cure != "" {
		return cure
	}
	return other
}

// pairs puts the states of a sentence together with their subjects: one that
// comes right behind ("an expired token"), or the one before ("the token of the
// user has expired"), or else the next. It returns what is said of the token,
// and what of other things.
func pairs(heard []said) (cure, other Reason) {
	before := nothing
	for i, s := range heard {
		if s.concept.subject() {
			before = s.concept
		}
		if !s.concept.state() {
			continue
		}
		subject, end := nothing, s.end
		for _, next := range heard[i+1:] {
			if !next.concept.subject() || next.at != end && (subject != nothing || before != nothing) {
				break
			}
			subject, end = next.concept, next.end // of several in a row the last: "user token"
		}
		if subject == nothing {
			subject = before
		}
		switch r := reasonOf(subject, s.concept); {
		case r == "":
		case !r.Refreshable():
			other = r
		case cure == "" || cure == ReasonMissing:
			cure = r
		case r != cure && r != ReasonMissing:
			cure = ReasonInvalidToken // several at once: it is one of them
		}
	}
	return cure, other
}

// reasonOf returns what it means for a request that such a thing is in such a
// state.
func reasonOf(subject, state concept) Reason {
	switch subject {
	case refreshToken:
		if state != missing {
			return ReasonLogin
		}
	case account:
		if state == locked || state == revoked || state == expired || state == ended {
			return ReasonDenied
		}
	case password, certificate:
		return ReasonOtherScheme
	case otherToken:
		return ReasonOther
	case token, signature, requestSignature:
		switch state {
		case expired:
			return ReasonExpired
		case revoked, locked:
			return ReasonRevoked
		case missing:
			return ReasonMissing
		}
		return ReasonInvalidToken
	case nothing:
		switch state {
		case expired:
			return ReasonExpired
		case revoked:
			return ReasonRevoked
		case locked:
			return ReasonDenied
		}
	}
	return ""
}
