package classifier

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/internal/httpx"
	"github.com/reauth-go/reauth/internal/recognize"
)

// Chain returns a Classifier that calls the given ones in turn. The first that
// returns a Reason decides, also when a new token does not help: so a
// provider's own stands before reauth.DefaultClassifier.
//
// A nil among them is reauth.DefaultClassifier, as it is in
// reauth.Transport.Classifier; and so is Chain of none.
func Chain(classifiers ...reauth.Classifier) reauth.Classifier {
	all := slices.Clone(classifiers)
	if len(all) == 0 {
		all = []reauth.Classifier{nil}
	}
	for i, c := range all {
		if httpx.IsNil(c) {
			all[i] = reauth.DefaultClassifier()
		}
	}
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		for _, c := range all {
			if rej := c.Classify(resp, body); rej.Reason != "" {
				return rej
			}
		}
		return reauth.Rejection{}
	})
}

// Statuses returns a Classifier that understands responses with one of these
// statuses as reauth.DefaultClassifier understands a 401, and 401s as well. A
// response with another status than 401 is a rejection only if a challenge, a code
// or its words name the token, and say that it is invalid, expired or revoked. "Page
// Expired" and "Your card has expired" do not.
//
// Use Statuses(403) for a server that has no Classifier here, and responds with 403
// "Token expired".
//
// Statuses below 400 are ignored.
func Statuses(codes ...int) reauth.Classifier {
	codes = slices.Clone(codes)
	return reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
		if resp.StatusCode == http.StatusUnauthorized {
			return understood(resp, body)
		}
		if resp.StatusCode < http.StatusBadRequest || !slices.Contains(codes, resp.StatusCode) {
			return reauth.Rejection{}
		}
		switch rej := understood(resp, body); rej.Reason {
		case reauth.ReasonInvalidToken, reauth.ReasonExpired, reauth.ReasonRevoked:
			if namesToken(rej, text(resp, body)) {
				return rej
			}
		}
		return reauth.Rejection{}
	})
}

// namesToken reports whether a rejection names what has expired or is invalid. Of
// a 401 "expired" is enough; but elsewhere a page or a card may be. Where neither
// code nor message nor challenge names it, another member of the body may, as
// details do.
func namesToken(rej reauth.Rejection, body []byte) bool {
	said := rej.Code + " " + rej.Message
	for _, c := range rej.Challenges {
		said += " " + c.Params["error"] + " " + c.Params["error_description"]
	}
	if mentions(said, "token", "jwt", "bearer", "key", "credential", "session", "signature", "jeton", "токен",
		"令牌", "凭证", "凭据", "憑證", "密钥", "密鑰", "金鑰", "会话", "會話", "登录", "登錄", "トークン", "토큰") {
		return true
	}
	body = bytes.TrimSpace(body[:min(len(body), 4<<10)])
	return !bytes.HasPrefix(body, []byte("<")) && mentions(string(body), "token ", "jwt ", "令牌", "トークン", "토큰")
}

// mentions reports whether text contains one of the words.
func mentions(text string, words ...string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// understood returns what resp says of the token, as if its status were that of a
// rejection.
func understood(resp *http.Response, body func() []byte) reauth.Rejection {
	r := recognize.Response(resp, body())
	rej := reauth.Rejection{
		Reason:     reauth.Reason(r.Reason),
		StatusCode: resp.StatusCode,
		Code:       r.Code,
		Message:    r.Message,
		RequestID:  r.RequestID,
	}
	for _, c := range r.Challenges {
		rej.Challenges = append(rej.Challenges, reauth.Challenge(c))
	}
	return rej
}

// rejected returns the Rejection of a response that the server's own code, which
// may be empty, gives this reason. The rest is what the response says of itself:
// bounded, printable and its secrets masked, as package reauth does it.
func rejected(resp *http.Response, body func() []byte, reason reauth.Reason, code string) reauth.Rejection {
	if reason == "" {
		return reauth.Rejection{}
	}
	rej := understood(resp, body)
	rej.Reason = reason
	if code != "" {
		rej.Code = code
	}
	return rej
}
