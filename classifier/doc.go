// Package classifier has reauth.Classifiers for servers that reject a token with
// another status than 401. A Transport uses none of them by itself.
//
//	&reauth.Transport{
//		Credential: cred,
//		Classifier: classifier.Chain(classifier.Slack(), reauth.DefaultClassifier()),
//	}
//
// Each Classifier examines only the statuses that it names. [Chain] leaves a 401 to
// reauth.DefaultClassifier. A code that a Classifier does not know is no rejection.
//
// For other servers, [Statuses] goes by the words of a response, and [JSON] by the
// value of a member.
//
// [Slack], [WeChat], [Feishu], [NewAPI], [GraphQL] and [JSON] read the body of a 200
// only if it is JSON, and its length is known and at most 64 KiB, or it was
// compressed on its way. [GraphQL] says what that leaves out. [GRPC] reads the header
// only. None of them reads a stream.
//
// All are safe for concurrent use by multiple goroutines.
package classifier
