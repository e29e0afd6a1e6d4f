package reauth_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
)

// respFailing is a Refresher that has no token.
func respFailing() reauth.Refresher {
	return &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
		return reauth.Token{}, errors.New("the issuer is down")
	}}
}

// respByHeader is a Classifier that does not look at the body.
var respByHeader = reauth.ClassifierFunc(func(resp *http.Response, _ func() []byte) reauth.Rejection {
	if resp.StatusCode == http.StatusUnauthorized {
		return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	}
	return reauth.Rejection{}
})

// respByBody is a Classifier that looks at every body.
var respByBody = reauth.ClassifierFunc(func(resp *http.Response, body func() []byte) reauth.Rejection {
	if body(); resp.StatusCode == http.StatusUnauthorized {
		return reauth.Rejection{Reason: reauth.ReasonInvalidToken}
	}
	return reauth.Rejection{}
})

func respGet(t testing.TB, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	return req
}

// respWith returns a response of a Base without a network, with this body.
func respWith(req *http.Request, status int, body io.ReadCloser) *http.Response {
	resp := answer(req, status, "")
	resp.Body, resp.ContentLength = body, -1
	return resp
}

// respHanging returns a body that hangs after its beginning, until it is closed.
func respHanging(start string) *bodyProbe {
	pr, _ := io.Pipe()
	b := bodyProbing(io.MultiReader(strings.NewReader(start), pr))
	b.close = pr.Close
	return b
}

// respRagged reads with buffers of any size.
func respRagged(r io.Reader) ([]byte, error) {
	var all []byte
	for {
		p := make([]byte, 1+rand.IntN(10_000))
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err != nil {
			return all, err
		}
	}
}

// W11: within 64 KiB and a second, whatever the server does.
func TestNoCallerIsHeldByA401ThatDoesNotEnd(t *testing.T) {
	endless := func(wait time.Duration, n int) *bodyProbe {
		return bodyProbing(bodyReaderFunc(func(p []byte) (int, error) {
			time.Sleep(wait)
			return min(n, len(p)), nil
		}))
	}
	tests := []struct {
		name string
		body func() *bodyProbe
		took time.Duration // -1: up to a second
	}{
		{"pours", func() *bodyProbe { return endless(0, 1<<20) }, 0},
		{"drips", func() *bodyProbe { return endless(70*time.Millisecond, 1) }, time.Second},
		{"hangs at once", func() *bodyProbe { return respHanging("") }, time.Second},
		{"hangs after ten bytes", func() *bodyProbe { return respHanging("0123456789") }, time.Second},
		{"hangs and is deaf to Close", func() *bodyProbe { return endless(time.Hour, 1) }, time.Second},
		{"reads nothing and no error", func() *bodyProbe { return endless(0, 0) }, -1},
	}
	for _, tt := range tests {
		for _, cured := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, cured %t", tt.name, cured), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					body := tt.body()
					rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if bodyToken(req) == "T0" {
							return respWith(req, 401, body), nil
						}
						return answer(req, 200, "fine"), nil
					}))
					if !cured {
						rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
					}
					start := time.Now()
					resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
					require.NoError(t, err)
					took := time.Since(start)
					if tt.took >= 0 {
						assert.Equal(t, tt.took, took)
					} else {
						assert.LessOrEqual(t, took, time.Second)
					}
					if cured {
						assert.Equal(t, 200, resp.StatusCode)
					} else {
						assert.Equal(t, 401, resp.StatusCode)
						assert.Zero(t, body.closes.Load(), "it is the caller's now")
					}
					require.NoError(t, resp.Body.Close())
					time.Sleep(2 * time.Hour)
					assert.EqualValues(t, 1, body.closes.Load(), "closes")
					assert.Zero(t, body.late.Load(), "Reads after Close")
				})
			})
		}
	}
}

// W11: "about 64 KiB" of memory too.
func TestNoMoreOfA401IsReadThanIsNeeded(t *testing.T) {
	var read atomic.Int64
	rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return respWith(req, 401, bodyProbing(bodyReaderFunc(func(p []byte) (int, error) {
			read.Add(int64(len(p)))
			return len(p), nil
		}))), nil
	}))
	rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
	resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Greater(t, read.Load(), int64(64<<10))
	assert.LessOrEqual(t, read.Load(), int64(72<<10))
}

