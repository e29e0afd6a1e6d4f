module github.com/reauth-go/reauth/store/file

go 1.26.0

require (
	github.com/gofrs/flock v0.13.0
	github.com/reauth-go/reauth v0.0.0
	github.com/reauth-go/reauth/store/storetest v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/anishathalye/porcupine v1.1.0 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.37.0 // indirect
)

replace (
	github.com/reauth-go/reauth => ../..
	github.com/reauth-go/reauth/store/storetest => ../storetest
)
