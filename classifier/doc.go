// Package classifier holds reauth.Classifiers that one opts into: for servers
// that say "this token is no good" with another status than 401.
//
//	&reauth.Transport{
//		Credential: cred,
//		Classifier: classifier.Chain(classifier.Slack(), reauth.DefaultClassifier()),
//	}
//
// Each looks only at the statuses that it names; the 401 stays with
// reauth.DefaultClassifier, which [Chain] joins to it. A code that one does
// not know is no rejection: in doubt a 401 is refreshed, and nothing else is.
//
// For a server that is not here there are [Statuses], by what it says in words,
// and [JSON], by the value of a member.
//
// Those that read a 200 ([Slack], [WeChat], [Feishu], [NewAPI], [GraphQL], [JSON])
// touch it only where it is JSON of a length that is known to be at most 64 KiB, or
// that was compressed on its way; see [GraphQL] for what that leaves out. [GRPC]
// reads the header alone. A stream is handed on untouched.
//
// All are safe for concurrent use.
package classifier
