#!/usr/bin/env bash
# Formats, vets, lints and tests every module of the repository. The end-to-end
# tests start servers of Debian's: apt-get install chromium docker-registry
# etcd-server git prometheus redis-server postgresql.
set -euo pipefail
cd "$(dirname "$0")"

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	echo "gofmt: $unformatted" >&2
	exit 1
fi
for mod in . bench e2e store/storetest store/file store/redis store/etcd grpcreauth otelreauth cmd/reauth examples/vault examples/runtimevar; do
	echo "== module $mod"
	(
		cd "$mod"
		go vet ./...
		go run "$staticcheck" ./...
		case "$mod" in
		.)
			GOOS=windows go vet ./...
			go test -count=1 -race -shuffle=on -coverpkg=./... -coverprofile=coverage.out ./...
			go tool cover -func=coverage.out | tail -n 1
			;;
		store/file)
			GOOS=windows go vet ./...
			go test -count=1 -race -shuffle=on ./...
			;;
		bench) # it measures, which the race detector would spoil
			go test -count=1 -shuffle=on ./...
			;;
		*)
			# One package at a time: the soak would starve tests that wait for an expiry.
			go test -count=1 -race -shuffle=on -p 1 ./...
			;;
		esac
	)
done
