package recognize

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A concept is what a word of an error message is about. Servers have few reasons to
// reject a request, and many ways to say them. So their words are looked up one by one,
// and the reason follows from which state is combined with which subject.
type concept uint8

const (
	nothing concept = iota

	// Subjects of a state.
	token        // a token, a key, a session: what a refresh replaces
	credentials  // that may be a token, and may be a password
	refreshToken // what a refresh needs, or the consent behind it
	client       // the application that a token was issued for, or its secret
	user         // a person, who may be unknown because the token is stale
	account      // what a person belongs to: an account, a tenant, a project
	plan         // a licence, a subscription, a trial
	right        // a permission, a role, a capability
	password     // a password, a login by name
	certificate
	email            // that has to be verified
	otherToken       // one that is not the request's
	signature        // of a token, or of a request, as its state decides
	requestSignature // of a request, or of a webhook
	hmac             // of a request too, even if a token is mentioned
	moment           // a timestamp or a clock
	requestTime      // of a request
	secret           // of an application
	thing            // a version, a device
	admin            // a person who may
	authn            // authentication, of which no state is news but its end
	login            // an invitation to log in, of weight on a page only

	// States.
	expired
	invalid
	unverified
	notYet // verified, enabled, …
	mismatch
	revoked
	disabled // or deleted: of a token as good as revoked, of nothing in particular no news
	locked   // suspended, banned: of people
	missing
	ended        // of a trial, a plan
	unauthorized // of a token no news, of a team some
	limited      // restricted to something else

	loginFailed // as with a name and a password

	// Matters that decide, whatever their state.
	timeClaim // exp, nbf or iat: a token's time
	malformed // not a token's form
	ousted    // by a new password, another login: it revokes the tokens
	grant     // that has ended
	quota
	money // which an error may mention in passing
	scope
	audience
	factor   // a second one
	identity // to be proved again
	csrf
	nonce
	address
	place      // where a request comes from, or goes to
	clientAuth // of an application, by its secret
	denied     // in terms that leave no doubt
	refused    // in general terms
	upstream
	unsupported
	parse // the word token in the sense of a parser's
	setup // of the server
	generic

	// Words that combine others.
	of      // "the account of this token" is an account
	either  // the "or" between a state of the token and another matter
	example // "e.g.": what follows is one of several causes

	concepts // how many there are
)