// W11: the caller's own end comes first.
func TestNoCallerWhoHasGoneIsHeldByA401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(300*time.Millisecond, func() { cancel(gone) })
		body := respHanging("")
		rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return respWith(req, 401, body), nil
		}))
		rt.RetryWait = time.Second
		start := time.Now()
		resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/").WithContext(ctx))
		assert.Nil(t, resp)
		assert.Equal(t, gone, err)
		assert.Equal(t, 300*time.Millisecond, time.Since(start))
		assert.EqualValues(t, 1, body.closes.Load(), "closes of the 401")
		time.Sleep(time.Minute)
	})
}

// W11: classified on what came, and handed on with all of it.
func TestNoByteIsLostOfA401ThatGoesOnLater(t *testing.T) {
	for _, tt := range []struct {
		name, start string
		refreshes   int32
	}{
		{"what came says quota", `{"error":{"message":"quota exceeded`, 0},
		{"nothing came", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pr, pw := io.Pipe()
				body := bodyProbing(pr)
				go func() {
					_, _ = io.WriteString(pw, tt.start)
					for i := range 5 {
						time.Sleep(7 * time.Second)
						_, _ = io.WriteString(pw, fmt.Sprint(" ", i))
					}
					_ = pw.CloseWithError(errBodyBroken)
				}()
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					return respWith(req, 401, body), nil
				}))
				refresher := respFailing()
				rt.Credential = holding(t, refresher, reauth.Token{AccessToken: "T0"})
				start := time.Now()
				resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
				require.NoError(t, err)
				assert.Equal(t, time.Second, time.Since(start))
				assert.Equal(t, tt.refreshes, refresher.(*issuer).calls.Load())
				for i := range 5 { // as it comes, not at its end
					p := make([]byte, len(tt.start)+2)
					if i > 0 {
						p = p[:2]
					} else if _, err := io.ReadFull(resp.Body, p[:len(tt.start)]); assert.NoError(t, err) {
						assert.Equal(t, tt.start, string(p[:len(tt.start)]))
						p = p[:2]
					}
					_, err := io.ReadFull(resp.Body, p)
					assert.NoError(t, err)
					assert.Equal(t, fmt.Sprint(" ", i), string(p))
					assert.Equal(t, time.Duration(i+1)*7*time.Second, time.Since(start))
				}
				_, err = resp.Body.Read(make([]byte, 1))
				assert.Equal(t, errBodyBroken, err, "how it ended")
				require.NoError(t, resp.Body.Close())
				assert.EqualValues(t, 1, body.closes.Load())
				assert.Zero(t, body.overlaps.Load(), "Reads while another was under way")
			})
		})
	}
}

// A 401 that is handed on and hangs ends with its Close, as any body does.
func TestNoReadOfA401OutlivesItsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := respHanging("ten bytes.")
		rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return respWith(req, 401, body), nil
		}))
		rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
		resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
		require.NoError(t, err)
		go func() {
			time.Sleep(time.Minute)
			_ = resp.Body.Close()
		}()
		start := time.Now()
		all, err := io.ReadAll(resp.Body)
		assert.Equal(t, "ten bytes.", string(all))
		assert.Error(t, err)
		assert.Equal(t, time.Minute, time.Since(start))
		n, err := resp.Body.Read(make([]byte, 1))
		assert.Zero(t, n)
		assert.Error(t, err)
		assert.NotErrorIs(t, err, io.EOF)
		assert.Zero(t, body.late.Load(), "Reads after Close")
	})
}

// Nor is what was read ahead there after the Close.
func TestNoByteOfA401IsReadAfterItsClose(t *testing.T) {
	body := bodyProbing(strings.NewReader(bodyOf401))
	rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return respWith(req, 401, body), nil
	}))
	rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
	resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	n, err := resp.Body.Read(make([]byte, 10))
	assert.Zero(t, n)
	assert.Equal(t, http.ErrBodyReadAfterClose, err)
	body.check(t)
}

