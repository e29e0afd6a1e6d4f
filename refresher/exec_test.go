package refresher_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/refresher"
)

// The programs in these tests are the test binary, see program.

func TestNoFormOfAProgramsOutputIsMisread(t *testing.T) {
	end := time.Date(2199, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		out  string
		want reauth.Token
	}{
		"a bare token":         {"key-1", reauth.Token{AccessToken: "key-1"}},
		"with a line break":    {"key-1\r\n", reauth.Token{AccessToken: "key-1"}},
		"a byte order mark":    {"\xef\xbb\xbfkey-1\n", reauth.Token{AccessToken: "key-1"}},
		"RFC 6749":             {`{"access_token":"key-1","token_type":"Bearer","refresh_token":"r"}`, reauth.Token{AccessToken: "key-1", TokenType: "Bearer", RefreshToken: "r"}},
		"x/oauth2":             {`{"access_token":"key-1","token_type":"Bearer","expiry":"2199-01-02T03:04:05Z"}`, reauth.Token{AccessToken: "key-1", TokenType: "Bearer", Expiry: end}},
		"az":                   {`{"accessToken":"key-1","expiresOn":"2199-01-02 03:04:05.000000","expires_on":7226679845,"subscription":"s","tenant":"t","tokenType":"Bearer"}`, reauth.Token{AccessToken: "key-1", TokenType: "Bearer", Expiry: end}},
		"AWS SSO's cache":      {`{"startUrl":"https://a.test/start","region":"eu-west-1","accessToken":"key-1","expiresAt":"2199-01-02T03:04:05Z"}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"kubectl":              {`{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"key-1","expirationTimestamp":"2199-01-02T03:04:05Z"}}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
		"kubectl, no end":      {"{\n  \"kind\": \"ExecCredential\",\n  \"status\": {\"token\": \"key-1\"}\n}\n", reauth.Token{AccessToken: "key-1"}},
		"metadata as a string": {`{"access_token":"key-1","expires_on":"7226679845","resource":"r"}`, reauth.Token{AccessToken: "key-1", Expiry: end}},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := refresher.Exec(program("print", c.out)...).Refresh(t.Context(), reauth.Stale{})
			require.NoError(t, err)
			assert.True(t, c.want.Expiry.Equal(tok.Expiry), tok.Expiry)
			c.want.Expiry, tok.Expiry = time.Time{}, time.Time{}
			assert.True(t, c.want == tok)
		})
	}
}

// A lifetime counts from before the program was started.
func TestNoProgramsTimeIsAddedToTheLifetime(t *testing.T) {
	before := time.Now()
	tok, err := refresher.Exec(program("print", `{"access_token":"key-1","expires_in":3600}`)...).Refresh(t.Context(), reauth.Stale{})
	took := time.Since(before)
	require.NoError(t, err)
	assert.WithinRange(t, tok.Expiry, before.Add(time.Hour), before.Add(time.Hour+took))
	assert.Less(t, tok.Expiry.Sub(before)-time.Hour, took, "before it was started")
	assert.NotEqual(t, tok.Expiry, tok.Expiry.Round(0), "by our own clock, which tells a Credential that the issuer's is no matter")
}

