package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
	_ "modernc.org/sqlite"

	"github.com/reauth-go/reauth"
	"github.com/reauth-go/reauth/e2e/internal/servers"
	"github.com/reauth-go/reauth/refresher"
	"github.com/reauth-go/reauth/store"
	"github.com/reauth-go/reauth/store/etcd"
	"github.com/reauth-go/reauth/store/file"
	"github.com/reauth-go/reauth/store/redis"
)

// What a process is told in its environment.
const (
	roleVar    = "LAB_STORE"
	atVar      = "LAB_AT"
	urlVar     = "LAB_URL"
	reuseVar   = "LAB_REUSE"
	processVar = "LAB_PROCESS"
	loginVar   = "LAB_LOGIN"
)

// client is one of the processes.
func client() {
	log.SetFlags(0)
	api := os.Getenv(urlVar)
	reuse, err := time.ParseDuration(os.Getenv(reuseVar))
	if err != nil {
		log.Fatal(err)
	}
	issuer := &refresher.OAuth2{
		Config: oauth2.Config{ClientID: "lab", Endpoint: oauth2.Endpoint{TokenURL: api + "/token", AuthStyle: oauth2.AuthStyleInParams}},
		Reuse:  reuse,
		Base:   named{&http.Transport{DisableKeepAlives: true}},
	}
	cred := &reauth.Credential{Refresher: issuer, Logger: slog.New(slog.DiscardHandler)}
	var login func(ctx context.Context)
	switch kind := os.Getenv(roleVar); kind {
	case "none":
		login = func(ctx context.Context) { _ = cred.Set(ctx, reauth.Token{RefreshToken: currentLogin(api)}) }
	case "reread":
		cred.Refresher = &reread{issuer, os.Getenv(atVar)}
		login = func(ctx context.Context) {
			rt := currentLogin(api)
			_ = os.WriteFile(os.Getenv(atVar), []byte(rt), 0o600)
			_ = cred.Set(ctx, reauth.Token{RefreshToken: rt})
		}
	default:
		cred.Store = open(kind, os.Getenv(atVar))
		login = func(ctx context.Context) {
			if err := cred.Set(ctx, reauth.Token{RefreshToken: currentLogin(api)}); err != nil {
				log.Printf("login: %v", err)
			}
		}
	}
	if os.Getenv(loginVar) != "" {
		login(context.Background())
		return
	}
	if cred.Store == nil {
		login(context.Background()) // each process begins with what it was configured with
	}
	w := &worker{cred: cred, api: api, login: login}
	w.client = &http.Client{Transport: &reauth.Transport{Credential: cred, Origins: []string{api}, Logger: slog.New(slog.DiscardHandler)}}
	w.run()
}

// open opens a Store.
func open(kind, at string) reauth.Store {
	switch kind {
	case "file":
		return file.Open(at)
	case "sqlite":
		db, err := sql.Open("sqlite", sqliteURL(at))
		if err != nil {
			log.Fatal(err)
		}
		return store.SQL(db, store.SQLite, "reauth", "login")
	case "postgresql":
		db, err := sql.Open("pgx", servers.PostgreSQLURL(at))
		if err != nil {
			log.Fatal(err)
		}
		return store.SQL(db, store.PostgreSQL, "reauth", "login")
	case "redis":
		return redis.New(goredis.NewClient(&goredis.Options{Addr: at}), "login", redis.Options{})
	case "etcd":
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{at}, Logger: zap.NewNop()})
		if err != nil {
			log.Fatal(err)
		}
		return etcd.New(c, "login")
	}
	log.Fatalf("there is no store %q", kind)
	return nil
}

func sqliteURL(path string) string {
	return "file:" + path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
}

func makeSQLite(path string) error {
	db, err := sql.Open("sqlite", sqliteURL(path))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(servers.CreateTable)
	return err
}

// named tells the issuer which process asks, so that it can be killed.
type named struct{ base http.RoundTripper }

func (n named) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("X-Lab-Process", os.Getenv(processVar))
	return n.base.RoundTrip(req)
}

