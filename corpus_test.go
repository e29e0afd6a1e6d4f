package reauth_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// A corpusRow is what a server answered: see testdata/corpus/README.md.
type corpusRow struct {
	ID           string
	Status       int
	Headers      map[string][]string
	Body         string
	BodyEncoding string `json:"body_encoding"`
	Label        string
	MayHelp      bool `json:"refresh_may_help"`
	Ambiguous    bool
	Confidence   string
	RequestID    string `json:"request_id"`
}

// clear reports whether the row's verdict counts.
func (r corpusRow) clear() bool { return !r.Ambiguous && r.Confidence != "recalled" }

func (r corpusRow) response(t testing.TB) (*http.Response, []byte) {
	t.Helper()
	body := []byte(r.Body)
	if r.BodyEncoding == "base64" {
		var err error
		body, err = base64.StdEncoding.DecodeString(r.Body)
		require.NoError(t, err)
	}
	h := http.Header{}
	for k, vv := range r.Headers {
		for _, v := range vv {
			h.Add(k, v)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "https://api.example.com/v1/things", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer [redacted]")
	return &http.Response{StatusCode: r.Status, Header: h, Body: io.NopCloser(bytes.NewReader(body)), Request: req}, body
}

func corpus(t testing.TB, name string) []corpusRow {
	t.Helper()
	f, err := os.Open("testdata/corpus/" + name)
	require.NoError(t, err)
	defer f.Close()
	var rows []corpusRow
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r corpusRow
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		rows = append(rows, r)
	}
	require.NoError(t, lines.Err())
	return rows
}

// A score counts how often something was so, of how many.
type score struct{ hits, of int }

func (s *score) note(hit bool) {
	s.of++
	if hit {
		s.hits++
	}
}

func (s score) percent() float64 { return 100 * float64(s.hits) / float64(max(s.of, 1)) }

// The whole corpus, with its scores: rows whose bytes are sent for other causes
// too, and those written from memory, are told apart. A challenge for claims
// goes to the Refresher with the challenge (W4), and so does not count as
// needless, although a token without the claims would not help.
func TestHardlyAResponseOfTheCorpusIsMisread(t *testing.T) {
	t.Run("seen on the wire", func(t *testing.T) { corpusScores(t, corpus(t, "responses.jsonl")) })
	t.Run("other providers", func(t *testing.T) { corpusScores(t, corpus(t, "more.jsonl")) })
}

func corpusScores(t *testing.T, rows []corpusRow) {
	var recall, needless, others, ids, claims [2]score
	for _, r := range rows {
		i := 0
		if !r.clear() {
			i = 1
		}
		resp, body := r.response(t)
		rej := reauth.DefaultClassifier().Classify(resp, func() []byte { return body[:min(len(body), 64<<10)] })
		refreshes := rej.Reason.Refreshable()
		switch {
		case r.Status != http.StatusUnauthorized:
			others[i].note(refreshes)
		case rej.Reason == reauth.ReasonClaims:
			claims[i].note(true)
		case r.MayHelp:
			recall[i].note(refreshes)
			if !refreshes {
				t.Logf("missed: %s (%s) %q", r.ID, rej.Reason, rej.Message)
			}
		case r.Label == "not_token":
			needless[i].note(refreshes)
			if refreshes {
				t.Logf("needless: %s (%s) %q", r.ID, rej.Reason, rej.Message)
			}
		}
		if r.RequestID != "" {
			id := reauth.RequestID(resp)
			if ids[i].note(id == r.RequestID); id != r.RequestID {
				t.Logf("request id: %s: %q, not %q", r.ID, id, r.RequestID)
			}
		}
	}
	for i, name := range []string{"clear", "ambiguous or recalled"} {
		t.Logf("%s rows: recall of curable 401s %.1f %% of %d; needless refreshes %.1f %% of %d; on other statuses %d of %d; claims %d; request ids %.1f %% of %d",
			name, recall[i].percent(), recall[i].of, needless[i].percent(), needless[i].of, others[i].hits, others[i].of, claims[i].of, ids[i].percent(), ids[i].of)
	}
	assert.GreaterOrEqual(t, recall[0].percent(), 99.0)
	assert.LessOrEqual(t, needless[0].percent(), 5.0)
	assert.Zero(t, others[0].hits+others[1].hits)
	assert.GreaterOrEqual(t, ids[0].percent(), 98.0)
}
