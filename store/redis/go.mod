module github.com/reauth-go/reauth/store/redis

go 1.26.0

require (
	github.com/reauth-go/reauth v0.0.0
	github.com/reauth-go/reauth/store/storetest v0.0.0
	github.com/redis/go-redis/v9 v9.17.0
)

require (
	github.com/anishathalye/porcupine v1.1.0 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
)

replace (
	github.com/reauth-go/reauth => ../..
	github.com/reauth-go/reauth/store/storetest => ../storetest
)
