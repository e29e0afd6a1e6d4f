package reauth_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// wordsSeed is the 401 that began it all, as new-api sends it.
func wordsSeed() (*http.Response, []byte) {
	body := classifyGateway("无效的令牌")
	return wordsResponse(401, body, "Content-Type", "application/json; charset=utf-8", "X-New-Api-Version", "v0.0.0", "X-Oneapi-Request-Id", classifyID,
		"Date", "Sun, 22 Nov 2026 19:32:38 GMT", "Content-Length", fmt.Sprint(len(body))), []byte(body)
}

// wordsLarge are bodies of 64 KiB: of ordinary things, and of the worst.
func wordsLarge() map[string][]byte {
	full := func(head, s, tail string) []byte {
		n := (64<<10 - len(head) - len(tail)) / len(s)
		return []byte(head + strings.Repeat(s, n) + tail)
	}
	return map[string][]byte{
		"JSON": full(`{"error":{"code":"","message":"无效的令牌","details":[`, `{"field":"name","value":[1,2.5,true,null],"issue":"some text of some words"},`, `0]}}`),
		"HTML": full("<!DOCTYPE html><html><head><title>401 Unauthorized</title></head><body>", `<div class="row"><a href="/x">Somewhere</a> over the rainbow</div>`+"\n", "</body></html>"),
		"text": full("Unauthorized\n", "The quick brown fox jumps over the lazy dog. ", "\n"),
	}
}

// wordsWorst are those that have cost somebody an afternoon.
func wordsWorst() map[string][]byte {
	worst := map[string][]byte{}
	for _, s := range []string{
		"request id:", "请求 ID：", "请求 id", ":", " : ", "id:", "request id: \n", "token ", "refresh token ", "invalid ", "or ", "a.", "A", "aA", "令牌", "令", "http://", "http://a ", "\xff", "é", "&amp;", "& ",
		"<", "<a", "<a>", "<a>x", "</", "<!--", "<!-->", "<script>", "<script></script>", "<style>x</style>", ">",
		`"`, `\`, `\"`, `"a":`, `"a":"b",`, `"message":"token expired",`, `"request_id":"a",`, `"{\"`, `"\u00`, `{"a":`, "[", "]", "{", "}", "1", "1,", "0e", "data:", "data:{\n", "data: \"\n", "event:\n",
	} {
		for _, head := range []string{"", `{"message":"`, `{"a":`, `[`, `"`, "<p>", "<html>", "<script>", "data: ", "data: \"", "event: x\n", `{"message":"{\"`, "x "} {
			worst[fmt.Sprintf("%q after %q", s, head)] = []byte(head + strings.Repeat(s, (64<<10)/len(s)))
		}
	}
	return worst
}

var wordsSink int

// wordsScan is what every reader of a body has to pay: a look at each byte, at
// its characters, and once more for where they end.
func wordsScan(body []byte) {
	wordsSink += bytes.IndexByte(body, 0) + bytes.Count(body, []byte{'\n'})
	if utf8.Valid(body) {
		wordsSink++
	}
}

func wordsClassify(resp *http.Response, body []byte) reauth.Rejection {
	return reauth.DefaultClassifier().Classify(resp, func() []byte { return body })
}

// The seed's 401 costs at most twice what json.Unmarshal of its body does, and
// eight allocations more. The guard is wider than that, for busy machines: the
// log has the ratio.
func TestSeedIsNotDearToClassify(t *testing.T) {
	resp, body := wordsSeed()
	rej := wordsClassify(resp, body)
	require.Equal(t, reauth.ReasonInvalidToken, rej.Reason)
	require.Equal(t, classifyID, rej.RequestID)
	classify := func() { wordsClassify(resp, body) }
	unmarshal := func() {
		var v any
		_ = json.Unmarshal(body, &v)
	}
	allocs, base := testing.AllocsPerRun(200, classify), testing.AllocsPerRun(200, unmarshal)
	t.Logf("allocations: classify %.0f, json.Unmarshal %.0f", allocs, base)
	assert.LessOrEqual(t, allocs, base+8)
	if wordsRace {
		return // it slows the one down and not the other
	}
	// Side by side, so that both are held up alike.
	least := [2]time.Duration{time.Hour, time.Hour}
	for range 300 {
		for i, f := range []func(){classify, unmarshal} {
			began := time.Now()
			for range 20 {
				f()
			}
			least[i] = min(least[i], time.Since(began)/20)
		}
	}
	ratio := float64(least[0]) / float64(least[1])
	t.Logf("time: classify %v, json.Unmarshal %v, %.2f times as long", least[0], least[1], ratio)
	assert.Less(t, ratio, 3.0)
}

// 64 KiB, whatever they hold, cost less than nine times what json.Unmarshal
// takes for as much: they are not read over and over.
func TestLargeBodyIsNotDearToClassify(t *testing.T) {
	resp, _ := wordsSeed()
	large := wordsLarge()
	// Long enough to be held up like what is measured.
	ten := func() time.Duration {
		began := time.Now()
		for range 10 {
			var v any
			_ = json.Unmarshal(large["JSON"], &v)
		}
		return time.Since(began)
	}
	least := ten()
	for range 9 {
		least = min(least, ten())
	}
	slowest, name := 0.0, ""
	rows := []map[string][]byte{large, wordsWorst()}
	if wordsRace {
		rows = rows[:1]
	}
	for _, bodies := range rows {
		for what, body := range bodies {
			body = body[:min(len(body), 64<<10)]
			best := 1e9 // of several rounds, as the machine may be busy
			for range 30 {
				began := time.Now()
				wordsClassify(resp, body)
				took := time.Since(began)
				if best = min(best, float64(took)/float64(least)); best < 0.9 {
					break
				}
				best = min(best, float64(took)/float64(ten()))
			}
			assert.Less(t, best, 0.9, "64 KiB of %s", what)
			if best > slowest {
				slowest, name = best, what
			}
		}
	}
	t.Logf("json.Unmarshal %v, slowest %.1f times as long (%s)", least/10, 10*slowest, name)
}

func BenchmarkChallenges(b *testing.B) {
	for _, row := range []struct{ name, line string }{
		{"simple", `Bearer error="invalid_token"`},
		{"W9", `Negotiate abc==, Basic realm="Bearer error=\"invalid_token\"", Bearer , ,error=invalid_token error_description="a "b" c",`},
		{"64KiB", `Bearer realm="` + strings.Repeat("An ordinary realm. ", 64<<10/19-1) + `", error="invalid_token"`},
		{"64KiB of names", "Bearer " + chalNames(64<<10)},
	} {
		b.Run(row.name, func(b *testing.B) {
			h := http.Header{"Www-Authenticate": {row.line}}
			b.SetBytes(int64(len(row.line)))
			b.ReportAllocs()
			for b.Loop() {
				reauth.ParseChallenges(h)
			}
		})
	}
}

// BenchmarkClassify has the Classifier in a row with what else could be done
// with the same bytes.
func BenchmarkClassify(b *testing.B) {
	row := func(name string, body []byte, f func()) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	resp, seed := wordsSeed()
	bodies := wordsLarge()
	bodies["seed"] = seed
	for _, name := range []string{"seed", "JSON", "HTML", "text"} {
		body := bodies[name]
		row(name+"/scan", body, func() { wordsScan(body) })
		if name == "seed" || name == "JSON" {
			row(name+"/unmarshal", body, func() {
				var v any
				_ = json.Unmarshal(body, &v)
			})
		}
		row(name+"/reauth", body, func() { wordsClassify(resp, body) })
	}
}