func TestNoFailureOfAProgramIsSilentOrTellsTheToken(t *testing.T) {
	secret := "key-" + localMarker
	for name, c := range map[string]struct {
		command []string
		says    []string
	}{
		"status and standard error": {program("fail", "3", "", "please run: login again"), []string{"exit status 3", "please run: login again"}},
		"status alone":              {program("fail", "4", "", ""), []string{"exit status 4"}},
		"the token it was to replace": {program("fail", "1", "", "cannot use "+secret+" any more"),
			[]string{"exit status 1", "cannot use [redacted] any more"}},
		"what it printed before":    {program("fail", "1", "new-"+localMarker, "refused: new-"+localMarker), []string{"exit status 1", "refused: [redacted]"}},
		"a piece of it":             {program("fail", "1", "", "refused "+localMarker[:10]), []string{"refused [redacted]"}},
		"the shape of a secret":     {program("fail", "1", "", "curl -H 'Authorization: Bearer "+localMarker+"x' https://u:"+localMarker+"@a.test/?k="+localMarker), []string{"exit status 1", "curl"}},
		"several lines and colours": {program("fail", "1", "", "\x1b[31mERROR\x1b[0m\n\n  no login\r\n"), []string{"ERROR", "no login"}},
		"a token and a failure":     {program("fail", "1", `{"access_token":"key-2"}`, "but not to be used"), []string{"exit status 1", "but not to be used"}},
		"no output":                 {program("print", ""), []string{"its output: it is empty"}},
		"blank output":              {program("print", " \n"), []string{"its output: it is empty"}},
		"words":                     {program("print", "Please log in, "+localMarker), []string{"its output: the access token has a blank"}},
		"broken JSON":               {program("print", `{"access_token":"`+localMarker), []string{"its output: it begins like JSON and is not valid at byte"}},
		"JSON without a token":      {program("print", `{"Version":1,"AccessKeyId":"`+localMarker+`"}`), []string{"no access_token, accessToken or token", "AccessKeyId, Version"}},
		"a certificate":             {program("print", `{"kind":"ExecCredential","status":{"clientKeyData":"`+localMarker+`"}}`), []string{"but clientKeyData"}},
		"no status":                 {program("print", `{"kind":"ExecCredential","status":"`+localMarker+`"}`), []string{"but kind, status"}},
		"the rejected token":        {program("print", secret), []string{"it printed the token that was rejected", "log in to it again"}},
		"no program":                {[]string{"no-such-program-here", localMarker}, []string{"no-such-program-here", "not found"}},
		"no file":                   {[]string{"/no/such/program", localMarker}, []string{"/no/such/program", "no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := refresher.Exec(c.command...)
			keepsSecret(t, localMarker, r)
			tok, err := r.Refresh(t.Context(), rejected(secret))
			require.Error(t, err)
			assert.Zero(t, tok)
			assert.ErrorContains(t, err, "program "+c.command[0])
			for _, words := range c.says {
				assert.ErrorContains(t, err, words)
			}
			assert.NotContains(t, err.Error(), "\n")
			assert.NotContains(t, err.Error(), "\x1b")
			assert.False(t, reauth.IsPermanent(err), "whoever logs in need not start again")
			keepsSecret(t, localMarker, err)
			keepsSecret(t, localMarker[:10], err)
		})
	}
	_, err := refresher.Exec("no-such-program-here").Refresh(t.Context(), reauth.Stale{})
	assert.ErrorIs(t, err, exec.ErrNotFound)
	_, err = refresher.Exec(program("fail", "3", "", "")...).Refresh(t.Context(), reauth.Stale{})
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 3, exit.ExitCode())

	for _, none := range []reauth.Refresher{refresher.Exec(), refresher.Exec("")} {
		_, err := none.Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "refresher.Exec has no program to run")
		assert.True(t, reauth.IsPermanent(err))
	}
}

func TestNoFloodOfOutputFillsTheMemoryOrBlocksTheProgram(t *testing.T) {
	localWithin(t, time.Minute, func() {
		_, err := refresher.Exec(program("flood", fmt.Sprint(8<<20), "stdout")...).Refresh(t.Context(), reauth.Stale{})
		assert.ErrorContains(t, err, "larger than 1 MiB")

		_, err = refresher.Exec(program("flood", fmt.Sprint(8<<20), "stderr")...).Refresh(t.Context(), reauth.Stale{})
		require.ErrorContains(t, err, "exit status 1: …aaaa")
		assert.Less(t, len(err.Error()), 600)

		// Not all that is much is too much.
		roomy := `{"access_token":"key-1","note":"` + strings.Repeat("n", 100<<10) + `"}`
		tok, err := refresher.Exec(program("print", roomy)...).Refresh(t.Context(), reauth.Stale{})
		if assert.NoError(t, err) {
			assert.Equal(t, "key-1", tok.AccessToken)
		}
	})
}

// What the server asks for reaches the program.
func TestNoScopeOrClaimIsKeptFromTheProgram(t *testing.T) {
	t.Setenv("LOCAL_TEST_OWN", "inherited")
	t.Setenv("REAUTH_REASON", "of the parent")
	t.Setenv("REAUTH_SCOPE", "of the parent")
	t.Setenv("REAUTH_CLAIMS", "of the parent")
	told := func(stale reauth.Stale) map[string]string {
		tok, err := refresher.Exec(program("tell", "one", "two words", "$HOME", "*")...).Refresh(t.Context(), stale)
		require.NoError(t, err)
		data, err := hex.DecodeString(tok.AccessToken)
		require.NoError(t, err)
		var all map[string]string
		require.NoError(t, json.Unmarshal(data, &all))
		return all
	}
	challenged := func(params map[string]string) reauth.Stale {
		stale := rejected("old")
		stale.Rejection.Reason = reauth.ReasonClaims
		stale.Rejection.Challenges = []reauth.Challenge{{Scheme: "Basic"}, {Scheme: "Bearer", Params: params}}
		return stale
	}

	first := told(reauth.Stale{})
	assert.Equal(t, "one|two words|$HOME|*", first["args"], "no shell has seen them")
	assert.Empty(t, first["stdin"])
	assert.Equal(t, "inherited", first["own"])
	assert.Empty(t, first["reason"])
	assert.Empty(t, first["scope"])
	assert.Empty(t, first["claims"])
	var info struct {
		Kind string
		Spec struct{ Interactive bool }
	}
	require.NoError(t, json.Unmarshal([]byte(first["kubernetes"]), &info))
	assert.Equal(t, "ExecCredential", info.Kind)
	assert.False(t, info.Spec.Interactive)

	claims := `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
	for name, sent := range map[string]string{
		"plain":      claims,
		"base64":     "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ==",
		"unpadded":   "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ",
		"not claims": "what is this",
	} {
		t.Run(name, func(t *testing.T) {
			now := told(challenged(map[string]string{"scope": "mail  files", "claims": sent}))
			assert.Equal(t, "claims", now["reason"])
			assert.Equal(t, "mail files", now["scope"])
			if name == "not claims" {
				assert.Equal(t, sent, now["claims"])
				return
			}
			assert.Equal(t, claims, now["claims"])
		})
	}
}

// From the 401 on the wire to the program.
func TestNoClaimOfAnAPIIsKeptFromTheProgram(t *testing.T) {
	const challenge = `Bearer error="insufficient_claims", claims="eyJhIjoxfQ==", scope="mail"`
	var second string
	base := localBase(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: req}
		if second = strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "); second == "old" {
			resp.StatusCode = http.StatusUnauthorized
			resp.Header.Set("WWW-Authenticate", challenge)
		}
		return resp, nil
	})
	rt := through(refresher.Exec(program("tell")...), base)
	require.NoError(t, rt.Credential.Set(t.Context(), reauth.Token{AccessToken: "old"}))
	status, o := localGet(t, rt)
	require.Equal(t, http.StatusOK, status)
	assert.True(t, o.Recovered())
	data, err := hex.DecodeString(second)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"claims":"{\"a\":1}"`)
	assert.Contains(t, string(data), `"scope":"mail"`)
	assert.Contains(t, string(data), `"reason":"claims"`)
}

