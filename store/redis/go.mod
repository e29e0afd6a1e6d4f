module github.com/reauth-go/reauth/store/redis

go 1.26.0

require (
	github.com/reauth-go/reauth v0.0.0
	github.com/reauth-go/reauth/store/storetest v0.0.0
	github.com/redis/go-redis/v9 v9.17.0
	golang.org/x/oauth2 v0.38.0
)

require (
	github.com/anishathalye/porcupine v1.1.0 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
	github.com/joho/godotenv v1.5.1 // indirect
)

replace (
	github.com/reauth-go/reauth => ../..
	github.com/reauth-go/reauth/store/storetest => ../storetest
)