// W11 on sockets: the retry goes through, and the server is rid of the 401.
func TestNoServerKeepsWritingA401ThatNobodyWants(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range []struct {
			name    string
			endless bool
			coding  string
		}{
			{"hangs", false, ""},
			{"pours", true, ""},
			// net/http unzips it, and Close comes while that reads.
			{"hangs, gzip-coded", false, "gzip"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				ended := make(chan struct{})
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					if bodyToken(r) != "T0" {
						return
					}
					defer close(ended)
					if tt.coding != "" {
						w.Header().Set("Content-Encoding", tt.coding)
						w.WriteHeader(http.StatusUnauthorized)
						zw := gzip.NewWriter(w)
						_, _ = zw.Write([]byte("0123456789"))
						_ = zw.Flush()
					} else {
						w.WriteHeader(http.StatusUnauthorized)
						_, _ = io.WriteString(w, "0123456789")
					}
					_ = http.NewResponseController(w).Flush()
					for page := make([]byte, 8<<10); tt.endless; {
						if _, err := w.Write(page); err != nil {
							return
						}
					}
					<-r.Context().Done()
				})
				resp, err := bodyDo(t, bodyTransport(t, w.base), respGet(t, w.url))
				require.NoError(t, err)
				bodyRead(t, resp)
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				bodyAwait(t, ended, "the server still writes the 401")
			})
		}
	})
}

// Rule 1, W2: handed on byte by byte, whatever its length, with its headers and
// trailers (X2); the second 401 as well as the first.
func TestNoByteOfA401IsLostWhenItIsHandedOn(t *testing.T) {
	content := bodyBytes(150 << 10)
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			var size int
			var chunked bool
			_, err := fmt.Sscan(r.Header.Get("X-Want"), &size, &chunked)
			assert.NoError(t, err)
			w.Header().Set("Content-Type", "application/octet-stream")
			if chunked {
				w.Header().Set("Trailer", "X-Sum")
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write(content[:size])
			if chunked {
				w.Header().Set("X-Sum", "42")
			}
		})
		for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 150 << 10} {
			for _, chunked := range []bool{false, true} {
				twice := chunked != (size == 64<<10)
				t.Run(fmt.Sprintf("%d bytes, chunked %t, refused twice %t", size, chunked, twice), func(t *testing.T) {
					rt := bodyTransport(t, w.base)
					if !twice {
						rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
					}
					req := respGet(t, w.url)
					req.Header.Set("X-Want", fmt.Sprint(size, " ", chunked))
					plain, err := bodyDo(t, w.base, req)
					require.NoError(t, err)
					bodyRead(t, plain)
					resp, err := bodyDo(t, rt, req)
					require.NoError(t, err)
					var got []byte
					within(t, bodyPatience, func() { got, err = respRagged(resp.Body) })
					assert.Equal(t, io.EOF, err)
					assert.NoError(t, resp.Body.Close())
					assert.Equal(t, http.StatusUnauthorized, resp.StatusCode)
					assert.True(t, bytes.Equal(content[:size], got), "%d bytes", len(got))
					assert.Equal(t, plain.ContentLength, resp.ContentLength)
					assert.Equal(t, plain.TransferEncoding, resp.TransferEncoding)
					plain.Header.Del("Date")
					resp.Header.Del("Date")
					assert.Equal(t, plain.Header, resp.Header)
					assert.Equal(t, plain.Trailer, resp.Trailer)
					if chunked {
						assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
					}
					o, ok := reauth.OutcomeOf(resp)
					assert.True(t, ok)
					assert.Equal(t, twice, o.Retry.StatusCode != 0)
				})
			}
		}
	})
}

// A 401 that is cut off is handed on cut off, not as if it had ended.
func TestNo401ThatIsCutOffLooksWhole(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "0123456789")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		rt := bodyTransport(t, w.base)
		rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
		resp, err := bodyDo(t, rt, respGet(t, w.url))
		require.NoError(t, err)
		all, err := io.ReadAll(resp.Body)
		assert.Error(t, err)
		assert.Equal(t, "0123456789", string(all))
		assert.NoError(t, resp.Body.Close())
	})
}

