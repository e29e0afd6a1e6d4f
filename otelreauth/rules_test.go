package otelreauth_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"

	"github.com/reauth-go/reauth"
)

// promtool runs promtool on a file of the rules.
func promtool(t *testing.T, args ...string) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = "prometheus"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

func TestRulesAreValid(t *testing.T) { promtool(t, "check", "rules", "--lint-fatal", "rules.yml") }

func TestRulesFireWhenTheyShould(t *testing.T) { promtool(t, "test", "rules", "rules_test.yml") }

// scrape returns the label values of what the exporter prints, by metric and label.
func scrape(t *testing.T) map[string]map[string][]string {
	registry := prometheus.NewRegistry()
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	require.NoError(t, err)
	f := exportEverything(t, reader)
	for _, failure := range []error{errors.New("refused"), reauth.Permanent(errors.New("refused"))} {
		cred := &reauth.Credential{Logger: discard, Refresher: reauth.RefresherFunc(func(context.Context, reauth.Stale) (reauth.Token, error) {
			return reauth.Token{}, failure
		})}
		require.NoError(t, f.InstrumentCredential(cred))
		tok := reauth.Token{AccessToken: "rejected", Expiry: time.Now().Add(time.Hour)}
		require.NoError(t, cred.Set(t.Context(), tok))
		_, err := cred.Refresh(t.Context(), reauth.Stale{Token: tok, Rejection: reauth.Rejection{Reason: reauth.ReasonRevoked}})
		require.Error(t, err)
		defer runtime.KeepAlive(cred)
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	metrics := map[string]map[string][]string{}
	for _, sample := range regexp.MustCompile(`(?m)^(\w+)\{(.*)\} \S+$`).FindAllStringSubmatch(page.Body.String(), -1) {
		if metrics[sample[1]] == nil {
			metrics[sample[1]] = map[string][]string{}
		}
		for _, label := range labels(sample[2]) {
			metrics[sample[1]][label[0]] = append(metrics[sample[1]][label[0]], label[1])
		}
	}
	return metrics
}

// labels returns the names and values of labels, or of matchers.
func labels(s string) [][2]string {
	var all [][2]string
	for _, m := range regexp.MustCompile(`(\w+)(?:=|!=|=~)"([^"]*)"`).FindAllStringSubmatch(s, -1) {
		all = append(all, [2]string{m[1], m[2]})
	}
	return all
}

// The metrics, labels and values in the rules and their tests are those that the exporter
// prints: a rule with a name that is misspelled never fires.
func TestRulesNameWhatIsExported(t *testing.T) {
	exported := scrape(t)
	known := map[string][]string{
		"reauth_rejection_reason": constantsOf(t, "Reason"),
		"reauth_refresh_reason":   constantsOf(t, "Reason"),
		"reauth_refresh_result":   constantsOf(t, "RefreshResult"),
		"reauth_not_retried":      constantsOf(t, "NotRetried"),
		"reauth_retry_result":     {"recovered", "rejected", "failed"},
		"error_type":              {"login_ended"},
	}
	for _, file := range []string{"prometheus/rules.yml", "prometheus/rules_test.yml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		selectors := regexp.MustCompile(`\b(reauth_\w+)\{([^}]*)\}`).FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, selectors)
		for _, selector := range selectors {
			metric := exported[selector[1]]
			if !assert.NotNil(t, metric, "%s: %s is not exported", file, selector[1]) {
				continue
			}
			for _, label := range labels(selector[2]) {
				if label[0] == "job" || label[0] == "instance" { // Prometheus adds them
					continue
				}
				values, ok := metric[label[0]]
				assert.True(t, ok, "%s: %s has no label %s", file, selector[1], label[0])
				if label[0] == "server_address" || label[0] == "server_port" {
					continue
				}
				for _, v := range strings.Split(label[1], "|") {
					assert.Contains(t, slices.Concat(values, known[label[0]]), v, "%s: %s of %s", file, label[0], selector[1])
				}
			}
		}
		for _, by := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(string(text), -1) {
			for _, label := range strings.Split(by[1], ", ") {
				assert.Contains(t, []string{"job", "instance", "server_address"}, label)
			}
		}
	}
}

// The rule counts the reasons that a new token may resolve, and no others.
func TestRulesCountRefreshableReasons(t *testing.T) {
	var refreshable []string
	for _, reason := range constantsOf(t, "Reason") {
		if reauth.Reason(reason).Refreshable() {
			refreshable = append(refreshable, reason)
		}
	}
	text, err := os.ReadFile("prometheus/rules.yml")
	require.NoError(t, err)
	lists := regexp.MustCompile(`reauth_rejection_reason=~"([^"]*)"`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, lists)
	for _, list := range lists {
		assert.ElementsMatch(t, refreshable, strings.Split(list[1], "|"))
	}
}
