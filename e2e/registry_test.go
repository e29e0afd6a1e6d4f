package e2e_test

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/classifier"
	"github.com/reauth-go/reauth/refresher"
)

// A tokenServer stands in for the authorization service of a registry, which is
// no part of distribution: it grants whatever is asked for, in tokens as
// distribution's docs/spec/auth/jwt.md wants them.
type tokenServer struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	cert []byte

	mu       sync.Mutex
	asked    [][]string    // the scopes of each request
	lifetime time.Duration // of the tokens, as the registry sees it
	refused  bool          // hand out tokens that the registry does not take
}

const registryPassword = "the-registry's-password"

// leeway is how long distribution takes a token after its expiry.
const leeway = time.Minute

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	s := &tokenServer{lifetime: time.Hour}
	s.key, s.cert = signer(t)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// signer returns a key and its certificate.
func signer(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return key, cert
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, password, _ := r.BasicAuth(); password != registryPassword {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	scopes := r.URL.Query()["scope"]
	s.asked = append(s.asked, scopes)
	lifetime, refused := s.lifetime, s.refused
	s.mu.Unlock()
	service := r.URL.Query().Get("service")
	if refused {
		service = "another"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": s.sign(s.key, s.cert, service, lifetime, scopes...), "expires_in": lifetime.Seconds()})
}

// sign makes a token for the scopes, such as "repository:team/app:pull,push".
func (s *tokenServer) sign(key *ecdsa.PrivateKey, cert []byte, service string, lifetime time.Duration, scopes ...string) string {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		where, actions, _ := strings.Cut(rest, ":")
		granted = append(granted, access{kind, where, strings.Split(actions, ",")})
	}
	now := time.Now()
	end := now.Add(lifetime - leeway + time.Second) // of which the fraction is cut off
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "issuer", "sub": "ann", "aud": service, "jti": rand.Text(), "access": granted,
		"nbf": now.Add(-time.Hour).Unix(), "iat": now.Unix(), "exp": end.Unix(),
	})
	tok.Header["x5c"] = []string{base64.StdEncoding.EncodeToString(cert)}
	signed, err := tok.SignedString(key)
	if err != nil {
		panic(err)
	}
	return signed
}

// requests returns the scopes of all token requests.
func (s *tokenServer) requests() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *tokenServer) set(lifetime time.Duration, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifetime, s.refused = lifetime, refused
}