// W12.
func TestNo401IsMisreadForTheFormOfItsBody(t *testing.T) {
	zipped := func(s string) string {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		_, _ = zw.Write([]byte(s))
		_ = zw.Close()
		return b.String()
	}
	const quota, dead = `{"error":{"message":"insufficient quota"}}`, `{"error":{"message":"Invalid token"}}`
	tests := []struct {
		name, method, body string
		header             http.Header // of the response
		ask                http.Header // of the request
		status             int         // 401 if a fresh token is no cure
	}{
		{"HEAD", "HEAD", "", nil, nil, 200},
		{"no body", "GET", "", nil, nil, 200},
		{"JSON", "GET", dead, nil, nil, 200},
		{"JSON, quota", "GET", quota, nil, nil, 401},
		{"BOM", "GET", "\ufeff" + dead, nil, nil, 200},
		{"BOM, quota", "GET", "\ufeff" + quota, nil, nil, 401},
		{"HTML page", "GET", "<!doctype html><title>401</title><h1>Authorization Required</h1>", http.Header{"Content-Type": {"text/html"}}, nil, 200},
		{"gzip that net/http unzips", "GET", zipped(dead), http.Header{"Content-Encoding": {"gzip"}}, nil, 200},
		{"gzip that net/http unzips, quota", "GET", zipped(quota), http.Header{"Content-Encoding": {"gzip"}}, nil, 401},
		{"gzip that the caller asked for", "GET", zipped(dead), http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 200},
		{"gzip that the caller asked for, quota", "GET", zipped(quota), http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 401},
		{"no gzip that says it is", "GET", quota, http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 200},
		{"gzip bomb", "GET", zipped(strings.Repeat(" ", 2<<20)), http.Header{"Content-Encoding": {"gzip"}}, http.Header{"Accept-Encoding": {"gzip"}}, 200},
		{"not UTF-8", "GET", "\xff\xfe\x00", nil, nil, 200},
		{"NULs", "GET", strings.Repeat("\x00", 1000), nil, nil, 200},
	}
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				var sends atomic.Int32
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					sends.Add(1)
					if bodyToken(r) == "T1" {
						return
					}
					for k, vv := range tt.header {
						w.Header()[k] = vv
					}
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, tt.body)
				})
				req := respGet(t, w.url)
				req.Method = tt.method
				for k, vv := range tt.ask {
					req.Header[k] = vv
				}
				plain, err := bodyDo(t, w.base, req)
				require.NoError(t, err)
				want := bodyRead(t, plain)
				resp, err := bodyDo(t, bodyTransport(t, w.base), req)
				require.NoError(t, err)
				got := bodyRead(t, resp)
				assert.Equal(t, tt.status, resp.StatusCode)
				if tt.status == 401 {
					assert.Equal(t, want, got)
					assert.Equal(t, plain.Header.Get("Content-Encoding"), resp.Header.Get("Content-Encoding"))
					assert.Equal(t, plain.Uncompressed, resp.Uncompressed)
					assert.EqualValues(t, 2, sends.Load())
				} else {
					assert.EqualValues(t, 3, sends.Load())
				}
				if strings.Contains(tt.body, `{"error"`) && tt.header == nil {
					o, ok := reauth.OutcomeOf(resp)
					assert.True(t, ok)
					assert.Contains(t, []string{"Invalid token", "insufficient quota"}, o.Rejection.Message, "read as JSON")
				}
			})
		}
	})
}

// B9: twenty retries, one dial.
func TestNoConnectionIsWastedOnA401(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, tt := range []struct {
			size    int
			chunked bool
			c       reauth.Classifier
		}{
			{0, false, nil}, {17, true, nil}, {64 << 10, false, nil}, {64 << 10, true, nil}, {64 << 10, true, respByHeader},
		} {
			t.Run(fmt.Sprintf("%d bytes, chunked %t, %T", tt.size, tt.chunked, tt.c), func(t *testing.T) {
				seen := map[string]bool{} // by one connection, so one after another
				var mu sync.Mutex
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					_, _ = io.Copy(io.Discard, r.Body)
					id := r.Header.Get("X-Id")
					if seen[id] {
						return
					}
					seen[id] = true
					if !tt.chunked {
						w.Header().Set("Content-Length", fmt.Sprint(tt.size))
					}
					w.WriteHeader(http.StatusUnauthorized)
					_ = http.NewResponseController(w).Flush()
					_, _ = w.Write(make([]byte, tt.size))
				})
				rt := bodyTransport(t, w.base)
				rt.Classifier = tt.c
				for i := range 20 {
					req := bodyPost(t, w.url, io.NopCloser(strings.NewReader("body")))
					req.Header.Set("X-Id", fmt.Sprint(i))
					resp, err := bodyDo(t, rt, req)
					require.NoError(t, err)
					bodyRead(t, resp)
					require.Equal(t, http.StatusOK, resp.StatusCode)
				}
				assert.EqualValues(t, 1, w.dials.Load(), "dials")
			})
		}
	})
}