// A lifeline is a listener for processes that end when their connection does; when
// a process ends, so does its connection.
type lifeline struct {
	net.Listener
	conns chan net.Conn
}

func newLifeline(t *testing.T) *lifeline {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	line := &lifeline{l, make(chan net.Conn, 8)}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		defer close(line.conns)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line.conns <- conn
		}
	}()
	return line
}

// process waits for the next process.
func (l *lifeline) process(t *testing.T) net.Conn {
	t.Helper()
	select {
	case conn, ok := <-l.conns:
		require.True(t, ok)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	case <-time.After(time.Minute):
		t.Fatal("the process has not come up")
		return nil
	}
}

// dead waits for the end of the process.
func dead(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	var slow net.Error
	assert.False(t, errors.As(err, &slow) && slow.Timeout(), "it lives: %v", err)
}

func TestNoChildOutlivesTheContext(t *testing.T) {
	for name, do := range map[string]string{"the program itself": "hold", "a child that it waits for": "parent"} {
		t.Run(name, func(t *testing.T) {
			line := newLifeline(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("nobody waits any more")
			failed := make(chan error, 1)
			go func() {
				_, err := refresher.Exec(program(do, line.Addr().String())...).Refresh(ctx, reauth.Stale{})
				failed <- err
			}()
			conn := line.process(t)
			cancel(cause)
			localWithin(t, time.Minute, func() {
				err := <-failed
				assert.ErrorIs(t, err, cause)
				assert.ErrorContains(t, err, "program ")
				assert.False(t, reauth.IsPermanent(err))
			})
			dead(t, conn)
		})
	}
}

func TestNoProgramIsStartedForNobody(t *testing.T) {
	line := newLifeline(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := refresher.Exec(program("hold", line.Addr().String())...).Refresh(ctx, reauth.Stale{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, line.Close())
	_, came := <-line.conns
	assert.False(t, came)
}

// The same as a Credential ends it.
func TestNoChildOutlivesItsRefresh(t *testing.T) {
	line := newLifeline(t)
	base, end := context.WithCancel(t.Context())
	cred := &reauth.Credential{
		Refresher:   refresher.Exec(program("parent", line.Addr().String())...),
		Logger:      localDiscard,
		BaseContext: func() context.Context { return base },
	}
	failed := make(chan error, 1)
	go func() {
		_, err := cred.Token(t.Context())
		failed <- err
	}()
	conn := line.process(t)
	end()
	localWithin(t, time.Minute, func() {
		assert.ErrorIs(t, <-failed, context.Canceled)
		assert.NoError(t, cred.Shutdown(t.Context()), "it has returned")
	})
	dead(t, conn)
}

// A program that leaves a child with its standard output behind (an agent, a
// cache) has ended all the same.
func TestNoChildThatHoldsTheOutputHoldsUpTheRefresh(t *testing.T) {
	t.Run("with a token", func(t *testing.T) {
		t.Parallel()
		line := newLifeline(t)
		localWithin(t, time.Minute, func() { // in which the child lives on
			tok, err := refresher.Exec(program("abandon", line.Addr().String(), "key-1")...).Refresh(t.Context(), reauth.Stale{})
			if assert.NoError(t, err) {
				assert.Equal(t, "key-1", tok.AccessToken)
			}
		})
		conn := line.process(t)
		_, err := io.WriteString(conn, "still there?")
		assert.NoError(t, err)
	})
	t.Run("without", func(t *testing.T) {
		t.Parallel()
		line := newLifeline(t)
		localWithin(t, time.Minute, func() {
			_, err := refresher.Exec(program("abandon", line.Addr().String(), "")...).Refresh(t.Context(), reauth.Stale{})
			assert.ErrorContains(t, err, "its output: it is empty")
		})
		line.process(t)
	})
}
