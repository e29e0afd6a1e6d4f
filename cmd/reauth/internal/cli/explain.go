package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"regexp"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
	"github.com/reauth-go/reauth/cmd/reauth/internal/paste"
)

// An explanation is what explain prints of a response.
type explanation struct {
	Status      int    `json:"status,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Refreshable bool   `json:"refreshable"` // a new token helps
	Summary     string `json:"summary"`     // the first line
	Advice      string `json:"advice,omitempty"`
	Code        string `json:"code,omitempty"`
	Message     string `json:"message,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
	Unread      string `json:"unread,omitempty"` // the content coding of a body that could not be read

	decided bool
}

func (c *command) explainCommand() *cobra.Command {
	var status int
	var headers string
	var all bool
	cmd := &cobra.Command{
		Use:   "explain [text]",
		Short: "Say what an authentication error means, and whether a new token helps",
		Long: `Explain reads an error as it was pasted: raw HTTP, the output of curl -v, a HAR, the
error of an SDK in Python, JavaScript or Go, a JSON log line; or a page around it. It reads
1 MiB of standard input if there is no argument.

The first line says what happened, whether a new token helps, what to do, and which request
id to give to whom. No token, cookie or query of the text is printed.

The exit status is 10 if a new token helps, 11 if it does not, and 12 if that cannot be
said.`,
		Example: `  reauth explain "Error code: 401 - {'error': {'message': 'Invalid token (request id: 2026…)'}}"
  curl -v https://api.example.com/v1/models 2>&1 | reauth explain`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			text := []byte(strings.Join(args, " "))
			if len(args) == 0 {
				var err error
				if text, err = io.ReadAll(io.LimitReader(c.In, paste.MaxBytes)); err != nil {
					return &exitError{exitFailed, err}
				}
			}
			if status != 0 && (status < 100 || status > 599) {
				return usagef("--status %d is no status of HTTP", status)
			}
			found := paste.Find(text)
			if headers != "" {
				h, err := readHeaders(headers)
				if err != nil {
					return usagef("--headers: %v", err)
				}
				for _, r := range found {
					for k, v := range h {
						r.Header[k] = v
					}
				}
			}
			if !all && len(found) > 1 {
				found = found[:1]
			}
			exit := exitUndecided
			for i, r := range found {
				if status != 0 {
					r.Status = status
				}
				e := explain(r, c.language(text))
				if err := c.print(e, e.text(c.quiet)); err != nil {
					return &exitError{exitFailed, err}
				}
				if i == 0 {
					exit = e.exit()
				}
			}
			return &exitError{exit, nil}
		},
	}
	cmd.Flags().IntVar(&status, "status", 0, "the status of the response, if the text does not show it")
	cmd.Flags().StringVar(&headers, "headers", "", "a file with the headers of the response")
	cmd.Flags().BoolVar(&all, "all", false, "explain each error of a HAR, not only the first")
	return cmd
}

// readHeaders reads a file of header lines, with or without a status line before them.
func readHeaders(name string) (http.Header, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(b, []byte("HTTP/")) {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	h, err := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.TrimSpace(b)), strings.NewReader("\n\n")))).ReadMIMEHeader()
	return http.Header(h), err
}

// topical are the words without which a text without a status is about something else.
var topical = regexp.MustCompile(`(?i)auth|token|api.?key|credential|login|log.?in|sign.?in|unauthorized|jwt|session|expired|令牌|密钥|登录|认证|授权|トークン|認証|토큰|인증`)