// Rule 7: read to its end before the refresh, also by who need not look at it,
// and closed before the retry.
func TestNoRefreshBeginsBeforeThe401IsRead(t *testing.T) {
	for _, c := range []reauth.Classifier{nil, respByHeader, respByBody} {
		t.Run(fmt.Sprintf("%T", c), func(t *testing.T) {
			ended := false
			first := bodyProbing(io.MultiReader(strings.NewReader(bodyOf401), bodyReaderFunc(func([]byte) (int, error) {
				ended = true
				return 0, io.EOF
			})))
			rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if bodyToken(req) == "T0" {
					return respWith(req, 401, first), nil
				}
				assert.EqualValues(t, 1, first.closes.Load(), "the 401 is closed before the retry")
				return answer(req, 200, "fine"), nil
			}))
			rt.Classifier = c
			refreshed := &issuer{do: func(context.Context, int, reauth.Stale) (reauth.Token, error) {
				assert.True(t, ended, "the 401 is read to its end")
				return reauth.Token{AccessToken: "T1"}, nil
			}}
			rt.Credential = holding(t, refreshed, reauth.Token{AccessToken: "T0"})
			resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/"))
			require.NoError(t, err)
			assert.Equal(t, "fine", bodyRead(t, resp))
			assert.EqualValues(t, 1, refreshed.calls.Load())
			assert.EqualValues(t, 1, first.closes.Load(), "closes of the 401")
		})
	}
}

// C14: one connection to the host, on which the issuer is too.
func TestNo401HoldsTheConnectionThatTheRefreshNeeds(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, c := range []reauth.Classifier{nil, respByHeader} {
			for _, upload := range []bool{false, true} {
				t.Run(fmt.Sprintf("%T, upload that blocks %t", c, upload), func(t *testing.T) {
					replayed := make(chan struct{})
					w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
						switch {
						case r.URL.Path == "/token":
							_, _ = io.WriteString(w, "T1")
						case bodyToken(r) == "T0" && upload:
							bodyRejectNow(w, r)
						case bodyToken(r) == "T0":
							w.WriteHeader(http.StatusUnauthorized)
							_, _ = w.Write(make([]byte, 60<<10))
						default:
							close(replayed)
							_, _ = io.Copy(w, r.Body)
						}
					})
					w.base.MaxConnsPerHost = 1
					rt := bodyTransport(t, w.base)
					rt.Classifier = c
					rt.Credential = holding(t, reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
						resp, err := w.base.RoundTrip(respGet(t, w.url+"/token").WithContext(ctx))
						if err != nil {
							return reauth.Token{}, err
						}
						return reauth.Token{AccessToken: bodyRead(t, resp)}, nil
					}), reauth.Token{AccessToken: "T0"})
					req := respGet(t, w.url)
					if upload {
						pr, pw := io.Pipe()
						req = bodyPost(t, w.url, pr)
						go func() {
							_, _ = io.WriteString(pw, "one ")
							<-replayed
							_, _ = io.WriteString(pw, "two")
							_ = pw.Close()
						}()
					}
					resp, err := bodyDo(t, rt, req)
					require.NoError(t, err)
					got := bodyRead(t, resp)
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					if upload {
						assert.Equal(t, "one two", got)
					}
				})
			}
		}
	})
}

// X2: what nobody rejects is what Base returned.
func TestNothingIsChangedOfAResponseThatIsNo401(t *testing.T) {
	for _, c := range []reauth.Classifier{nil, respByHeader} {
		for _, status := range []int{200, 204, 301, 403, 407, 500} {
			t.Run(fmt.Sprintf("%T, %d", c, status), func(t *testing.T) {
				var want *http.Response
				body := bodyProbing(iotest.ErrReader(errBodyBroken))
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					want = respWith(req, status, body)
					return want, nil
				}))
				rt.Classifier = c
				req := respGet(t, "https://api.example.com/")
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				assert.Same(t, want, resp)
				assert.Same(t, body, resp.Body)
				assert.Same(t, req, resp.Request)
				assert.Zero(t, body.closes.Load())
			})
		}
	}
}

// X2: 101 keeps its io.Writer, also after a cure, also where a Classifier looks
// at every body.
func TestNoUpgradeLosesItsWriter(t *testing.T) {
	for _, c := range []reauth.Classifier{nil, respByHeader, respByBody} {
		t.Run(fmt.Sprintf("%T", c), func(t *testing.T) {
			w := bodyServe(t, "HTTP/1.1", func(w http.ResponseWriter, r *http.Request) {
				if bodyToken(r) == "T0" {
					bodyReject(w)
					return
				}
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "echo")
				w.WriteHeader(http.StatusSwitchingProtocols)
				conn, rw, err := http.NewResponseController(w).Hijack()
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				line, _ := rw.ReadString('\n')
				_, _ = conn.Write([]byte(line))
			})
			rt := bodyTransport(t, w.base)
			rt.Classifier = c
			req := respGet(t, w.url)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "echo")
			resp, err := bodyDo(t, rt, req)
			require.NoError(t, err)
			require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
			rw, ok := resp.Body.(io.ReadWriteCloser)
			require.True(t, ok, "%T is no io.Writer", resp.Body)
			_, err = io.WriteString(rw, "hello\n")
			assert.NoError(t, err)
			assert.Equal(t, "hello\n", bodyRead(t, resp))
		})
	}
}