// get asks for a token, as a user's Refresher does.
func (s *tokenServer) get(ctx context.Context, scopes ...string) (reauth.Token, error) {
	q := url.Values{"service": {"registry"}, "scope": scopes}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/token?"+q.Encode(), nil)
	if err != nil {
		return reauth.Token{}, err
	}
	req.SetBasicAuth("ann", registryPassword)
	resp, err := s.Client().Do(req)
	if err != nil {
		return reauth.Token{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return reauth.Token{}, fmt.Errorf("token server: %s", resp.Status)
	}
	var answer struct {
		Token   string  `json:"token"`
		Expires float64 `json:"expires_in"`
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return reauth.Token{AccessToken: answer.Token, Expiry: time.Now().Add(time.Duration(answer.Expires * float64(time.Second)))}, err
}

// fixed is the Refresher of one who knows what he needs.
func (s *tokenServer) fixed(scopes ...string) reauth.Refresher {
	return reauth.RefresherFunc(func(ctx context.Context, _ reauth.Stale) (reauth.Token, error) {
		return s.get(ctx, scopes...)
	})
}

// startRegistry starts distribution's registry of Debian, which takes the
// tokens of issuer, and returns its address.
func startRegistry(t *testing.T, issuer *tokenServer) string {
	t.Helper()
	dir := t.TempDir()
	bundle, config := filepath.Join(dir, "issuer.pem"), filepath.Join(dir, "config.yml")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.cert})
	require.NoError(t, os.WriteFile(bundle, block, 0o600))
	// A host that is an address would keep go-containerregistry from asking.
	realm := strings.Replace(issuer.URL, "127.0.0.1", "localhost", 1) + "/token"
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
storage: {inmemory: {}}
http: {addr: "127.0.0.1:0"}
auth: {token: {realm: %q, service: registry, issuer: issuer, rootcertbundle: %q}}
`, realm, bundle), 0o600))
	d := startDaemon(t, "docker-registry", "docker-registry", "serve", config)
	address := d.says(t, `listening on (127\.0\.0\.1:\d+)`)
	require.NotEmpty(t, address)
	d.answers(t, "http://"+address+"/v2/")
	return address
}

// A mishap puts a token in force that the registry refuses, before the first
// request of a kind. So it is known which request meets it.
type mishap struct {
	*reauth.Transport
	dead string
	at   func(*http.Request) bool
	once sync.Once
}

func (m *mishap) RoundTrip(req *http.Request) (*http.Response, error) {
	if m.at(req) {
		m.once.Do(func() {
			if err := m.Credential.Set(req.Context(), reauth.Token{AccessToken: m.dead}); err != nil {
				panic(err)
			}
		})
	}
	return m.Transport.RoundTrip(req)
}

// onRegistry returns a Transport for the registry alone, and what goes over it.
// go-containerregistry tries https first where a registry is on loopback.
func onRegistry(t *testing.T, address string, refresher reauth.Refresher) (*reauth.Transport, *ledger) {
	t.Helper()
	wire := &ledger{}
	t.Cleanup(wire.CloseIdleConnections)
	return &reauth.Transport{
		Base: wire, Origins: []string{"http://" + address}, Logger: discard,
		Credential: &reauth.Credential{Refresher: refresher, Logger: discard},
	}, wire
}

func tagOf(t *testing.T, address, repository string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(address + "/" + repository + ":v1")
	require.NoError(t, err)
	return tag
}

func layers(t *testing.T, n int, size int64) v1.Image {
	t.Helper()
	img, err := random.Image(size, int64(n))
	require.NoError(t, err)
	return img
}

// sends is how many requests it takes to push an image with so many layers: the
// ping, HEAD and PUT of the manifest, and HEAD, POST, PATCH and PUT of each layer
// and of the configuration.
func sends(layers int) int { return 3 + 4*(layers+1) }

// Whichever request of a push is the one that finds out, and whatever
// is the matter with the token.
func TestNoRequestOfAPushIsLostToADeadToken(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	key, cert := signer(t)
	for _, dies := range []struct {
		name, method, path string
		size               int64
	}{
		{"the ping", "GET", "/v2/", 1 << 10},
		{"looking for the manifest", "HEAD", "/manifests/", 1 << 10},
		{"looking for a layer", "HEAD", "/blobs/", 1 << 10},
		{"beginning an upload", "POST", "/uploads/", 1 << 10},
		{"the upload", "PATCH", "/uploads/", 2 << 20},
		{"ending an upload", "PUT", "/uploads/", 1 << 10},
		{"the manifest", "PUT", "/manifests/", 1 << 10},
	} {
		for _, of := range []struct {
			name string
			dead func(scope string) string
		}{
			{"another key", func(scope string) string { return issuer.sign(key, cert, "registry", time.Hour, scope) }},
			{"another audience", func(scope string) string { return issuer.sign(issuer.key, issuer.cert, "another", time.Hour, scope) }},
			{"its age", func(scope string) string {
				return issuer.sign(issuer.key, issuer.cert, "registry", -time.Minute, scope)
			}},
		} {
			t.Run(dies.name+" of "+of.name, func(t *testing.T) {
				tag := tagOf(t, address, strings.ToLower(rand.Text()))
				scope := tag.Scope("pull,push")
				rt, wire := onRegistry(t, address, issuer.fixed(scope))
				before := len(issuer.requests())
				img := layers(t, 2, dies.size)
				through := &mishap{Transport: rt, dead: of.dead(scope), at: func(req *http.Request) bool {
					return req.Method == dies.method && strings.Contains(req.URL.Path, dies.path) && req.URL.Scheme == "http"
				}}
				require.NoError(t, remote.Write(tag, img, remote.WithTransport(through), remote.WithJobs(1)))
				assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
				assert.Equal(t, sends(2)+1, wire.count("", 0))
				asked := 2
				if dies.path == "/v2/" { // no token was needed before
					asked = 1
				}
				assert.Len(t, issuer.requests(), before+asked)

				got, err := remote.Image(tag, remote.WithTransport(rt))
				require.NoError(t, err)
				require.NoError(t, validate.Image(got), "every digest is right")
				want, err := img.Digest()
				require.NoError(t, err)
				digest, err := got.Digest()
				require.NoError(t, err)
				assert.Equal(t, want, digest)
				assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
			})
		}
	}
}

// A push has four uploads at a time.
func TestTheUploadsOfAPushShareOneRefresh(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	tag := tagOf(t, address, "team/app")
	rt, wire := onRegistry(t, address, issuer.fixed(tag.Scope("pull,push")))
	img := layers(t, 8, 1<<20)
	key, cert := signer(t)
	through := &mishap{Transport: rt, dead: issuer.sign(key, cert, "registry", time.Hour), at: func(req *http.Request) bool {
		return req.Method == http.MethodPatch
	}}
	require.NoError(t, remote.Write(tag, img, remote.WithTransport(through)))
	rejected := wire.count("", http.StatusUnauthorized)
	assert.GreaterOrEqual(t, rejected, 1)
	assert.LessOrEqual(t, rejected, 4)
	assert.Equal(t, sends(8)+rejected, wire.count("", 0))
	assert.Len(t, issuer.requests(), 2)

	through = &mishap{Transport: rt, dead: issuer.sign(key, cert, "registry", time.Hour), at: func(req *http.Request) bool {
		return strings.Contains(req.URL.Path, "/blobs/")
	}}
	wire.reset()
	got, err := remote.Image(tag, remote.WithTransport(through))
	require.NoError(t, err)
	require.NoError(t, validate.Image(got), "no layer is cut short")
	assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
	assert.Len(t, issuer.requests(), 3)
	tags, err := remote.List(tag.Context(), remote.WithTransport(rt))
	require.NoError(t, err)
	assert.Equal(t, []string{"v1"}, tags)
	assert.Len(t, issuer.requests(), 3)
}

// The registry says itself where its tokens are from, and what they have to be good for.
func TestARegistryNeedsNoScopeInAdvance(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	rt, wire := onRegistry(t, address, &refresher.Registry{Username: "ann", Password: registryPassword})
	rt.Anonymous = true
	rt.Classifier = classifier.Chain(classifier.Registry(), reauth.DefaultClassifier())
	for n, repository := range []string{"team/app", "team/other"} {
		tag := tagOf(t, address, repository)
		img := layers(t, 4, 1<<10)
		require.NoError(t, remote.Write(tag, img, remote.WithTransport(rt), remote.WithJobs(1)))
		got, err := remote.Image(tag, remote.WithTransport(rt))
		require.NoError(t, err)
		require.NoError(t, validate.Image(got))
		assert.LessOrEqual(t, len(issuer.requests()), 1+2*(n+1), "the ping, and for each repository to pull and to push")
	}
	scopes := issuer.requests()[len(issuer.requests())-1]
	assert.ElementsMatch(t, []string{"repository:team/app:pull,push", "repository:team/other:pull,push"}, sortedActions(scopes), "all of them together")

	wire.reset()
	for _, repository := range []string{"team/app", "team/other", "team/app"} { // by turns
		_, err := remote.List(tagOf(t, address, repository).Context(), remote.WithTransport(rt))
		require.NoError(t, err)
	}
	assert.Zero(t, wire.count("", http.StatusUnauthorized))
}

// sortedActions returns scopes with the actions of each in order.
func sortedActions(scopes []string) (all []string) {
	for _, s := range scopes {
		i := strings.LastIndexByte(s, ':') + 1
		actions := strings.Split(s[i:], ",")
		slices.Sort(actions)
		all = append(all, s[:i]+strings.Join(actions, ","))
	}
	return all
}

// Nobody waits for an expiry: the callers go on until there were three.
func TestNobodySeesARegistryTokenExpire(t *testing.T) {
	for lifetime, told := range map[time.Duration]bool{4 * time.Second: true, 6 * time.Second: false} {
		t.Run(fmt.Sprintf("told=%t", told), func(t *testing.T) {
			issuer := newTokenServer(t)
			issuer.set(lifetime, false)
			address := startRegistry(t, issuer)
			tag := tagOf(t, address, "team/app")
			fixed := issuer.fixed(tag.Scope("pull,push"))
			rt, wire := onRegistry(t, address, reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
				tok, err := fixed.Refresh(ctx, stale)
				if !told {
					tok.Expiry = time.Time{}
				}
				return tok, err
			}))
			require.NoError(t, remote.Write(tag, layers(t, 1, 1<<10), remote.WithTransport(rt)))
			pulls := 0
			within(t, time.Minute, func() {
				for ; len(issuer.requests()) < 3 && !t.Failed(); pulls++ {
					got, err := remote.Image(tag, remote.WithTransport(rt))
					if assert.NoError(t, err) {
						assert.NoError(t, validate.Image(got))
					}
				}
			})
			met := wire.count("", http.StatusUnauthorized)
			t.Logf("%d pulls, %d sends, %d 401s met", pulls, wire.count("", 0), met)
			if told {
				assert.Zero(t, met, "each is replaced in good time")
			} else {
				assert.Equal(t, 2, met, "one for each expiry")
			}
		})
	}
}

// One who may only pull is not helped by another token to pull.
func TestAMissingScopeCostsNeitherARefreshNorARetry(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	tag := tagOf(t, address, "team/app")
	rt, wire := onRegistry(t, address, issuer.fixed(tag.Scope("pull")))
	err := remote.Write(tag, layers(t, 1, 1<<10), remote.WithTransport(rt), remote.WithJobs(1))
	var refusal *transport.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, http.StatusUnauthorized, refusal.StatusCode)
	assert.Equal(t, 1, wire.count("POST", 0))
	assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
	assert.Len(t, issuer.requests(), 1)

	// go-containerregistry's error shows no response, but its request has all.
	o, ok := reauth.OutcomeOf(&http.Response{Request: refusal.Request})
	require.True(t, ok)
	assert.Equal(t, reauth.ReasonInsufficientScope, o.Rejection.Reason)
	assert.Equal(t, reauth.NotRetriedReason, o.NotRetried)
}

// scopeIsAClaim is the Classifier of one whose Refresher gets the scope that a
// registry asks for. As a claim that has a name, one scope is not taken for another
// that is being fetched at the same time.
func scopeIsAClaim(resp *http.Response, body func() []byte) reauth.Rejection {
	rej := reauth.DefaultClassifier().Classify(resp, body)
	if rej.Reason == reauth.ReasonInsufficientScope {
		rej.Reason = reauth.ReasonClaims
		for _, c := range rej.Challenges {
			if c.Params["scope"] != "" {
				c.Params["claims"] = c.Params["scope"]
			}
		}
	}
	return rej
}

func TestARefresherGetsTheScopeThatTheRegistryAsksFor(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	tag := tagOf(t, address, "team/app")
	rt, wire := onRegistry(t, address, reauth.RefresherFunc(func(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
		var scopes []string
		for _, challenge := range stale.Rejection.Challenges {
			if scope := challenge.Params["scope"]; scope != "" {
				// A push begins by looking, for which the scope is to pull.
				scopes = append(scopes, strings.TrimSuffix(scope, ",push")+",push")
			}
		}
		return issuer.get(ctx, scopes...)
	}))
	rt.Classifier = reauth.ClassifierFunc(scopeIsAClaim)
	require.NoError(t, remote.Write(tag, layers(t, 2, 1<<10), remote.WithTransport(rt)))
	assert.Equal(t, [][]string{nil, {tag.Scope("pull,push")}}, issuer.requests())
	assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
	assert.Equal(t, sends(2)+1, wire.count("", 0))
}

// A registry's token is for one repository, so each has a Credential of its own.
func TestNoRepositoryWaitsForTheTokenOfAnother(t *testing.T) {
	const repositories = 8
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	rt, wire := onRegistry(t, address, nil)
	var mu sync.Mutex
	creds := map[string]*reauth.Credential{}
	rt.CredentialFor = func(req *http.Request) (*reauth.Credential, error) {
		var scopes []string
		repository := strings.TrimPrefix(req.URL.Path, "/v2/") // "": the ping
		for _, end := range []string{"/blobs/", "/manifests/", "/tags/"} {
			repository, _, _ = strings.Cut(repository, end)
		}
		if repository != "" {
			scopes = []string{"repository:" + repository + ":pull,push"}
		}
		mu.Lock()
		defer mu.Unlock()
		if creds[repository] == nil {
			creds[repository] = &reauth.Credential{Refresher: issuer.fixed(scopes...), Logger: discard}
		}
		return creds[repository], nil
	}
	var wg sync.WaitGroup
	for i := range repositories {
		wg.Go(func() {
			tag, err := name.NewTag(fmt.Sprintf("%s/team/app%d:v1", address, i))
			assert.NoError(t, err)
			img, err := random.Image(1<<10, 1)
			assert.NoError(t, err)
			assert.NoError(t, remote.Write(tag, img, remote.WithTransport(rt)))
		})
	}
	wg.Wait()
	assert.Equal(t, repositories*sends(1), wire.count("", 0))
	assert.Zero(t, wire.count("", http.StatusUnauthorized))
	assert.Len(t, issuer.requests(), repositories+1)
}

// A stream has no GetBody, and what the registry took of it is gone.
func TestAStreamedLayerArrivesWholeOrNotAtAll(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	key, cert := signer(t)
	for _, test := range []struct {
		name       string
		size, keep int64
		whole      bool // for certain; else it depends on how soon the registry answers
	}{
		{"less than is kept", 512 << 10, 0, true},
		{"as much is kept as it takes", 8 << 20, 16 << 20, true},
		{"nothing is kept", 8 << 20, -1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			tag := tagOf(t, address, strings.ToLower(rand.Text()))
			rt, wire := onRegistry(t, address, issuer.fixed(tag.Scope("pull,push")))
			rt.MaxReplayBytes = test.keep
			content := io.NopCloser(io.LimitReader(rand.Reader, test.size))
			layer := stream.NewLayer(content, stream.WithCompressionLevel(gzip.NoCompression))
			through := &mishap{Transport: rt, dead: issuer.sign(key, cert, "registry", time.Hour), at: func(req *http.Request) bool {
				return req.Method == http.MethodPatch
			}}
			ctx, outcome := reauth.WithOutcome(t.Context())
			err := remote.WriteLayer(tag.Context(), layer, remote.WithTransport(through), remote.WithContext(ctx))
			assert.Equal(t, 1, wire.count("", http.StatusUnauthorized))
			if !test.whole && err != nil {
				t.Log(err)
				var refusal *transport.Error
				require.ErrorAs(t, err, &refusal)
				assert.Equal(t, http.StatusUnauthorized, refusal.StatusCode)
				assert.Equal(t, reauth.NotRetriedBodyTooLarge, outcome().NotRetried)
				assert.Equal(t, 1, wire.count("PATCH", 0))
				assert.Zero(t, wire.count("PUT", 0), "half a layer is not committed")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, 2, wire.count("PATCH", 0))
			digest, err := layer.Digest()
			require.NoError(t, err)
			stored, err := remote.Layer(tag.Context().Digest(digest.String()), remote.WithTransport(rt))
			require.NoError(t, err)
			compressed, err := stored.Compressed()
			require.NoError(t, err)
			defer compressed.Close()
			content, err = gzip.NewReader(compressed)
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, content)
			require.NoError(t, err, "the digest is right")
			assert.Equal(t, test.size, n)
		})
	}
}

// Go-containerregistry goes on to ask for a token by itself, anonymously,
// if it is refused at the first request; later it does not.
func TestATokenThatIsRefusedForGoodIsSentTwice(t *testing.T) {
	issuer := newTokenServer(t)
	address := startRegistry(t, issuer)
	tag := tagOf(t, address, "team/app")
	img := layers(t, 1, 1<<10)
	var refusal *transport.Error

	rt, wire := onRegistry(t, address, issuer.fixed(tag.Scope("pull,push")))
	key, cert := signer(t)
	through := &mishap{Transport: rt, dead: issuer.sign(key, cert, "registry", time.Hour), at: func(req *http.Request) bool {
		if req.Method != http.MethodPost {
			return false
		}
		issuer.set(time.Hour, true)
		return true
	}}
	require.ErrorAs(t, remote.Write(tag, img, remote.WithTransport(through), remote.WithJobs(1)), &refusal)
	assert.Equal(t, http.StatusUnauthorized, refusal.StatusCode)
	assert.Equal(t, "/v2/team/app/blobs/uploads/", refusal.Request.URL.Path)
	assert.Equal(t, 2, wire.count("POST", 0))
	assert.Equal(t, 2, wire.count("", http.StatusUnauthorized))
	assert.Len(t, issuer.requests(), 2)
	o, ok := reauth.OutcomeOf(&http.Response{Request: refusal.Request})
	require.True(t, ok)
	assert.Equal(t, http.StatusUnauthorized, o.Retry.StatusCode)
	assert.Empty(t, refusal.Request.Header.Get("Authorization"))

	rt, wire = onRegistry(t, address, issuer.fixed(tag.Scope("pull,push")))
	require.ErrorAs(t, remote.Write(tag, img, remote.WithTransport(rt), remote.WithJobs(1)), &refusal)
	assert.Equal(t, "/token", refusal.Request.URL.Path)
	assert.Equal(t, 2, wire.count("", http.StatusUnauthorized, "/v2/"))
	assert.Equal(t, 1, wire.count("", 0, "/token"))
	assert.Equal(t, 3, wire.count("", 0))
	for _, e := range wire.entries {
		if e.path == "/token" {
			assert.Empty(t, e.authorization, "the token stays with the registry")
		}
	}
}
