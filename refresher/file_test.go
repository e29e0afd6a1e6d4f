package refresher_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

func TestNoFormOfATokenFileIsMisread(t *testing.T) {
	end := time.Date(2199, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		content string
		want    reauth.Token
	}{
		"bare":                     {"key-1", reauth.Token{AccessToken: "key-1"}},
		"a line":                   {"key-1\n", reauth.Token{AccessToken: "key-1"}},
		"of Windows":               {"\xef\xbb\xbfkey-1\r\n", reauth.Token{AccessToken: "key-1"}},
		"blanks around":            {" \n\tkey-1 \n\n", reauth.Token{AccessToken: "key-1"}},
		"RFC 6749":                 {`{"access_token":"key-1","token_type":"Bearer","refresh_token":"r","scope":"a b"}`, reauth.Token{AccessToken: "key-1", TokenType: "Bearer", RefreshToken: "r"}},
		"indented, of Windows":     {"\xef\xbb\xbf{\r\n\t\"access_token\": \"key-1\"\r\n}\r\n", reauth.Token{AccessToken: "key-1"}},
		"expiry":                   {`{"access_token":"key-1","expiry":"2199-01-02T03:04:05Z"}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"expiry with a zone":       {`{"access_token":"key-1","expiry":"2199-01-02T05:04:05.000+02:00"}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"expires_at, seconds":      {`{"access_token":"key-1","expires_at":7226679845}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"expires_at, text":         {`{"access_token":"key-1","expires_at":"7226679845"}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"expires_at, fraction":     {`{"access_token":"key-1","expires_at":7226679845.9}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"expiresAt, milliseconds":  {`{"accessToken":"key-1","refreshToken":"r","expiresAt":7226679845000}`, reauth.Token{AccessToken: "key-1", RefreshToken: "r", Expiry: end}},
		"x/oauth2 without an end":  {`{"access_token":"key-1","expiry":"0001-01-01T00:00:00Z"}`, reauth.Token{AccessToken: "key-1"}},
		"an odd end":               {`{"access_token":"key-1","expiry":"tomorrow","expires_at":null,"expires_in":[]}`, reauth.Token{AccessToken: "key-1"}},
		"an end past the calendar": {`{"access_token":"key-1","expires_at":1e30}`, reauth.Token{AccessToken: "key-1"}},
		"an end before time":       {`{"access_token":"key-1","expires_at":-1}`, reauth.Token{AccessToken: "key-1"}},
		"one odd end of two":       {`{"access_token":"key-1","expires_at":"soon","expires_on":7226679845}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"odd members":              {`{"access_token":"key-1","token_type":7,"refresh_token":null}`, reauth.Token{AccessToken: "key-1"}},
		"an odd member before":     {`{"access_token":{"value":"x"},"token":"key-1"}`, reauth.Token{AccessToken: "key-1"}},
		"an empty one before":      {`{"access_token":"","accessToken":"key-1"}`, reauth.Token{AccessToken: "key-1"}},
		"an escape":                {`{"access_token":"key\u002d1"}`, reauth.Token{AccessToken: "key-1"}},
		"other case is another":    {`{"Access_Token":"x","access_token":"key-1","ACCESS_TOKEN":"y"}`, reauth.Token{AccessToken: "key-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := localFile(t, "token", c.content)
			for reader, r := range map[string]reauth.Refresher{"File": refresher.File(path), "JSONFile": refresher.JSONFile(path, "")} {
				if reader == "JSONFile" && !strings.Contains(c.content, "{") {
					continue
				}
				tok, err := r.Refresh(t.Context(), reauth.Stale{})
				require.NoError(t, err, reader)
				assert.True(t, c.want.Expiry.Equal(tok.Expiry), "%s: %v", reader, tok.Expiry)
				tok.Expiry = c.want.Expiry
				assert.True(t, c.want == tok, reader)
			}
		})
	}
}

func TestNoPointerLeadsToAnotherToken(t *testing.T) {
	const doc = `{
		"auth": {"client_token": "vault-1", "a/b": "slash", "c~d": "tilde", "~1": "both", "": "empty name", "lease": {"access_token": "key-1", "expires_at": 7226679845}},
		"list": ["first", "second", {"token": "third"}],
		"data": {"data": {"key": " padded\n"}},
		"number": 7, "null": null, "yes": true, "object": {}, "other": {"secret": "` + localMarker + `"}
	}`
	path := localFile(t, "doc.json", doc)
	for pointer, want := range map[string]string{
		"/auth/client_token": "vault-1",
		"/auth/a~1b":         "slash",
		"/auth/c~0d":         "tilde",
		"/auth/~01":          "both",
		"/auth/lease":        "key-1",
		"/list/0":            "first",
		"/list/1":            "second",
		"/list/2":            "third",
		"/list/2/token":      "third",
		"/data/data/key":     "padded",
	} {
		tok, err := refresher.JSONFile(path, pointer).Refresh(t.Context(), reauth.Stale{})
		if assert.NoError(t, err, pointer) {
			assert.Equal(t, want, tok.AccessToken, pointer)
		}
	}
	tok, err := refresher.JSONFile(path, "/auth/lease").Refresh(t.Context(), reauth.Stale{})
	require.NoError(t, err)
	assert.Equal(t, int64(7226679845), tok.Expiry.Unix())

	for pointer, says := range map[string]string{
		"/missing":             `nothing at "/missing"`,
		"/auth/":               "blank", // RFC 6901: the member whose name is empty
		"/auth/client_token/x": `nothing at "/auth/client_token/x"`,
		"/Auth/client_token":   `nothing at "/Auth/client_token"`,
		"/list/3":              `nothing at "/list/3"`,
		"/list/-1":             `nothing at "/list/-1"`,
		"/list/-":              `nothing at "/list/-"`,
		"/list/01":             `nothing at "/list/01"`,
		"/list/+1":             `nothing at "/list/+1"`,
		"/null/x":              `nothing at "/null/x"`,
		"/list":                "another form",
		"/number":              "another form",
		"/yes":                 "another form",
		"/null":                "empty",
		"/object":              "the JSON object is empty",
		"/other":               "but secret",
		"":                     "but auth, data, list, null, number, object, other, yes",
	} {
		_, err := refresher.JSONFile(path, pointer).Refresh(t.Context(), reauth.Stale{})
		if assert.ErrorContains(t, err, says, pointer) {
			assert.ErrorContains(t, err, path, pointer)
			assert.Equal(t, time.Millisecond, asksFor(err), pointer)
			keepsSecret(t, localMarker, err)
		}
	}
	_, err = refresher.JSONFile(path, "auth").Refresh(t.Context(), reauth.Stale{})
	require.ErrorContains(t, err, "slash")
	assert.ErrorContains(t, err, path)
	assert.True(t, reauth.IsPermanent(err))
}

// An error names the file and what is wrong with it, and never the token.
func TestNoErrorOfATokenFileIsSilentOrTellsTheToken(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"nothing":           {"", "it is empty"},
		"blanks":            {" \n\t\r\n", "it is empty"},
		"a mark alone":      {"\xef\xbb\xbf", "it is empty"},
		"too much":          {strings.Repeat(localMarker, 1<<20/len(localMarker)) + "x", "larger than 1 MiB"},
		"much":              {strings.Repeat("x", 100<<10), "102400 bytes"},
		"two lines":         {localMarker + "\n" + localMarker, "control character at byte 16"},
		"a header":          {"Authorization: Bearer " + localMarker, "a blank at byte 14"},
		"UTF-16":            {"\xff\xfek\x00e\x00y\x00", "outside of ASCII at byte 0"},
		"half of an object": {`{"access_token":"` + localMarker, "not valid at byte"},
		"half of a write":   {`{"access_token":"` + localMarker + `","expires_in":36`, "not valid at byte"},
		"more than one":     {`{"access_token":"` + localMarker + `"}{"a":1}`, "not valid at byte"},
		"a list":            {`["` + localMarker + `"]`, "placeholder"},
		"a JSON string":     {`"` + localMarker + `"`, "quotes"},
		"another object":    {`{"auth":{"client_token":"` + localMarker + `"},"request_id":"` + localMarker + `"}`, "no access_token, accessToken or token, but auth, request_id"},
		"an error's object": {`{"error":"invalid_grant","error_description":"` + localMarker + `"}`, "but error, error_description"},
		"an empty object":   {`{}`, "empty"},
		"no string":         {`{"access_token":["` + localMarker + `"]}`, "but access_token"},
		"names in JSON":     {`{"\u001b[31m` + strings.Repeat("n", 500) + `":1}`, "but"},
	} {
		t.Run(name, func(t *testing.T) {
			path := localFile(t, "token", c.content)
			_, err := refresher.File(path).Refresh(t.Context(), reauth.Stale{})
			require.Error(t, err)
			assert.ErrorContains(t, err, "file "+path)
			assert.ErrorContains(t, err, c.says)
			assert.Equal(t, time.Millisecond, asksFor(err))
			assert.False(t, reauth.IsPermanent(err))
			assert.NotContains(t, err.Error(), "\x1b")
			assert.Less(t, len(err.Error()), 400)
			keepsSecret(t, localMarker, err)

			_, err = refresher.JSONFile(path, "/x").Refresh(t.Context(), reauth.Stale{})
			assert.ErrorContains(t, err, path)
			keepsSecret(t, localMarker, err)
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	_, err := refresher.File(missing).Refresh(t.Context(), reauth.Stale{})
	assert.ErrorContains(t, err, missing)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.Equal(t, time.Millisecond, asksFor(err))
}

func TestNoLifetimeOfAFileIsOverrated(t *testing.T) {
	const century = 100 * 365 * 24 * time.Hour
	modified := time.Now().Add(-20 * time.Minute).Truncate(time.Second)
	for raw, want := range map[string]time.Duration{
		`3600`: time.Hour, `"3600"`: time.Hour, `" 3600 "`: time.Hour, `3600.0`: time.Hour, `3.6e3`: time.Hour,
		`0.5`: time.Second / 2, `600`: 10 * time.Minute,
		`1e30`: century, `1e400`: century, `"1e400"`: century, `9223372036854775807`: century, `99999999999999999999`: century, `"Infinity"`: century,
		`0`: 0, `-1`: 0, `-1e30`: 0, `-1e400`: 0, `null`: 0, `""`: 0, `"soon"`: 0, `"NaN"`: 0, `true`: 0, `{}`: 0, `[3600]`: 0,
	} {
		t.Run(raw, func(t *testing.T) {
			path := localFile(t, "token", `{"access_token":"key-1","expires_in":`+raw+`}`)
			require.NoError(t, os.Chtimes(path, modified, modified))
			tok, err := refresher.File(path).Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			if want == 0 {
				assert.Zero(t, tok.Expiry, "not known")
				return
			}
			assert.WithinDuration(t, modified.Add(want), tok.Expiry, 0, "counted from the file's modification")
		})
	}
}

// A JWT's exp is its expiry, and nothing else in it is believed.
func TestNoClaimOfAJWTIsBelievedButExp(t *testing.T) {
	part := base64.RawURLEncoding.EncodeToString
	const year3000 = 32503680000
	for name, c := range map[string]struct {
		token string
		want  int64 // 0: not known
	}{
		"exp":                       {localJWT(`{"exp":32503680000}`), year3000},
		"among others":              {localJWT(`{"iat":1,"nbf":99999999999,"exp":32503680000,"iss":"x","aud":["y"]}`), year3000},
		"a fraction":                {localJWT(`{"exp":32503680000.75}`), year3000},
		"an exponent":               {localJWT(`{"exp":3.250368e10}`), year3000},
		"padded":                    {"e30." + base64.URLEncoding.EncodeToString([]byte(`{"exp":32503680000} `)) + ".s", year3000},
		"not signed":                {"e30." + part([]byte(`{"exp":32503680000}`)) + ".", year3000},
		"passed":                    {localJWT(`{"exp":1000000000}`), 1000000000},
		"in 1970":                   {localJWT(`{"exp":1}`), 1},
		"no exp":                    {localJWT(`{"iat":1000000000}`), 0},
		"null":                      {localJWT(`{"exp":null}`), 0},
		"negative":                  {localJWT(`{"exp":-1}`), 0},
		"a string":                  {localJWT(`{"exp":"1000000000"}`), 0},
		"no number":                 {localJWT(`{"exp":NaN}`), 0},
		"infinite":                  {localJWT(`{"exp":Infinity}`), 0},
		"1e30":                      {localJWT(`{"exp":1e30}`), 0},
		"1e400":                     {localJWT(`{"exp":1e400}`), 0},
		"past the year 9999":        {localJWT(`{"exp":253402300800}`), 0},
		"a list":                    {localJWT(`{"exp":[1000000000]}`), 0},
		"EXP":                       {localJWT(`{"EXP":1000000000}`), 0},
		"EXP too":                   {localJWT(`{"exp":32503680000,"EXP":1000000000,"Exp":1}`), year3000},
		"exp of another":            {localJWT(`{"act":{"exp":1000000000}}`), 0},
		"a list of claims":          {localJWT(`[{"exp":1000000000}]`), 0},
		"no claims":                 {localJWT(`null`), 0},
		"half of them":              {localJWT(`{"exp":1000000000`), 0},
		"more behind":               {localJWT(`{"exp":1000000000}{}`), 0},
		"deep":                      {localJWT(strings.Repeat("[", 20000)), 0},
		"huge":                      {localJWT(`{"exp":32503680000,"x":"` + strings.Repeat("x", 30<<10) + `"}`), year3000},
		"not base64":                {"e30.{}.s", 0},
		"base64 of the other kind":  {"e30.+/+/.s", 0},
		"nothing in it":             {"..", 0},
		"two parts":                 {"e30." + part([]byte(`{"exp":1000000000}`)), 0},
		"four parts":                {localJWT(`{"exp":1000000000}`) + ".x", 0},
		"five parts, and encrypted": {localJWT(`{"exp":1000000000}`) + ".x.y", 0},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(r reauth.Refresher) {
				t.Helper()
				tok, err := r.Refresh(t.Context(), reauth.Stale{})
				require.NoError(t, err)
				assert.Equal(t, c.token, tok.AccessToken)
				if c.want == 0 {
					assert.Zero(t, tok.Expiry)
					return
				}
				assert.Equal(t, c.want, tok.Expiry.Unix())
			}
			check(refresher.File(localFile(t, "token", c.token+"\n")))
			check(refresher.Static(c.token))
		})
	}
}

func TestNoJWTOutlivesItselfWhateverIsSaidOfIt(t *testing.T) {
	expired, valid := localJWT(`{"exp":1000000000}`), localJWT(`{"exp":32503680000}`)
	for name, c := range map[string]struct {
		content string
		want    int64
	}{
		"a lifetime beside an expired one": {`{"access_token":"` + expired + `","expires_in":3600}`, 1000000000},
		"an expiry beside an expired one":  {`{"access_token":"` + expired + `","expiry":"2199-01-01T00:00:00Z"}`, 1000000000},
		"an earlier expiry":                {`{"access_token":"` + valid + `","expires_at":7226679845}`, 7226679845},
		"an odd expiry":                    {`{"access_token":"` + valid + `","expires_at":"never"}`, 32503680000},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := refresher.File(localFile(t, "token", c.content)).Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.Equal(t, c.want, tok.Expiry.Unix())
		})
	}
}

// Our clock may be wrong, and the server's tells.
func TestNoFirstJWTIsDroppedByAFastClock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "token")
		overwrite(t, path, localJWT(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(-time.Hour).Unix())))
		asked := 0
		api := &localAPI{accepts: func(string) bool { return true }, date: func() time.Time { return time.Now().Add(-2 * time.Hour) }}
		rt := through(refresher.File(path), api)
		rt.Credential.OnRefresh = func(context.Context, reauth.RefreshInfo) { asked++ }
		for range 30 { // of the hour that the server gives it
			status, _ := localGet(t, rt)
			require.Equal(t, http.StatusOK, status)
			time.Sleep(time.Minute)
		}
		assert.Equal(t, 1, asked)
		assert.Len(t, api.sends(), 30)
	})
}