// X2, C11: an event is there when it was sent, before the next one is.
func TestNoEventWaitsForTheNext(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, c := range []reauth.Classifier{nil, respByHeader, respByBody} {
			t.Run(fmt.Sprintf("%T", c), func(t *testing.T) {
				seen := make(chan struct{}, 1)
				w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
					if bodyToken(r) == "T0" {
						bodyReject(w)
						return
					}
					w.Header().Set("Content-Type", "text/event-stream")
					for i := range 5 {
						_, _ = fmt.Fprintf(w, "data: %d\n", i)
						_ = http.NewResponseController(w).Flush()
						select {
						case <-seen:
						case <-r.Context().Done():
							return
						}
					}
				})
				rt := bodyTransport(t, w.base)
				rt.Classifier = c
				resp, err := bodyDo(t, rt, respGet(t, w.url))
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, resp.StatusCode)
				lines := bufio.NewReader(resp.Body)
				within(t, bodyPatience, func() {
					for i := range 5 {
						line, err := lines.ReadString('\n')
						assert.NoError(t, err)
						assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
						seen <- struct{}{}
					}
					_, err := lines.ReadByte()
					assert.Equal(t, io.EOF, err)
				})
				assert.NoError(t, resp.Body.Close())
			})
		}
	})
}

// X2: trailers of a response that was cured; those of a 401 are above.
func TestNoResponseTrailerIsLost(t *testing.T) {
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
			if bodyToken(r) == "T0" {
				bodyReject(w)
				return
			}
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "summed")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set("X-Sum", "42")
		})
		resp, err := bodyDo(t, bodyTransport(t, w.base), respGet(t, w.url))
		require.NoError(t, err)
		assert.Contains(t, resp.Trailer, "X-Sum")
		assert.Equal(t, "summed", bodyRead(t, resp))
		assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
	})
}

// Bad input: a Base that does not keep the contract of http.RoundTripper.
func TestNoCarelessBaseCausesAPanic(t *testing.T) {
	tests := []struct {
		name   string
		base   func(req *http.Request, resp *http.Response) (*http.Response, error)
		first  int
		second int // 0: an error
	}{
		{"neither response nor error", func(*http.Request, *http.Response) (*http.Response, error) { return nil, nil }, 200, 0},
		{"neither response nor error on the retry", func(req *http.Request, resp *http.Response) (*http.Response, error) {
			if bodyToken(req) != "T0" {
				return nil, nil
			}
			return resp, nil
		}, 401, 0},
		{"no Request", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Request = nil
			return resp, nil
		}, 200, 200},
		{"no Request on a 401", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Request = nil
			return resp, nil
		}, 401, 200},
		{"no Body", func(_ *http.Request, resp *http.Response) (*http.Response, error) { resp.Body = nil; return resp, nil }, 200, 200},
		{"no Body on a 401", func(_ *http.Request, resp *http.Response) (*http.Response, error) { resp.Body = nil; return resp, nil }, 401, 200},
		{"no Header on a 401", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Header = nil
			return resp, nil
		}, 401, 200},
		{"nothing but a status", func(_ *http.Request, resp *http.Response) (*http.Response, error) {
			return &http.Response{StatusCode: resp.StatusCode}, nil
		}, 401, 200},
		{"a Request without Header", func(req *http.Request, resp *http.Response) (*http.Response, error) {
			resp.Request = &http.Request{URL: req.URL}
			return resp, nil
		}, 401, 200},
	}
	for _, tt := range tests {
		for _, fails := range []bool{false, true} { // the refresh, so that the 401 is handed on
			t.Run(fmt.Sprintf("%s, refresh fails %t", tt.name, fails), func(t *testing.T) {
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if bodyToken(req) == "T0" {
						return tt.base(req, answer(req, tt.first, ""))
					}
					return tt.base(req, answer(req, 200, ""))
				}))
				want := tt.second
				if fails {
					rt.Credential = holding(t, respFailing(), reauth.Token{AccessToken: "T0"})
					if tt.first == 401 {
						want = 401
					}
				}
				resp, err := rt.RoundTrip(respGet(t, "https://api.example.com/v1"))
				if want == 0 {
					assert.Nil(t, resp)
					assert.ErrorContains(t, err, "roundTripFunc", "it names the Base")
					return
				}
				require.NoError(t, err)
				assert.Equal(t, want, resp.StatusCode)
				require.NotNil(t, resp.Request)
				assert.Equal(t, "https://api.example.com/v1", resp.Request.URL.String())
				assert.Empty(t, resp.Request.Header)
			})
		}
	}
}

