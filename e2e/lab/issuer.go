package main

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	crand "crypto/rand"
)

// An issuer replaces the refresh token with each use. Within its grace period the one
// before may come back, and the one that was granted for it is then of no more use. Any
// other that comes back ends the login, as RFC 9700 §4.14.2 has it.
type issuer struct {
	grace time.Duration

	mu       sync.Mutex
	login    int
	current  string               // refresh token, which was not used
	before   string               // the one that current was granted for
	usedAt   time.Time            // when before was first used
	known    map[string]int       // refresh tokens that were ever current, by their login
	access   map[string]time.Time // access tokens, by their end
	troubled map[string]bool      // refresh tokens that had their trouble
	first    string               // the refresh token that the login began with
	ended    bool
	closed   bool
	result   result

	kill func(process string)
	stop func(process string)
}

func newIssuer(grace time.Duration) *issuer {
	i := &issuer{grace: grace, known: map[string]int{}, access: map[string]time.Time{}, troubled: map[string]bool{}}
	i.logInLocked()
	return i
}

func (i *issuer) logInLocked() {
	i.login++
	i.first = crand.Text()
	i.current, i.before, i.ended = i.first, "", false
	i.known[i.first] = i.login
}

// loginHandler is how a user logs in again: it returns the refresh token of the login,
// a new one if the last was lost.
func (i *issuer) loginHandler(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		i.logInLocked()
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"login": i.login, "refresh_token": i.first})
}

// api answers 200 to a valid token.
func (i *issuer) api(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if end, ok := i.access[token]; !ok || time.Now().After(end) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (i *issuer) revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.access)
}

// A trouble befalls a refresh.
type trouble int

const (
	none trouble = iota
	killBefore
	killAfter
	stopAfter
	loseAnswer
	lateAnswer
	troubles
)

// token is the token endpoint.
func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	refreshToken, process := r.FormValue("refresh_token"), r.Header.Get("X-Lab-Process")
	befalls := i.troubleOf(refreshToken)
	if befalls == killBefore {
		i.kill(process)
		return
	}
	status, answer := i.grant(refreshToken)
	if status == http.StatusOK {
		switch befalls {
		case killAfter:
			i.kill(process)
			return
		case stopAfter:
			i.stop(process)
		case loseAnswer:
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
			return
		case lateAnswer:
			time.Sleep(late)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// troubleOf draws what befalls the first use of a refresh token.
func (i *issuer) troubleOf(refreshToken string) trouble {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.result.asked++
	if i.closed || i.troubled[refreshToken] || i.current != refreshToken {
		return none
	}
	i.troubled[refreshToken] = true
	befalls := trouble(1 + rand.N(oneIn))
	switch befalls {
	case killBefore, killAfter:
		i.result.killed++
	case stopAfter:
		i.result.stopped++
	case loseAnswer:
		i.result.answersLost++
	case lateAnswer:
		i.result.late++
	}
	if befalls >= troubles {
		return none
	}
	return befalls
}

// grant is the refresh token grant (RFC 6749 §6).
func (i *issuer) grant(refreshToken string) (status int, answer any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	again := refreshToken == i.before && time.Since(i.usedAt) <= i.grace
	if i.ended || refreshToken != i.current && !again {
		if !i.ended && i.known[refreshToken] == i.login && !i.closed {
			i.result.lost++
			i.ended = true
			clear(i.access)
		}
		return http.StatusBadRequest, map[string]string{"error": "invalid_grant"}
	}
	if !again {
		i.before, i.usedAt = refreshToken, time.Now()
	}
	i.result.grants++
	access, next := crand.Text(), crand.Text()
	i.current, i.known[next] = next, i.login
	i.access[access] = time.Now().Add(lifetime)
	return http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(lifetime.Seconds()), "refresh_token": next}
}

// close ends all trouble, and returns the result.
func (i *issuer) close() result {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	return i.result
}
