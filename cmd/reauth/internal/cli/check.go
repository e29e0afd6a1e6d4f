package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/reauth-go/reauth"
)

// A checked is what check prints.
type checked struct {
	URL            string   `json:"url"`
	Verdict        string   `json:"verdict"` // good, cured, refused, known, proves nothing, undecided
	Status         int      `json:"status"`
	Reason         string   `json:"reason,omitempty"`
	Message        string   `json:"message,omitempty"`
	Advice         string   `json:"advice,omitempty"`
	RequestID      string   `json:"request_id,omitempty"`
	FirstRequestID string   `json:"first_request_id,omitempty"`
	Token          string   `json:"token"` // fingerprint
	Length         int      `json:"length"`
	Expiry         string   `json:"expiry,omitempty"`
	ClockSkew      string   `json:"clock_skew,omitempty"`
	Redirects      []string `json:"redirects,omitempty"`
	Took           string   `json:"took"`
}

func (c *command) checkCommand() *cobra.Command {
	var f sourceFlags
	var method, data string
	var headers []string
	var noProbe bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "check [url]",
		Short: "Send a request, and say what the server thinks of the token",
		Long: `Check sends a request with the token, once more with a new one if the server rejects it,
and a GET or HEAD also without a token: an address that answers everybody proves nothing.
It never prints the token.

The exit status is 0 if the token is good, 10 if it was refused and a new one helps, 11 if
it was refused and that does not help, 12 if that cannot be said, 20 or 21 if there is no
token, and 22 if the server was not reached.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			cred, p, err := c.credential(ctx, f)
			if err != nil {
				return err
			}
			address := ""
			if len(args) > 0 {
				address = args[0]
			} else if p != nil {
				address = p.URL
			}
			u, err := checkedURL(address, p)
			if err != nil {
				return err
			}
			req, err := newCheckRequest(ctx, method, u, headers, data)
			if err != nil {
				return err
			}
			v, status, err := c.check(req, cred, p, !noProbe)
			if err != nil {
				return err
			}
			if err := c.print(v, v.text(c.language(nil))); err != nil {
				return &exitError{exitFailed, err}
			}
			return &exitError{status, nil}
		},
	}
	c.addSource(cmd, &f)
	cmd.Flags().StringVarP(&method, "request", "X", "", "method (else GET, or POST with -d)")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "a header: 'Name: value'")
	cmd.Flags().StringVarP(&data, "data", "d", "", "body, or @FILE")
	cmd.Flags().BoolVar(&noProbe, "no-anonymous-probe", false, "do not send the request without the token as well")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "for all of it")
	return cmd
}

// checkedURL returns the URL to send to, which is one that may get the token.
func checkedURL(address string, p *profile) (*url.URL, error) {
	if address == "" {
		return nil, usagef("say which URL to check")
	}
	u, err := serverURL(address)
	switch {
	case err != nil:
		return nil, &exitError{exitUsage, err}
	case p != nil && !slices.Contains(p.allOrigins(), u.Scheme+"://"+u.Host):
		return nil, usagef("profile %s is not for %s://%s: add it to its origins, if the token is for it", p.name, u.Scheme, u.Host)
	}
	return u, nil
}

func newCheckRequest(ctx context.Context, method string, u *url.URL, headers []string, data string) (*http.Request, error) {
	body := data
	if name, ok := strings.CutPrefix(data, "@"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, usagef("-d: %v", err)
		}
		body = string(b)
	}
	if method == "" {
		method = http.MethodGet
		if data != "" {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, strings.ToUpper(method), u.String(), strings.NewReader(body))
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || !isHeaderName(strings.TrimSpace(name)) || strings.ContainsAny(value, "\r\n\x00") {
			return nil, usagef("-H %q is not 'Name: value'", h)
		}
		req.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return req, nil
}

// isHeaderName reports whether a name is a token of RFC 9110 §5.6.2.
func isHeaderName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// mask removes tokens from what is printed: a server may show the one that it got.
func (v *checked) mask(tokens ...string) {
	fields := []*string{&v.URL, &v.Message, &v.Reason, &v.RequestID, &v.FirstRequestID}
	for i := range v.Redirects {
		fields = append(fields, &v.Redirects[i])
	}
	for _, f := range fields {
		for _, t := range tokens {
			if t != "" {
				*f = strings.ReplaceAll(*f, t, "[redacted]")
			}
		}
	}
}

// check sends the request, and says what that shows.
func (c *command) check(req *http.Request, cred *reauth.Credential, p *profile, probe bool) (*checked, int, error) {
	tok, err := cred.Token(req.Context())
	if err != nil {
		return nil, 0, tokenError(err, p)
	}
	v := &checked{URL: redacted(req.URL.String()), Token: tok.Fingerprint(), Length: len(tok.AccessToken)}
	if e, ok := expiryOf(tok).(string); ok {
		v.Expiry = e
	}
	rt := &reauth.Transport{Credential: cred, Origins: []string{req.URL.Scheme + "://" + req.URL.Host}, Logger: c.logger()}
	if p != nil {
		rt.Header, rt.Scheme, rt.Origins = p.Header, p.Scheme, p.allOrigins()
	}
	c.progress("sending %s %s with the token %s …", req.Method, v.URL, v.Token)
	client := &http.Client{Transport: rt, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if v.Redirects = append(v.Redirects, redacted(next.URL.String())); len(v.Redirects) == 10 {
			return sayf("stopped after 10 redirects")
		}
		return nil
	}}
	began := time.Now()
	resp, err := client.Do(req)
	came := time.Now()
	v.Took = came.Sub(began).Round(time.Millisecond).String()
	if err != nil {
		var refresh *reauth.RefreshError
		if errors.As(err, &refresh) {
			return nil, 0, tokenError(err, p)
		}
		return nil, 0, &exitError{exitUnreachable, err}
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	v.Status, v.RequestID = resp.StatusCode, reauth.RequestID(resp)
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		if skew := came.Sub(at); skew.Abs() > 5*time.Second {
			v.ClockSkew = skew.Round(time.Second).String()
		}
	}
	o, rejected := reauth.OutcomeOf(resp)
	rej := o.Rejection
	if !rejected || rej.Reason == "" {
		rej = inspect(resp, body)
	}
	if o.Retry.StatusCode != 0 {
		v.FirstRequestID = o.First.RequestID
	}
	anonymous := 0
	if probe && (req.Method == http.MethodGet || req.Method == http.MethodHead) && resp.StatusCode < 400 {
		c.progress("sending it once more, without the token …")
		anonymous = probeStatus(req)
	}
	v.Reason, v.Message = string(rej.Reason), rej.Message
	current, _ := cred.Current()
	v.mask(tok.AccessToken, current.AccessToken)
	return v, v.judge(o, rej, anonymous, c.language(body)), nil
}

// probeStatus is the status of the request without a token; 0 if there is none.
func probeStatus(req *http.Request) int {
	bare := req.Clone(req.Context())
	for _, name := range keyHeaders {
		bare.Header.Del(name)
	}
	resp, err := http.DefaultTransport.RoundTrip(bare)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// judge says what the responses show, by their reasons and not by their status.
func (v *checked) judge(o reauth.Outcome, rej reauth.Rejection, anonymous int, lang string) int {
	verdict := func(name string, status int) int {
		v.Verdict = name
		return status
	}
	if v.Status >= 400 {
		v.Advice = adviceText(rej.Reason, lang)
		if o.Advice != "" {
			v.Advice = sayAdvice(o.Advice, lang)
		}
	}
	switch {
	case v.Status < 400 && anonymous/100 == 2:
		return verdict("proves nothing", exitUndecided)
	case v.Status < 400 && o.Recovered():
		return verdict("cured", exitGood)
	case v.Status < 400:
		v.Reason, v.Message = "", ""
		return verdict("good", exitGood)
	case rej.Reason == reauth.ReasonQuota, rej.Reason == reauth.ReasonInsufficientScope, rej.Reason == reauth.ReasonDenied:
		return verdict("known", exitNoHelp)
	case rej.Reason == "":
		return verdict("undecided", exitUndecided)
	case rej.Reason.Refreshable() && o.Retry.StatusCode != 0:
		return verdict("refused", exitNoHelp) // a new one was tried
	case rej.Reason.Refreshable():
		return verdict("refused", exitHelps)
	}
	return verdict("refused", exitNoHelp)
}

// text returns what a person reads.
func (v *checked) text(lang string) string {
	var b strings.Builder
	b.WriteString(verdicts[v.Verdict].in(lang))
	if v.Advice != "" {
		b.WriteString(sayf(" To do: %s.", v.Advice).in(lang))
	}
	b.WriteString("\n")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-11s %s\n", name, value)
		}
	}
	skew := ""
	if v.ClockSkew != "" {
		skew = sayf("this machine's differs by %s", v.ClockSkew).in(lang)
	}
	line("url", v.URL)
	line("status", fmt.Sprint(v.Status))
	line("reason", v.Reason)
	line("message", v.Message)
	line("request id", v.RequestID)
	line("first id", v.FirstRequestID)
	line("token", sayf("%s, of %d characters", v.Token, v.Length).in(lang))
	line("expiry", v.Expiry)
	line("clock", skew)
	line("redirects", strings.Join(v.Redirects, ", "))
	line("took", v.Took)
	return b.String()
}