// phrases are the words by concept: lower case, single blanks, no punctuation. At most
// three words make one phrase. A star stands for any ending of a word.
var phrases = map[concept]string{
	token: `token|tokens|jwt|jwts|jws|jwe|bearer|key|keys|apikey|apikeys|accesstoken|authtoken|session|sessions|sessionid|pat|assertion|ticket|id token|security token|api token|
		access token|auth token|app key|appkey|consumer key|session token|session cookie|sessionid|login session|login status|user token|user session|account token|service account token|
		jeton|jetons|token de acceso|chave|chaves|clave|claves|clé|clés|chiave|schlüssel|schluessel|ключ|ключа|токен*|sitzung|sesión|sesion|sessão|sessao|sessione|session utilisateur|
		сесси*|сеанс*|sesja|sesji|sesi|tokenu|tokena|tokenem|tokeni|tokenin|tokeniniz|oturum*|anahtar*|sessie|sleutel*|nyckel*|nøgle|sesjon|sessionen|istunto|relace|munkamenet|sesiune*|sesiunea|klíč|klucz|kulcs|
		mã thông báo|phiên|phiên đăng nhập|phiên làm việc|khóa api|khoá api|kunci|الرمز|رمز|الجلسة|توكن|אסימון`,
	credentials: `credential*|anmeldedaten|anmeldeinformationen|zugangsdaten|identifiants|credencia*|credenzial*|poświadcze*|kimlik bilgi*|inloggegevens|учётные данные|учетные данные|thông tin đăng nhập|kredensial*|
		authenticating header|authorization header|auth header|authorization value|thông tin xác thực`,
	refreshToken: `refresh token|refreshtoken|refresh tokens|consent|refresh session`,
	client:       `client id|clientid|application id|app id|appid|client application|client|oauth client|application`,
	user: `user|users|userid|member|members|developer|customer|employee|benutzer|benutzers|nutzer|utente|utenti|пользовател*|usuari*|usuár*|utilisateur*|gebruiker*|użytkowni*|kullanıcı*|bruger*|användar*|
		người dùng|pengguna|uživatel*|felhasznál*|utilizator*|käyttäjä*|bruker*|користувач*|المستخدم`,
	account: `integration|installation|org|org id|orgid|organization id|tenant id|account id|project id|account|accounts|organization|organisation|organizations|tenant|workspace|project|company|team|store|shop|site|merchant|partner|instance|environment id|realm|subaccount|owner|
		konto|kontos|benutzerkonto|compte|comptes|cuenta|cuentas|conta|contas|аккаунт*|учетная запись|учётная запись|учетной записи|учётной записи|учетную запись|hesap|hesabı*|hesabınız|konta|conto|contul|účet|fiók|tili|
		organisationen|organización|organização|organizzazione|организац*|mandant|mieter|empresa|entreprise|projet|proyecto|projeto|progetto|проект|tài khoản|akun|обліковий запис|الحساب`,
	plan: `contract|agreement|vertrag|contrat|contrato|contratto|license key|licence key|product key|activation key|license|licence|licenses|licenced|licensed|trial|evaluation|plan|membership|subscription|subscriptions|subscriber|free tier|addon|add on|
		lizenz*|abonnement*|licencia*|licença*|licenza|licencj*|suscripción|assinatura do|лицензи*|подписк*|lisans*|abonelik*|gói dịch vụ|langganan|lisensi`,
	right: `write access|read access|admin access|owner access|write permission|full access|role|roles|capability|capabilities|privilege|privileges|rights|permission|permissions|entitlement|entitlements|authority|authorities|grants|clearance|access level|access rights|
		berechtigung*|rechte|zugriffsrechte|permiso|permisos|permissões|permissao|permissão|permessi|permesso|droit|droits|rol|rolle|rôle|rechten|uprawnie*|прав|права|yetki|yetkiniz|yetkisi|izin|izniniz|behörighet*|oprávnění|jogosultság*|quyền|hak akses`,
	password: `login credentials|logon credentials|password|passwords|username|user name|passwort|kennwort|benutzername|mot de passe|contraseña|contrasena|senha|wachtwoord|парол*|имя пользователя|логин|passphrase|
		hasło|hasła|şifre*|parola*|kullanıcı adı|nome utente|nombre de usuario|nome de usuário|lösenord|adgangskode|passord|heslo|jelszó|mật khẩu|kata sandi`,
	certificate: `certificate|certificates|client cert|ssl certificate|zertifikat*|certificado*|certificat|сертификат*`,
	email:       `akun email|correo|courriel|surel|thư điện tử|email|e mail|email address|e mail address|phone number|phone|adresse e mail|adresse email|correo|correo electrónico|e posta|электронн*`,
	otherToken: `encryption key|share|shares|shared link|share code|upload session|checkout session|payment session|download link|verification ticket|password reset link|login link|sign in link|confirmation link|verification link|activation link|link|enlace|lien|liên kết|ссылка|access code|admin secret|invite code|invitation code|pin|pin code|coupon|voucher|promo code|activation code|device code|user code|code verifier|state parameter|access pin|room code|join code|master key required|registration code|referral code|gift card|reset token|invitation token|invite token|verification token|confirmation token|activation token|registration token|device token|push token|reset link|invitation|invite|
		captcha token|page token|continuation token|idempotency token|upload token|magic link|one time token|setup token|unsubscribe token|download token|share token|share link|account key|
		idempotency key|primary key|foreign key|public key|partition key|cache key|routing key`,
	signature: `signature|signatures|sig|firma|assinatura|signatur|firma digitale|подпись|sygnatura|imza|handtekening|podpis|chữ ký|tanda tangan`,
	requestSignature: `content md5|payload hash|content hash|content digest|signature algorithm|d po p|request signature|canonical request|string to sign|aksk|sign|dpop proof|proof of possession|webhook|webhooks|webhook signature|hub signature|signing secret|
		oauth signature|signature base string|signature base|signaturebasestring|signature string|signature header|signature method|signature version|x signature|payload signature|body hash|checksum|digest header|request signing|api signature|
		authorization signature|signature hash`,
	hmac:        `hmac|hmac signature|hmac auth`,
	moment:      `timestamp|timestamps|clock|request date|unix epoch|clock skew|time skew|server time|too skewed|time difference|system time`,
	requestTime: `request is too|request too old|request was too|requested time|date is too|request time|x date|date header|request timestamp|request has expired|request is expired|request expired|recv window|recvwindow|receive window|header timestamp|timestamp header|x timestamp|timestamp outside|signed request`,
	secret:      `client secret|app secret|appsecret|consumer secret|application secret|secret key|clientsecret`,
	admin:       `admin|administrator|administrators|admins|superuser|super admin|superadmin`,
	authn:       `authentication|authorization|authorisation|authenticate|authenticated|authenticating|authentifizierung|authentification|autenticación|autenticação|autenticazione|аутентификац*|авторизац*|uwierzytelnianie|kimlik doğrulama|xác thực|autentikasi`,
	thing:       `parameter|parameters|field|column|order|file|item|document|entity|route|device|devices|machine|terminal|browser|api version|app version|client version|this version|sdk version`,

	expired: `expired|expires|expire|expirer|expiry|expiration|expiring|outdated|lifetime|ttl|too old|no longer valid|timed out|timeout|lapsed|stale|has elapsed|aged out|
		abgelaufen*|verlopen|expiré*|expirad*|expirou|expiró|expirait|expiro|expirat|expirată|caducad*|caducó|caduque|venció|vencid*|scadut*|périmé*|
		истек*|истёк*|просроч*|устарел*|wygas*|vypršel*|lejárt|doldu|dolmuş*|kedaluwarsa|kadaluarsa|kadaluwarsa|utgått|utgånget|udløbet|utløpt|vanhentunut|спливла|минув*|geçersiz kılınmış|hết hạn|quá hạn|berakhir|habis|انتهت|منتهي*|انتهى`,
	invalid: `invalid|notvalid|not valid|not correct|isnt valid|incorrect|wrong|bad|malformed|unknown|unrecognized|unrecognised|not recognized|not recognised|no longer accepted|nonexistent|non existent|not known|undefined|illegal|forged|tampered|
		untrusted|rejected|cannot verify|could not verify|couldnt verify|cant verify|cannot be verified|could not be|unable to verify|failed to verify|not be verified|verification failed|validation failed|validation failure|validation error|not verified|failed verification|
		not be validated|failed validation|failed to validate|could not validate|unable to validate|cannot validate|failed to parse|failed to decode|failed to decrypt|could not parse|could not decode|cannot parse|be parsed|be decoded|unable to parse|unable to decode|unparsable|undecodable|corrupt*|
		not found|notfound|does not exist|doesnt exist|do not exist|not exist|not exists|no such|not match any|match any|didnt match|not registered|not issued by|
		ungültig*|ungueltig*|falsch|falsche|falsches|unbekannt*|invalide|invalides|inválid*|invalido|invalida|invalidos|invalidas|incorreto*|incorreta*|incorrecto*|incorrecta*|incorrecte*|incorrects|erroné*|inconnu*|erróne*|desconocid*|desconhecid*|sconosciut*|
		no válido|no válida|no es válido|no es válida|no es valido|no es valida|non valido|non valida|non valide|nest pas valide|pas valide|plus valide|não é válido|não é válida|não é mais|no es correcto|errato|errata|errati|errate|
		nicht gefunden|introuvable*|non trouvé|no encontrado|no encontrada|não encontrado|não encontrada|nao encontrado|non trovato|non trovata|не найден*|nie znaleziono|bulunamadı|niet gevonden|existiert nicht|nexiste pas|no existe|não existe|nao existe|не существует|nie istnieje|mevcut değil|bestaat niet|
		không tìm thấy|không tồn tại|tidak ditemukan|tidak ada|
		ongeldig*|onjuist*|onbekend*|недейств*|неверн*|неправильн*|некорректн*|неизвестн*|невалидн*|nieprawidłow*|nieznan*|błędn*|neplatn*|nesprávn*|geçersiz*|hatalı|yanlış|bilinmeyen|ogiltig*|ugyldig*|virheellinen|érvénytelen|nevalid|nevažeć*|недійсн*|
		không hợp lệ|không đúng|không chính xác|tidak valid|tidak sah|salah|غير صالح|غير صالحة|غير صحيح|לא תקין|לא חוקי`,
	notYet: `not yet|hasnt been|has not been|have not been|hasnt yet|havent been|noch nicht|pas encore|todavía no|aún no|aun no|ainda não|ainda nao|non ancora|non è ancora|еще не|ещё не|не было|henüz|belum|chưa|nog niet|ännu inte|endnu ikke|ikke endnu|nie zostało|nie został|nie została|jeszcze nie|ještě|még nem|ще не`,
	unverified: `not completed|incomplete|konfirmasi*|xác nhận|potwierd*|potwierdź|confirmer|confirmar|confirmare|bevestig*|bekräfta*|bekræft*|onayla*|doğrula*|подтверд*|активируйте|aktivieren|activer|activar|ativar|attivare|aktywuj*|kích hoạt|unverified|unconfirmed|not verified|not confirmed|not been verified|not been confirmed|unapproved|not approved|not been approved|not activated|not been activated|pending|pending approval|pending verification|awaiting approval|needs verification|not yet verified|not yet approved|
		verify your|confirm your|activate your|verification required|confirmation required|activation required|must be verified|must be confirmed|verifier votre|vérifier votre|confirmer votre|verifica tu|verifique su|verifique tu|confirma tu|confirme seu|verifique seu|bestätigen sie|verifica la tua|verifica il tuo|conferma la|
		nicht bestätigt|nicht verifiziert|nicht freigeschaltet|non vérifié|non vérifiée|non confirmé|no verificado|no verificada|não verificado|não verificada|non verificato|non verificata|не подтвержден*|не подтверждён*|подтвердите|niezweryfikowan*|doğrulanmamış|doğrulanmadı|chưa xác minh|chưa được xác|belum diverifikasi`,
	mismatch: `not associated|isnt associated|not linked|not assigned to|does not match|doesnt match|did not match|do not match|dont match|not match|mismatch*|we calculated|computed|calculated|not equal|differs|different from|stimmt nicht überein|ne correspond pas|no coincide|não corresponde|non corrisponde|не совпада*|does not belong|doesnt belong|not belong to|
		not part of|not a part`,
	revoked: `revoked|revocation|already used|already been used|reuse detected|blacklisted|denylisted|blocklisted|invalidated|rotated|superseded|log out|has been consumed|widerrufen*|révoqué*|revocad*|revogad*|revocat*|отозван*|unieważnion*|iptal edil*|återkallad|tilbagekaldt|ingetrokken|thu hồi|dicabut|annullat*`,
	disabled: `disabled|deactivated|deleted|inactive|not active|isnt active|no longer active|non active|not in active|cancelled|canceled|removed|archived|dormant|no longer exists|no longer a|decommissioned|
		deaktiviert*|inaktiv*|nicht aktiv|gelöscht*|désactivé*|inactif|inactive|supprimé*|desactivad*|inactiv*|eliminad*|desativad*|inativ*|disattivat*|disabilitat*|inattiv*|отключен*|отключён*|деактивирован*|удален*|удалён*|неактив*|не активен|не активна|nieaktywn*|dezaktywowan*|usunięt*|devre dışı|pasif|aktif değil|gedeactiveerd|uitgeschakeld|uppehåll|inaktiverat|
		vô hiệu hóa|vô hiệu|không hoạt động|nonaktif|dinonaktifkan|tidak aktif|dihapus`,
	locked: `terkunci|dikunci|verrouill*|gesloten|vergrendeld|låst|zamčen*|zárol*|blocat*|заблоковано|khóa|suspended|suspension|banned|locked|lockout|blocked|frozen|terminated|closed|taken down|takedown|barred|on hold|deregistered|quarantined|
		gesperrt*|suspendu*|bloqué*|suspendid*|bloquead*|suspens*|bloccat*|sospes*|заблокирован*|приостановлен*|zablokowan*|zawieszon*|geblokkeerd|opgeschort|engellen*|kilitlen*|askıya|spärrat|blokeret|bị khóa|bị khoá|bị chặn|đình chỉ|diblokir|ditangguhkan|محظور|موقوف`,
	limited:      `restricted|limited|read only|readonly`,
	unauthorized: `not authorized|not authorised|unauthorized|unauthorised|isnt authorized|authentication failed|auth failed|authentication failure|failed authentication`,
	ended:        `ended|over|finished|run out|ran out`,
	missing: `does not include|doesnt include|not include|exclude*|missing|not provided|required|absent|empty|no|without|none|didnt provide|did not provide|not present|not supplied|not specified|not set|not sent|not included|must be sent|must be provided|must be supplied|must be set|must include|must have|must provide|lack|lacks|lacking|insufficient|inadequate|
		needs|need|requires|require|requiring|not have|doesnt have|dont have|has no|have no|isnt assigned|not assigned|not granted|not been granted|not hold|expected|
		fehlt|fehlen|fehlend*|erforderlich|benötigt|keine|kein|fehlende|manquant*|requis|requise|aucun|aucune|insuffisant*|falta|faltan|faltante|requerid*|insuficiente*|ausente|obrigatóri*|mancante|richiest*|insufficient*|отсутству*|требуется|недостаточно|нет|brak|wymagan*|eksik|gerekli|gerekiyor|yetersiz|yok|ontbreekt|vereist|onvoldoende|geen|saknas|mangler|thiếu|không có|yêu cầu|diperlukan|tidak memiliki`,

	login:       `logged in|signed in|be logged|login again|sign in|sign into|sign back|sign on|sign up|sign out|log in|login|signin|anmelden|connexion`,
	loginFailed: `login failed|log in failed|login failure|failed login|failed to login|failed to log|login unsuccessful|signin failed|login attempt|login attempts|anmeldung fehlgeschlagen`,

	timeClaim: `exp|nbf|iat|exp claim|nbf claim|iat claim|not yet valid|not valid yet|not yet active|not active yet|not valid before|not be valid|will be active|valid from|used before|issued in the|not before|
		noch nicht gültig|expires in past`,
	malformed: `signing key|matching key|no matching key|find a key|kid|key id not|unknown kid|not enough segments|too many segments|enough segments|many segments|number of segments|segments length|segments|wrong number of|three parts|not well formed|illegal base64|base64|format unrecognized|token format|number of parts|compact jws|compact jwe`,
	ousted:    `password change|password changed|password has changed|password was changed|password been changed|changed password|changed their password|changed your password|changed his password|password was reset|password been reset|password has been|credentials have changed|credentials changed|since password change|after password change|security stamp|session invalidated|logged out|signed out|kicked out|another device|another location|another browser|different device|other device|logged in elsewhere|signed in elsewhere|concurrent login|concurrent session|replaced by|new login|einem anderen gerät|otro dispositivo|outro dispositivo|un autre appareil`,
	grant:     `not granted consent|consent required|granted consent|consent is|no consent|consent has|authorization code|auth code|authorisation code|invalid grant|refresh failed|failed to refresh|could not refresh|unable to refresh|cannot refresh|refresh expired`,
	money:     `billing|payment|payments|subscription fee`,
	quota: `payment failed|payment declined|payment is|card was|card is|declined|limite|crédit*|crédito*|crediti|kredit*|zu viele|trop de|demasiados|demasiadas|muitas|muitos|troppi|troppe|слишком много|zbyt wiele|zbyt dużo|çok fazla|te veel|för många|for mange|quá nhiều|terlalu banyak|příliš mnoho|túl sok|prea multe|забагато|too often|attempts|quota|quotas|budget|balance|funds|exceededbudget|rate limit|rate limited|ratelimit|usage limit|spending limit|too many requests|throttled|throttling|request limit|api limit|daily limit|monthly limit|hourly limit|call limit|calls per|requests per|
		too many|tokens per|max tokens|limit exceeded|limit reached|limit has been|exceeded your|exceeds your|exceeded the|unpaid|overdue|past due|arrears|delinquent|spending cap|usage cap|top up|insufficient quota|kontingent|guthaben|out of credits|credits|credit|credit card|invoice|invoices|payment method|payment required|no payment|
		maximum number of|kuota|límite|limite dépassée|solde|saldo|остаток|баланс*|лимит*|квот*|limit wykorzystan*|kota|bakiye|tegoed|hạn mức|số dư`,
	scope: `admin rights|admin role|administrator rights|admin privileges|requires admin|not an admin|not admin|admin only|scope|scopes|insufficient permissions|insufficient rights|insufficient role|insufficient privileges|required role|required roles|missing role|role required|additional permissions|ámbito|escopo|portée`,
	audience: `current environment|match environment|correct environment|other environment|live credentials|test credentials|live credential|test credential|wrong token type|invalid token type|unexpected token type|token type mismatch|bad token type|expected an access|for region|in this region|data center|datacenter|data centre|user context|application only|app only|token subject|subject claim|sub claim|given resource|this resource server|audience|aud|audiences|issuer|iss|not issued for|issued for a|issued for another|issued by another|wrong tenant|wrong environment|wrong project|aud claim|wrong resource|intended for|live mode|test mode|live key|test key|live keys|test keys|livemode|testmode|sandbox key|sandbox|production key|production environment|sandbox environment|
		different environment|another environment|wrong region|another region|different region|wrong endpoint|wrong server|wrong cluster|wrong host|wrong account|wrong workspace|different account|different tenant|different project|another project|another tenant|another account|different application|another application|azp|authorized party|resource mismatch|not valid for this|not valid for use|not valid for your|not valid on this`,
	factor: `reauthentication is|re authentication is|not elevated|must reauthenticate|please reauthenticate|reauthenticate to|must re authenticate|please re authenticate|reauthentication required|re authentication required|device not recognized|device not recognised|device is not|sso login|single sign on|sso|saml|we sent to|sent to your|text message|sms code|reset your password|change your password|password must be|must change password|password change required|change password|password reset required|password expired|password has expired|expired password|update your password|
		factor|factors|authenticator|tfa|unrecognized device|unrecognised device|untrusted device|unknown device|new device|device not trusted|device verification|unverified device|sudo required|sudo mode|account verification|fresh token required|fresh login|
		two factor|twofactor|two step|2 step|2sv|2fa|mfa|otp|insufficient user authentication|one time|onetime|second factor|multi factor|multifactor|verification code|security code|additional verification|additional authentication|additional authenticat*|totp|interaction required|step up|stepup|reauthentication required|re authentication required|stronger authentication|
		elevated session|recent login|recent authentication|recently authenticated|passcode|captcha|recaptcha|hcaptcha|webauthn|passkey|security key|security question|u2f|fido|fido2|yubikey|biometric|push notification|challenge required|zwei faktor|zweiter faktor|deux facteurs|double authentification|dos factores|segundo factor|dois fatores|duas etapas|due fattori|двухфактор*|uwierzytelnianie dwu*|dwuskładnik*|iki faktörlü|iki adımlı|twee factor|
		doğrulama kodu|code de vérification|código de verificación|código de verificação|codice di verifica|код подтверждения|kod weryfikacyjn*|bestätigungscode|xác thực hai|mã xác thực|mã otp|kode verifikasi|dua faktor`,
	identity:   `verify your identity|confirm your identity|identity verification|prove your identity|verify identity|verify that you|verify its you`,
	csrf:       `csrf|xsrf|cross site|forgery|authenticity token|request forgery|csrftoken|origin header|invalid origin`,
	nonce:      `nonce|replay|replayed`,
	address:    `not whitelisted|not allowlisted|ip|ips|ipaddress|ip address|ip addresses|allowlist|allow list|whitelist|white list|whitelisted|geo|country|referer|referrer|referers|origin not|request domain|invalid domain|domain not|unauthorized domain|adresse ip|dirección ip|indirizzo ip|ip adresse|ip adres|ip адрес`,
	place:      `geolocation|region|regions|embargo*|domain|vpn|network|user agent|hostname|pays|país|paese`,
	clientAuth: `invalid client|client authentication failed|client authentication|unauthorized client`,
	denied: `bot detected|bots|automated|model access|this model|the model|apiproduct|api product|api products|signup required|sign up required|registration required|must register|paid plan|signup required|sign up required|registration required|must register|upgrade your|upgrade to|please upgrade|not a member|not member|no active account|only available|only accessible|only allowed|only supported|only members|only admins|only administrators|only owners|only the owner|only for|available only|allowed only|accessible only|restricted to|limited to|reserved for|plan required|
		unusual activity|suspicious activity|fraud*|violat*|terms of service|terms of use|terms and conditions|accept the terms|feature|features|not entitled|not eligible|early access|waitlist|beta|sanction*|under review|parental|age verification|underage|
		disabled by administrator|disabled by admin|disabled for this|disabled by your|disabled on this|api is disabled|not subscribed|unsubscribed|outside business hours|office hours|working hours`,
	refused: `not administrator|not admin user|longer have access|longer has access|another user|other users|different user|someone else|нет доступа|нет прав|kein zugriff|keinen zugriff|pas accès|sin acceso|sem acesso|nie masz dostępu|brak dostępu|not management|not an administrator|not a manager|not an owner|not the owner|not owner|not management|not an administrator|not a manager|not an owner|not the owner|not owner|not allowed|isnt allowed|arent allowed|permission denied|not permitted|not enabled|not authorized to|not authorised to|unauthorized to|not authorize|not have access|doesnt have access|dont have access|has no access|have no access|no access|lost access|access restricted|forbidden for|not available to|not available for|not available in|policy|policies|may not|not accessible|
		cannot access|cant access|isnt authorized to|berechtigt|zugriff verweigert|accès refusé|acceso denegado|acesso negado|accesso negato|доступ запрещ*|доступ ограничен|odmowa dostępu|erişim reddedildi|toegang geweigerd|nicht erlaubt|nicht freigegeben|non autorizzato a|pas autorisé à|no tiene acceso|sem permissão|sin permiso|sin permisos|không được phép|tidak diizinkan`,
	generic:  `execute this request|perform this request|make this request|complete this request|not authorized to access|not authorised to access|unauthorized to access|not authorized to view|not authorised to view|not authorized to see|not authorized to make|not authorized to use|access this resource|nicht berechtigt`,
	upstream: `openai returned|anthropic returned|provider rejected|provider responded|openai error|anthropic error|gemini error|azure error|vertex error|bedrock error|cohere error|mistral error|groq error|deepseek error|provider authentication error|remote server|remote api|backend server|backend service|target server|litellm authentication error|ai exception|anthropic exception|azure exception|bedrock exception|gemini exception|provider returned|upstream error|upstream provider|upstream returned|upstream key|upstream api|upstream server|upstream service|upstream request|from upstream|upstream|backend authentication|provider error|provider authentication|litellm authentication error|ai exception|anthropic exception|azure exception|bedrock exception|gemini exception|provider key|provider api`,
	unsupported: `m tls|cookies must|enable cookies|cookies are|is supported|are supported|basic auth|basic authentication|basic authorization|digest authentication|digest auth|http basic|ntlm|kerberos|negotiate|spnego|cookie authentication|cookie based|not supported|unsupported|not currently supported|currently not supported|doesnt support|does not support|no longer supported|not accept|doesnt accept|does not accept|not accepted|wrong type of|authentication scheme|authorization scheme|auth scheme|authentication method|auth method|authentication type|authorization type|
		mutual tls|mtls|client certificate required|proxy authentication|use oauth|must use oauth|api keys are|personal access tokens|app password|app passwords|application password|must be a|cannot be used|cant be used|can not be|not be used|supported for this|for use with`,
	parse: `unexpected token|unexpected tokens|token at position|syntaxerror|syntax error|unexpected end of|unexpected character|unterminated`,
	setup: `environment variable|server configuration|environment variables|internal authentication|internal auth|could not reach|cannot reach|unable to reach|couldnt reach|not reach|not ready|starting up|is starting|unreachable|not reachable|offline|ldap server|ldap|not responding|no response|systemfehler|problème système|problema del sistema|problema no sistema|problema di sistema|problema interno|erreur interne|error interno|erro interno|errore interno|interner fehler|внутренняя ошибка|ошибка сервера|системная ошибка|błąd systemu|błąd serwera|sistem hatası|lỗi hệ thống|kesalahan sistem|serverfehler|server error|system error|system problem|serverkonfiguration|not configured|isnt configured|not been configured|misconfigur*|misconfiguration|not set up|not setup|no authentication provider|no auth provider|configuration error|configuration is|server configuration|config error|not initialized|not initialised|jwks|jwks_uri|discovery document|openid configuration|keycloak unreachable|authentication service|auth service|authentication server|auth server|identity provider unavailable|
		internal error|internal server|database|connection refused|could not connect|unable to connect|failed to connect|failed to fetch|unable to fetch|failed to retrieve|unable to retrieve|unable to obtain|failed to load|failed to get|dns|service unavailable|temporarily unavailable|currently unavailable|unavailable|maintenance|out of service|wartung*|wartungsarbeiten|mantenimiento|manutenção|manutenzione|обслуживан*|технические работы|bakım|onderhoud|bảo trì|pemeliharaan|
		deprecated|discontinued|retired|sunset|end of life|decommissioned|no longer available|has been removed|been shut down|shutting down|shut down|upgrade the client|update the app|update your app|update your client|upgrade your app|upgrade your client|please update`,
	of:      `of|for|with|from|behind|owning|owned by|associated with|linked to|tied to|belonging to|attached to|using|by|this|that|within`,
	either:  `or|either|oder|ou|o|или|lub|veya|eller|atau|hoặc|або`,
	example: `may be|might be|could be|may have been|might have|make sure|ensure|please check|check that|check your|check whether|double check|check if|bitte prüfen|vérifiez que|compruebe|verifique se|e g|for example|for instance|such as|possibly|perhaps|maybe|zum beispiel|z b|par exemple|por ejemplo|por exemplo`,
}