// A token that has expired in earnest is sent once, and its successor is found.
func TestNoExpiredJWTIsSentTwice(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "token")
		jwt := func(exp time.Time) string { return localJWT(fmt.Sprintf(`{"exp":%d}`, exp.Unix())) }
		dead, alive := jwt(time.Now().Add(-time.Hour)), jwt(time.Now().Add(time.Hour))
		overwrite(t, path, dead)
		api := &localAPI{accepts: func(tok string) bool { return tok == alive }, date: time.Now}
		rt := through(refresher.File(path), api)

		status, o := localGet(t, rt)
		assert.Equal(t, http.StatusUnauthorized, status)
		assert.ErrorContains(t, o.Err, "it still has the token that was rejected")
		assert.Equal(t, []string{dead}, api.sends())

		overwrite(t, path, alive)
		time.Sleep(time.Second)
		status, _ = localGet(t, rt)
		assert.Equal(t, http.StatusOK, status)
		sent := api.sends()
		assert.Equal(t, alive, sent[len(sent)-1])
	})
}

// A kubelet rotates a token at its own time; until then the file has the same.
func TestNoTokenThatIsStillGoodIsAFailure(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "token")
		jwt := func() string { return localJWT(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())) }
		overwrite(t, path, jwt())
		rotated := time.Now()
		asked := 0
		api := &localAPI{accepts: func(string) bool { return true }}
		rt := through(refresher.File(path), api)
		rt.Credential.OnRefresh = func(_ context.Context, e reauth.RefreshInfo) {
			asked++
			assert.NoError(t, e.Err)
		}
		for range 6 * 60 { // six hours
			if time.Since(rotated) >= 58*time.Minute {
				overwrite(t, path, jwt())
				rotated = time.Now()
			}
			status, _ := localGet(t, rt)
			require.Equal(t, http.StatusOK, status)
			time.Sleep(time.Minute)
		}
		sent := api.sends()
		assert.Len(t, sent, 6*60)
		distinct := map[string]bool{}
		for _, tok := range sent {
			distinct[tok] = true
		}
		assert.Len(t, distinct, 7)
		assert.Less(t, asked, 7*6, "a few looks at each")
	})
}

