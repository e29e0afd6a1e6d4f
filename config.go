package reauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/reauth-go/reauth/internal/origin"
)

// A config is what a Transport's fields come to.
type config struct {
	err        error
	base       http.RoundTripper
	key        string // of the header, canonical
	scheme     string
	prefix     string // scheme and a blank
	origins    []origin.Origin
	classifier Classifier
	keep       int64
}

// configure sets config.
func (t *Transport) configure() {
	t.base, t.key, t.scheme, t.classifier, t.keep = t.Base, t.Header, t.Scheme, t.Classifier, max(t.MaxReplayBytes, 0)
	if t.Base == nil {
		t.base = http.DefaultTransport
	}
	if t.Header == "" {
		t.key = "Authorization"
	}
	t.key = http.CanonicalHeaderKey(t.key)
	if t.Scheme == "" && t.key == "Authorization" {
		t.scheme = "Bearer"
	}
	if t.Scheme == NoScheme {
		t.scheme = ""
	}
	if t.scheme != "" {
		t.prefix = t.scheme + " "
	}
	if t.MaxReplayBytes == 0 {
		t.keep = defaultReplay
	}
	if t.Classifier == nil {
		t.classifier = DefaultClassifier()
	}
	t.origins, t.err = parseOrigins(t.Origins)
	switch {
	case t.err != nil:
		t.err = fmt.Errorf("reauth: Transport.%w", t.err)
	case isNil(t.base):
		t.err = fmt.Errorf("reauth: Transport.Base is a nil %T", t.base)
	case isNil(t.classifier):
		t.err = fmt.Errorf("reauth: Transport.Classifier is a nil %T", t.classifier)
	case t.Credential == nil && t.CredentialFor == nil:
		t.err = errors.New("reauth: the Transport has no Credential: set Credential or CredentialFor")
	case !isFieldName(t.key):
		t.err = fmt.Errorf("reauth: Transport.Header %q is no header name", bounded(t.Header, 100))
	case t.scheme != "" && !isFieldName(t.scheme):
		t.err = fmt.Errorf("reauth: Transport.Scheme %q is no authentication scheme", bounded(t.Scheme, 100))
	}
}

// isFieldName reports whether s is a token of RFC 9110 §5.6.2, as the names of
// headers and schemes are.
func isFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