// X3.
func TestNoPoolIsClosedUnasked(t *testing.T) {
	base := &respPool{}
	rt := bodyTransport(t, base)
	client := &http.Client{Transport: rt}
	for _, status := range [][]int{{200}, {401, 200}, {401, 401}, {401, 500}, {0}, {401, 0}} {
		require.NoError(t, rt.Credential.Set(context.Background(), reauth.Token{AccessToken: "T0"}))
		base.next = status
		if resp, err := client.Get("https://api.example.com/"); err == nil {
			require.NoError(t, resp.Body.Close())
		}
		require.Empty(t, base.next)
	}
	require.NoError(t, rt.Credential.Shutdown(context.Background()))
	assert.Zero(t, base.closed)
	client.CloseIdleConnections()
	assert.Equal(t, 1, base.closed)

	assert.NotPanics(t, (&reauth.Transport{Base: roundTripFunc(nil)}).CloseIdleConnections)
	assert.NotPanics(t, (&reauth.Transport{Base: (*respPool)(nil)}).CloseIdleConnections, "a nil Base is the request's error")
}

// A respPool is a Base that has idle connections, and a status for each request.
type respPool struct {
	next   []int
	closed int
}

func (p *respPool) RoundTrip(req *http.Request) (*http.Response, error) {
	status := p.next[0]
	if p.next = p.next[1:]; status == 0 {
		return nil, errBodyBroken
	}
	return answer(req, status, ""), nil
}

func (p *respPool) CloseIdleConnections() {
	if p != nil {
		p.closed++
	}
}

// X3 on a socket: the idle connection is gone, and not before.
func TestNoIdleConnectionOutlivesCloseIdleConnections(t *testing.T) {
	w := bodyServe(t, "HTTP/1.1", func(http.ResponseWriter, *http.Request) {})
	client := &http.Client{Transport: bodyTransport(t, w.base)}
	for i, want := range []int32{1, 1, 2} {
		if i == 2 {
			client.CloseIdleConnections()
		}
		resp, err := client.Get(w.url)
		require.NoError(t, err)
		bodyRead(t, resp)
		assert.Equal(t, want, w.dials.Load(), "dials")
	}
}

// S6, S3: a real client with all that reads resp.Request.
func TestNoRedirectCookieOrRefererIsLost(t *testing.T) {
	type seen struct{ method, path, token, cookie, referer, body string }
	bodyEachProtocol(t, func(t *testing.T, proto string) {
		for _, code := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
			for _, dead := range []string{"/start", "/next", "neither"} { // where T0 is found to be dead
				t.Run(fmt.Sprintf("%d, 401 at %s", code, dead), func(t *testing.T) {
					var got []seen
					w := bodyServe(t, proto, func(w http.ResponseWriter, r *http.Request) {
						all, _ := io.ReadAll(r.Body)
						got = append(got, seen{r.Method, r.URL.Path, bodyToken(r), r.Header.Get("Cookie"), r.Header.Get("Referer"), string(all)})
						if bodyToken(r) == "T0" && r.URL.Path == dead {
							bodyReject(w)
							return
						}
						http.SetCookie(w, &http.Cookie{Name: strings.TrimPrefix(r.URL.Path, "/"), Value: "1"})
						if r.URL.Path == "/start" {
							http.Redirect(w, r, "next", code)
						}
					})
					jar, err := cookiejar.New(nil)
					require.NoError(t, err)
					var via []*http.Request
					client := &http.Client{Transport: bodyTransport(t, w.base), Jar: jar, CheckRedirect: func(req *http.Request, before []*http.Request) error {
						via = append(append(via, before...), req)
						return nil
					}}
					req := bodyPost(t, w.url+"/start", strings.NewReader("form"))
					resp, err := client.Do(req)
					require.NoError(t, err)
					bodyRead(t, resp)
					assert.Equal(t, http.StatusOK, resp.StatusCode)

					method, body := "GET", ""
					if code == http.StatusTemporaryRedirect {
						method, body = "POST", "form"
					}
					var want []seen
					token := "T0"
					for _, s := range []seen{{"POST", "/start", "", "", "", "form"}, {method, "/next", "", "start=1", w.url + "/start", body}} {
						if s.token = token; s.path == dead {
							want = append(want, s)
							token, s.token = "T1", "T1"
						}
						want = append(want, s)
					}
					assert.Equal(t, want, got)
					assert.Len(t, jar.Cookies(req.URL), 2)

					assert.Equal(t, "/next", resp.Request.URL.Path)
					assert.Equal(t, method, resp.Request.Method)
					require.NotNil(t, resp.Request.Response)
					assert.Equal(t, code, resp.Request.Response.StatusCode)
					assert.Equal(t, "/start", resp.Request.Response.Request.URL.Path)
					require.Len(t, via, 2)
					assert.Same(t, req, via[0])
					for _, r := range append(via, resp.Request, resp.Request.Response.Request) {
						assert.NotContains(t, r.Header, "Authorization")
					}
				})
			}
		}
	})
}

