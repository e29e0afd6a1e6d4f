module github.com/reauth-go/reauth/cmd/reauth

go 1.26.0

require (
	github.com/reauth-go/reauth v0.0.0
	github.com/spf13/cobra v1.10.1
	github.com/spf13/pflag v1.0.10
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/stretchr/testify v1.12.1
)