// explain says what a response means.
func explain(r *paste.Response, lang string) *explanation {
	resp := r.HTTP()
	shown := r.Status != 0
	if !shown {
		resp.StatusCode = http.StatusUnauthorized // what people ask about
	}
	rej := inspect(resp, r.Body)
	reason := rej.Reason
	if !shown && (reason == reauth.ReasonUnspecified || !topical.Match(r.Body)) {
		reason = ""
	}
	if !shown && reason == reauth.ReasonOther {
		reason = ""
	}
	e := &explanation{
		Status: r.Status, Reason: string(reason), Refreshable: reason.Refreshable(), Code: rej.Code, Message: rej.Message,
		RequestID: rej.RequestID, Unread: rej.Unread, decided: reason != "",
	}
	for _, secret := range r.Secrets {
		if len(secret) >= 4 {
			e.Message = strings.ReplaceAll(e.Message, secret, "[redacted]")
			e.Code = strings.ReplaceAll(e.Code, secret, "[redacted]")
			if strings.Contains(e.RequestID, secret) {
				e.RequestID = "" // what is left of it finds nothing
			}
		}
	}
	if !e.decided && e.Status == 0 {
		e.Message, e.Code = "", "" // of something else
	}
	e.Advice = adviceText(reason, lang)
	e.Summary = e.summary(reason, lang)
	return e
}

// expiredElsewhere says with a 403 or 400 that a token has expired.
var expiredElsewhere = classifier.Chain(classifier.AWS(), classifier.Vault())

// inspect is reauth.Inspect, for all statuses that are about credentials: only a 401 may
// mean that a new token helps, or what AWS and Vault say with another status.
func inspect(resp *http.Response, body []byte) reauth.Rejection {
	rej := reauth.Inspect(resp, body)
	if resp.StatusCode == http.StatusUnauthorized {
		return rej
	}
	if got := expiredElsewhere.Classify(resp, func() []byte { return body }); got.Reason != "" {
		rej.Reason = got.Reason
		return rej
	}
	switch {
	case resp.StatusCode == http.StatusPaymentRequired || resp.StatusCode == http.StatusTooManyRequests:
		rej.Reason = reauth.ReasonQuota
	case rej.Reason == reauth.ReasonExpired && resp.StatusCode == http.StatusForbidden && isCode(rej.Code):
	case rej.Reason.Refreshable() && resp.StatusCode == http.StatusForbidden:
		rej.Reason = reauth.ReasonDenied
	case rej.Reason.Refreshable() && resp.StatusCode < 400:
	case rej.Reason.Refreshable():
		rej.Reason = ""
	}
	return rej
}

// isCode reports whether a code speaks of a token's expiry.
func isCode(code string) bool {
	code = strings.ToLower(code)
	return strings.Contains(code, "expired") && (strings.Contains(code, "token") || strings.Contains(code, "jwt"))
}

// exit returns the exit status.
func (e *explanation) exit() int {
	switch {
	case !e.decided:
		return exitUndecided
	case e.Refreshable:
		return exitHelps
	}
	return exitNoHelp
}

// text returns what a person reads.
func (e *explanation) text(quiet bool) string {
	var b strings.Builder
	b.WriteString(e.Summary + "\n")
	if quiet {
		return b.String()
	}
	line := func(name, value string) {
		if value != "" && value != "0" {
			fmt.Fprintf(&b, "  %-11s %s\n", name, value)
		}
	}
	line("status", fmt.Sprint(e.Status))
	line("reason", e.Reason)
	line("code", e.Code)
	line("message", e.Message)
	line("request id", e.RequestID)
	line("unread", e.Unread)
	return b.String()
}

// language returns in which language to speak: that of --lang, of the locale, of the text.
func (c *command) language(text []byte) string {
	if c.lang != "" {
		return c.lang
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		switch v := os.Getenv(name); {
		case strings.HasPrefix(v, "zh"):
			return "zh"
		case v != "" && v != "C" && v != "POSIX" && !strings.HasPrefix(v, "C."):
			return "en"
		}
	}
	han := 0
	for _, r := range string(text[:min(len(text), 4<<10)]) {
		if unicode.Is(unicode.Han, r) {
			han++
		}
	}
	if han >= 4 {
		return "zh"
	}
	return "en"
}
