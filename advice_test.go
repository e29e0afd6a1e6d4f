package reauth_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/reauth-go/reauth"
)

// What an end user reads names nothing of Go: no Transport.Origins, no GetBody.
func TestAdviceSpeaksToUsers(t *testing.T) {
	identifier := regexp.MustCompile(`[a-z][A-Z]|[a-z]\.[A-Z]|_`)
	seen := map[string]bool{}
	check := func(name, text string) {
		assert.NotEmpty(t, text, name)
		assert.NotRegexp(t, identifier, text)
		assert.False(t, seen[text], "said twice: %s", text)
		seen[text] = true
	}
	for _, a := range []reauth.Advice{
		reauth.AdviceSendAgain, reauth.AdviceResume, reauth.AdviceWait, reauth.AdviceMoreTime, reauth.AdviceResend, reauth.AdviceLogIn,
		reauth.AdviceStepUp, reauth.AdviceRequestScope, reauth.AdviceCheckIssuer, reauth.AdviceCheckAudience, reauth.AdviceCheckRefresher,
		reauth.AdviceShareLogin, reauth.AdviceOtherScheme, reauth.AdviceProveKey, reauth.AdviceCheckSignature, reauth.AdviceSendCSRFToken,
		reauth.AdviceTopUp, reauth.AdviceAskOwner, reauth.AdviceTellGateway, reauth.AdviceReadMessage, reauth.AdviceRemoveCredential,
		reauth.AdviceListOrigin, reauth.AdviceFinalURL, reauth.AdviceCheckHost, reauth.AdviceNewClient,
	} {
		check(string(a), a.Text())
	}
	for _, n := range []reauth.NotRetried{
		reauth.NotRetriedReason, reauth.NotRetriedWithheld, reauth.NotRetriedNoToken, reauth.NotRetriedTooYoung, reauth.NotRetriedBudget,
		reauth.NotRetriedDeadline, reauth.NotRetriedRetryAfter, reauth.NotRetriedCanceled, reauth.NotRetriedLoggedOut,
		reauth.NotRetriedTokenExpired, reauth.NotRetriedBodyTooLarge, reauth.NotRetriedBodyFailed,
	} {
		check(string(n), n.Text())
	}
	for _, w := range []reauth.Withheld{
		reauth.WithheldAsked, reauth.WithheldRefresh, reauth.WithheldTrace, reauth.WithheldOrigin, reauth.WithheldRedirect,
		reauth.WithheldHost, reauth.WithheldScheme, reauth.WithheldOwnCredential,
	} {
		check(string(w), w.Text())
	}
	assert.Empty(t, reauth.Advice("unknown").Text())
}

func TestAdviceOfAReason(t *testing.T) {
	for reason, want := range map[reauth.Reason]reauth.Advice{
		"":                             "",
		reauth.ReasonExpired:           "",
		reauth.ReasonInsufficientScope: reauth.AdviceRequestScope,
		reauth.ReasonStepUp:            reauth.AdviceStepUp,
		reauth.ReasonDPoPNonce:         reauth.AdviceProveKey,
		reauth.ReasonOtherScheme:       reauth.AdviceOtherScheme,
		reauth.ReasonAudience:          reauth.AdviceCheckAudience,
		reauth.ReasonRequestSignature:  reauth.AdviceCheckSignature,
		reauth.ReasonCSRF:              reauth.AdviceSendCSRFToken,
		reauth.ReasonLoginRequired:     reauth.AdviceLogIn,
		reauth.ReasonUpstream:          reauth.AdviceTellGateway,
		reauth.ReasonDenied:            reauth.AdviceAskOwner,
		reauth.ReasonQuota:             reauth.AdviceTopUp,
		reauth.ReasonOther:             reauth.AdviceReadMessage,
	} {
		assert.Equal(t, want, reason.Advice(), reason)
	}
}