// terms are those of languages that do not put blanks between words.
var terms = map[concept]string{
	token:            `登录状态|登錄狀態|登录态|登陆|登录|登入|登錄|ログイン|로그인|令牌|權杖|凭证|憑證|凭据|憑據|密钥|密鑰|金鑰|トークン|キー|토큰|키|会话|會話|セッション|세션|身份信息|โทเค็น|โทเคน|เซสชัน`,
	credentials:      `認証情報|资格证书|認證資訊|身份验证信息|인증 정보|인증정보|자격 증명|자격증명`,
	refreshToken:     `刷新令牌|刷新token|刷新 token|刷新Token|刷新 Token|更新令牌|更新權杖|リフレッシュトークン|리프레시 토큰|리프레시토큰|리프레쉬 토큰|리프레쉬토큰|갱신 토큰|재발급`,
	client:           `应用ID|应用id|appid|AppId|AppID|应用不|应用未|应用已|アプリケーション|客户端`,
	user:             `登录用户|登錄用戶|用户|用戶|使用者|会员|會員|ユーザー|ユーザ|会員|사용자|회원|유저|ผู้ใช้`,
	account:          `账号|账户|帳號|帳戶|账戶|商户|商戶|租户|租戶|企业|企業|组织|組織|项目|專案|工作区|店铺|アカウント|テナント|プロジェクト|계정|테넌트|조직|프로젝트|บัญชี`,
	plan:             `试用期|試用期|试用|試用|许可证|許可證|授权码|注册码|ライセンス|라이선스|라이센스|サブスクリプション|구독|订阅|訂閱`,
	right:            `角色|ロール|역할`,
	password:         `密码|密碼|口令|パスワード|비밀번호|패스워드|รหัสผ่าน`,
	certificate:      `证书|證書|証明書|인증서`,
	email:            `邮箱|郵箱|信箱|メールアドレス|メール|이메일|手机号|手機號|电子邮件|電子郵件`,
	requestSignature: `签名|簽名|簽章|验签|驗簽|署名|서명|签名错误|签名验证失败|sign值|加签`,
	requestTime:      `请求时间|請求時間|请求已过期|リクエスト時刻|요청 시간`,
	secret:           `AppSecret|应用密钥|客户端密钥|クライアントシークレット|클라이언트 시크릿`,
	moment:           `时间戳|時間戳|タイムスタンプ|타임스탬프|系统时间|服务器时间`,
	expired:          `过期|過期|失效|到期|已失效|逾期|逾時|超时|超時|有効期限|期限切れ|期限が切れ|タイムアウト|만료|หมดอายุ`,
	invalid:          `无效|無效|不合法|非法|错误|錯誤|有误|有誤|不正确|不正確|不存在|不可用|校验失败|校驗失敗|验证失败|驗證失敗|认证失败|認證失敗|鉴权失败|解析失败|未找到|找不到|無効|不正な|正しくありません|正しくない|見つかりません|存在しません|検証に失敗|유효하지|유효 하지|잘못된|잘못되|올바르지|존재하지|찾을 수 없|변질|손상|ไม่ถูกต้อง|ไม่พบ`,
	notYet:           `尚未|还未|還未|还没有|まだ|아직`,
	authn:            `认证|認證|鉴权|身份验证|身份驗證|認証|인증`,
	unverified:       `请先绑定|未绑定|绑定手机|先绑定|未验证|未驗證|未激活|未启用|未認證|未审核|待审核|审核中|未通过审核|未開通|未开通|未認証|未確認|未承認|確認してください|미인증|인증되지 않은|승인되지|승인 대기|请先验证|请验证`,
	mismatch:         `不匹配|不一致|不符|一致しません|一致しない|일치하지`,
	revoked:          `吊销|吊銷|撤销|撤銷|注销|註銷|状态不可用|狀態不可用|已删除|已刪除|被删除|作废|取り消|취소|폐기|失効|로그아웃`,
	disabled:         `未启用|已停用|不可用状态|無効化|非アクティブ|削除されました|退会|비활성|탈퇴|삭제된`,
	locked:           `封禁|冻结|凍結|被禁用|停用|停止|已禁用|禁用|锁定|鎖定|黑名单|黑名單|封号|封停|限制登录|ロック|凍結されて|利用停止|정지|차단|잠금|잠긴|휴면|ถูกระงับ`,
	ended:            `结束|結束|終了`,
	missing:          `未提供|缺少|缺失|为空|為空|不能为空|未携带|未传|未登录|未登錄|未登入|ありません|ありませんでした|없습니다|필요합니다|필요|必要です|必要があります|必須|不足|부족|需要|必须|누락|未設定|未指定`,
	timeClaim:        `尚未生效|未生效|まだ有効`,
	ousted:           `密码已修改|密码已更改|密码已变更|密碼已變更|密碼已更改|密码已重置|已退出|被踢|其他设备|其它设备|别的设备|其他地方|别处登录|异地登录|强制下线|被挤下线|别の端末|他の端末|다른 기기|다른 곳에서|修改了密码|パスワードが変更|비밀번호가 변경|비밀번호가 변경되`,
	loginFailed:      `登录失败|登入失敗|登錄失敗|ログインに失敗|로그인 실패|로그인에 실패`,
	quota:            `太多|过多|過多|多すぎ|너무 많|尝试次数|嘗試次數|過於頻繁|过于频繁|额度|額度|余额|餘額|欠费|欠費|充值|儲值|配额|配額|套餐|点数|點數|积分|续费|續費|次数已|次数用|用量|限流|频率|頻率|残高|クォータ|利用上限|レート制限|上限に達|잔액|할당량|크레딧|한도|요금제|미납`,
	scope:            `权限不足|權限不足|スコープ|权限范围|管理员权限|管理員權限|管理者権限|관리자 권한|スコープ不足|没有该权限|无此权限|缺少权限|接口权限|API权限|操作权限|訪問權限範圍`,
	factor:           `验证码|驗證碼|二次验证|二次驗證|两步验证|兩步驗證|双因素|雙因素|多因素|双重认证|雙重|动态码|動態碼|短信|人机验证|安全验证|実名|認証コード|確認コード|二段階|二要素|多要素|再認証|인증번호|인증 번호|이중 인증|2단계|추가 인증|본인 인증|본인인증|二步|修改密码|更改密码|修改初始密码|パスワードを変更|비밀번호를 변경`,
	address:          `白名单|白名單|IP地址|IP 地址|ip地址|IPアドレス|IP 주소|域名|地区|地區|国家|地域|来源`,
	upstream:         `上游|渠道密钥|上流|업스트림`,
	denied:           `이메일 인증|メール認証|邮箱认证|邮箱验证|手机验证|手机认证|휴대폰 인증|应用未授权|未授权该|未被授权|实名认证|實名認證|实名|無權使用|未订阅|未訂閱|不允许|不允許|不支持|不支援|仅限|仅支持|仅管理员|只有管理员|只能|僅限|のみ|サポートされていません|対応していません|許可されていません|지원하지|지원되지|허용되지|관리자만|违规|違規|未开通|未購買|未购买`,
	refused:          `无权操作|无权进行|無權操作|無權進行|禁止|越权`,
	generic:          `无权限|無權限|没有权限|沒有權限|权限|權限|権限|권한|无权|無權|拒绝访问|拒絕訪問|アクセスが拒否|접근이 거부`,
	setup:            `系统繁忙|系统维护|系統維護|服务器内部|サーバー内部|システムエラー|시스템 오류|내부 오류|维护|維護|未配置|配置错误|系统错误|系統錯誤|系统异常|服务器错误|伺服器錯誤|服务不可用|服务异常|内部错误|メンテナンス|設定されていません|サーバーエラー|점검|설정되지|서버 오류|版本过低|版本過低|请升级|最新版本`,
	example:          `例如|たとえば|예를 들어`,
	either:           `或者|或|または|또는`,
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

// A lexicon has phrases and terms as they are looked up.
type lexicon struct {
	phrases map[string]entry
	stems   map[string][]term // by their first letters
	terms   map[rune][]term   // by their first character, the longest first
}

// stemKey is how many bytes of a stem are looked up: the shortest has as many.
const stemKey = 3

var vocabulary = sync.OnceValue(func() *lexicon {
	x := &lexicon{map[string]entry{}, map[string][]term{}, map[rune][]term{}}
	for c, list := range phrases {
		for p := range strings.SplitSeq(list, "|") {
			p = strings.TrimSpace(p)
			if stem, ok := strings.CutSuffix(p, "*"); ok && !strings.Contains(p, " ") {
				x.stems[stem[:stemKey]] = append(x.stems[stem[:stemKey]], term{stem, c})
				continue
			}
			p = strings.TrimSuffix(p, "*")
			e := x.phrases[p]
			e.concept = c
			x.phrases[p] = e
			first, _, _ := strings.Cut(p, " ")
			e = x.phrases[first]
			e.longest = max(e.longest, strings.Count(p, " ")+1)
			x.phrases[first] = e
		}
	}
	for c, list := range terms {
		for t := range strings.SplitSeq(list, "|") {
			r, _ := utf8.DecodeRuneInString(t)
			x.terms[r] = append(x.terms[r], term{t, c})
		}
	}
	longestFirst := func(a, b term) int { return len(b.text) - len(a.text) }
	for _, list := range x.stems {
		slices.SortFunc(list, longestFirst)
	}
	for _, list := range x.terms {
		slices.SortFunc(list, longestFirst)
	}
	return x
})

// word returns what is known of a word by itself, and how many words the longest phrase
// has that begins with it.
func (x *lexicon) word(w []byte) (c concept, longest int) {
	e, ok := x.phrases[string(w)]
	if ok && e.concept != nothing || len(w) < stemKey {
		return e.concept, e.longest
	}
	for _, s := range x.stems[string(w[:stemKey])] {
		if len(w) >= len(s.text) && string(w[:len(s.text)]) == s.text {
			return s.concept, e.longest
		}
	}
	return nothing, e.longest
}