// A rotation by rename, as everything that writes token files for others does it.
func TestNoHalfWrittenTokenIsSeen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	overwrite(t, path, "key-0")
	r := refresher.File(path)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			last := -1
			for {
				tok, err := r.Refresh(t.Context(), reauth.Stale{})
				var n int
				if !assert.NoError(t, err) {
					return
				}
				_, err = fmt.Sscanf(tok.AccessToken, "key-%d", &n)
				if !assert.NoError(t, err) || !assert.GreaterOrEqual(t, n, last, "an older one came back") {
					return
				}
				last = n
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for n := range 200 {
		next := filepath.Join(dir, "next")
		overwrite(t, next, fmt.Sprint("key-", n))
		require.NoError(t, os.Rename(next, path))
	}
	close(stop)
	readers.Wait()
}

// Through a Transport, from the 401 to the answer.
func TestNoRotatedFileCostsTheCallerA401(t *testing.T) {
	path := localFile(t, "creds.json", "")
	write := func(token string) {
		data, err := json.Marshal(map[string]any{"data": map[string]string{"token": token}})
		require.NoError(t, err)
		overwrite(t, path, string(data))
	}
	write("key-1")
	now := &accepting{}
	now.Store("key-1")
	rt := through(refresher.JSONFile(path, "/data/token"), &localAPI{accepts: now.is})
	for n := 2; n < 20; n++ {
		status, _ := localGet(t, rt)
		require.Equal(t, http.StatusOK, status)
		write(fmt.Sprint("key-", n))
		now.Store(fmt.Sprint("key-", n))
		status, o := localGet(t, rt)
		require.Equal(t, http.StatusOK, status)
		require.True(t, o.Recovered())
	}
}

func TestJSONFileExpiries(t *testing.T) {
	want := time.Date(2033, 5, 18, 3, 33, 20, 0, time.UTC)
	for _, name := range []string{"expires_at", "expiry_date", "expireTime", "expires_on", "expiry", "expiration"} {
		for form, value := range map[string]string{
			"seconds": "2000000000", "seconds in a string": `"2000000000"`, "milliseconds": "2000000000000", "RFC 3339": `"2033-05-18T03:33:20Z"`, "with a zone": `"2033-05-18T05:33:20+02:00"`,
		} {
			path := localFile(t, "token.json", `{"auth":{"access_token":"T1","`+name+`":`+value+`}}`)
			tok, err := refresher.JSONFile(path, "/auth").Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.True(t, want.Equal(tok.Expiry), "%s in %s: %s", name, form, tok.Expiry)
		}
	}
}
