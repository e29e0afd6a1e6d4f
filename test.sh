#!/usr/bin/env bash
# Formats, vets, lints and tests the modules of the repository: all of them, or those
# whose directories are named.
#
#	./test.sh                  all modules
#	./test.sh .                the main module
#	./test.sh store/redis      one of the others
#	./test.sh -missing [module ...]
#	                           only prints the packages of Debian's that are not installed
#
# The tests start the servers that they need themselves.
set -euo pipefail
cd "$(dirname "$0")"

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

modules=(. bench e2e store/storetest store/file store/redis store/etcd grpcreauth otelreauth cmd/reauth examples/vault examples/runtimevar)

# programs prints what the tests of a module start. The race detector links with gcc.
programs() {
	case "$1" in
	bench) ;;
	e2e) echo gcc chromium curl docker-registry etcd git postgres redis-server ;;
	store/redis) echo gcc redis-server ;;
	store/etcd) echo gcc etcd ;;
	otelreauth) echo gcc promtool ;;
	cmd/reauth) echo gcc curl script ;;
	*) echo gcc ;;
	esac
}

# installed reports whether a program is there.
installed() {
	case "$1" in
	gcc) command -v "$(go env CC)" ;;
	postgres) ls /usr/lib/postgresql/*/bin/postgres ;;
	*) command -v "$1" ;;
	esac >/dev/null 2>&1
}

# packages prints the packages of Debian's that have a program.
packages() {
	case "$1" in
	gcc) echo gcc libc6-dev ;;
	etcd) echo etcd-server ;;
	postgres) echo postgresql ;;
	promtool) echo prometheus ;;
	script) echo bsdutils ;;
	*) echo "$1" ;;
	esac
}

command -v go >/dev/null || { echo "Go is needed: https://go.dev/doc/install" >&2; exit 1; }

only_missing=
if [ "${1-}" = -missing ]; then
	only_missing=yes
	shift
fi
chosen=()
for arg in "$@"; do
	mod=${arg#./}
	mod=${mod%/}
	case " ${modules[*]} " in
	*" ${mod:-.} "*) chosen+=("${mod:-.}") ;;
	*)
		echo "$arg is not a module: ${modules[*]}" >&2
		exit 2
		;;
	esac
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${modules[@]}")

missing=
needed=
for mod in "${chosen[@]}"; do
	lacks=
	for program in $(programs "$mod"); do
		if ! installed "$program"; then
			lacks="$lacks $program"
			needed="$needed $(packages "$program")"
		fi
	done
	[ -z "$lacks" ] || missing="$missing  $mod:$lacks"$'\n'
done
# shellcheck disable=SC2046,SC2086
needed=$(echo $(printf '%s\n' $needed | sort -u))
if [ -n "$only_missing" ]; then
	echo "$needed"
	exit
fi
if [ -n "$missing" ]; then
	printf 'These programs are not installed:\n%s' "$missing" >&2
	echo "On Debian: apt-get install --no-install-recommends $needed" >&2
	echo "A module that needs none of them can be tested alone: ./test.sh bench" >&2
	exit 1
fi

unformatted=$(gofmt -l "${chosen[@]}")
if [ -n "$unformatted" ]; then
	echo "gofmt: $unformatted" >&2
	exit 1
fi
for mod in "${chosen[@]}"; do
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