// S6: who follows redirects himself finds where they lead.
func TestNoRelativeLocationIsLost(t *testing.T) {
	w := bodyServe(t, "HTTP/1.1", func(w http.ResponseWriter, r *http.Request) {
		if bodyToken(r) == "T0" {
			bodyReject(w)
			return
		}
		w.Header().Set("Location", "../next?x=1")
		w.WriteHeader(http.StatusFound)
	})
	req := respGet(t, w.url+"/a/b")
	req.Header.Set("X-Own", "1")
	type key struct{}
	req = req.WithContext(context.WithValue(req.Context(), key{}, "mine"))
	resp, err := bodyDo(t, bodyTransport(t, w.base), req)
	require.NoError(t, err)
	bodyRead(t, resp)
	at, err := resp.Location()
	require.NoError(t, err)
	assert.Equal(t, w.url+"/next?x=1", at.String())
	assert.Equal(t, "mine", resp.Request.Context().Value(key{}), "the caller's context")
	assert.Equal(t, http.Header{"X-Own": {"1"}}, resp.Request.Header)
	assert.Equal(t, http.Header{"X-Own": {"1"}}, req.Header, "the caller's own")
}

// S6: a Base that sends a copy, as most middleware does, shows it without the token.
func TestNoCopyThatBaseSendsShowsTheToken(t *testing.T) {
	for _, tt := range []struct{ header, scheme string }{{"", ""}, {"X-Api-Key", ""}, {"authorization", "Token"}} {
		for _, tokens := range [][]string{{"T0"}, {"T1"}, nil} { // that the server accepts
			t.Run(fmt.Sprint(tt, tokens), func(t *testing.T) {
				var sent []*http.Request
				rt := bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
					out := req.Clone(req.Context())
					out.Header.Set("X-Trace", "7")
					sent = append(sent, out)
					v := out.Header.Get(tt.header) + out.Header.Get("Authorization")
					for _, tok := range tokens {
						if strings.HasSuffix(v, tok) {
							return answer(out, 200, ""), nil
						}
					}
					return answer(out, 401, ""), nil
				}))
				rt.Header, rt.Scheme = tt.header, tt.scheme
				req := respGet(t, "https://api.example.com/")
				req.Header.Set("X-Own", "1")
				resp, err := rt.RoundTrip(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.Equal(t, http.Header{"X-Own": {"1"}}, resp.Request.Header, "rule 8: it is the caller's request")
				for _, out := range sent {
					assert.Len(t, out.Header, 3, "what Base keeps is as it was sent")
				}
			})
		}
	}
}

// S6: http.Client.Timeout covers the body of a retried response as well.
func TestNoTimeoutIsForgottenAfterARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Timeout: time.Minute, Transport: bodyTransport(t, roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if bodyToken(req) == "T0" {
				return answer(req, 401, ""), nil
			}
			ctx := req.Context()
			return respWith(req, 200, bodyProbing(bodyReaderFunc(func([]byte) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}))), nil
		}))}
		start := time.Now()
		resp, err := client.Get("https://api.example.com/")
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, resp.Body.Close())
	})
}
