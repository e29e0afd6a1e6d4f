module github.com/reauth-go/reauth/store/storetest

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.1.0
	github.com/reauth-go/reauth v0.0.0
)

require github.com/cenkalti/backoff/v4 v4.3.0 // indirect

replace github.com/reauth-go/reauth => ../..
