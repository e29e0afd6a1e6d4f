#!/usr/bin/env bash
# Builds static binaries of the command for those who have no Go, with their SHA-256 sums.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-dist}
mkdir -p "$out"
for os in linux darwin windows; do
	for arch in amd64 arm64; do
		name=reauth-$os-$arch
		[ $os = windows ] && name=$name.exe
		CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -ldflags "-s -w" -o "$out/$name" .
	done
done
(cd "$out" && sha256sum reauth-* >SHA256SUMS && cat SHA256SUMS)