// A reread is what people write who have no Store: the refresh token is read from a file
// before each refresh, and written to it after.
type reread struct {
	issuer reauth.Refresher
	path   string
}

func (r *reread) Refresh(ctx context.Context, stale reauth.Stale) (reauth.Token, error) {
	if b, err := os.ReadFile(r.path); err == nil {
		stale.Token.RefreshToken = string(b)
	}
	tok, err := r.issuer.Refresh(ctx, stale)
	if err == nil {
		err = os.WriteFile(r.path, []byte(tok.RefreshToken), 0o600)
	}
	return tok, err
}

// currentLogin is what a user would do: log in again, if the login was lost.
func currentLogin(api string) string {
	resp, err := http.Get(api + "/login")
	if err != nil {
		return "none"
	}
	defer resp.Body.Close()
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	_ = json.NewDecoder(resp.Body).Decode(&answer)
	return answer.RefreshToken
}

// A worker sends requests.
type worker struct {
	cred             *reauth.Credential
	client           *http.Client
	api              string
	login            func(context.Context)
	stops            atomic.Int64
	requests, failed atomic.Int64
	logins           sync.Mutex
}

func (w *worker) run() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	go w.noticeStops(ctx)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				w.call(ctx)
				time.Sleep(callerPause)
			}
		})
	}
	report := time.NewTicker(200 * time.Millisecond)
	defer report.Stop()
	for ctx.Err() == nil {
		select {
		case <-report.C:
		case <-ctx.Done():
		}
		fmt.Println(w.requests.Swap(0), w.failed.Swap(0))
	}
	all.Wait()
	fmt.Println(w.requests.Swap(0), w.failed.Swap(0))
	end, cancelEnd := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancelEnd()
	_ = w.cred.Shutdown(end)
}

// noticeStops counts how often the process was stopped: its clock jumped.
func (w *worker) noticeStops(ctx context.Context) {
	for last := time.Now(); ctx.Err() == nil; last = time.Now() {
		time.Sleep(50 * time.Millisecond)
		if time.Since(last) > 3*time.Second {
			w.stops.Add(1)
		}
	}
}

// call is one request of a caller that is in no hurry: if there is no token, it tries again
// when the error says, until callerWait has passed. A call during which the process was
// stopped does not count, nor one that was under way at the end.
func (w *worker) call(outer context.Context) {
	before := w.stops.Load()
	ctx, cancel := context.WithTimeout(context.Background(), callerWait)
	defer cancel()
	ok := false
	for !ok && ctx.Err() == nil && outer.Err() == nil {
		var wait time.Duration
		var err error
		if ok, wait, err = w.send(ctx); isPermanent(err) {
			break
		}
		if !ok {
			time.Sleep(max(wait, 100*time.Millisecond)) // also for noticeStops
		}
	}
	if outer.Err() != nil || w.stops.Load() != before {
		return
	}
	w.requests.Add(1)
	if ok {
		return
	}
	w.failed.Add(1)
	if _, err := w.cred.Current(); isPermanent(err) {
		w.logins.Lock()
		defer w.logins.Unlock()
		if _, err := w.cred.Current(); isPermanent(err) {
			w.login(context.Background())
		}
	}
}

// send sends a request, and returns whether it succeeded, or when to try again.
func (w *worker) send(ctx context.Context) (ok bool, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.api+"/api", nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return true, 0, nil
		}
		o, _ := reauth.OutcomeOf(resp)
		err = o.Err
	}
	var failure *reauth.RefreshError
	if errors.As(err, &failure) {
		wait = failure.RetryAfter()
	}
	if os.Getenv("LAB_VERBOSE") != "" {
		fmt.Fprintln(os.Stderr, os.Getenv(processVar), err)
	}
	return false, wait, err
}

// isPermanent reports whether the login has ended.
func isPermanent(err error) bool {
	var failure *reauth.RefreshError
	return errors.As(err, &failure) && failure.Permanent()
}
