#!/usr/bin/env bash
# Builds the program as OUTDIR/run. In a temporary sibling, then one rename: a killed build leaves no half a program.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$(dirname "$1")"
making=$(mktemp -d "$1.making.XXXXXX")
trap 'rm -rf "$making"' EXIT
(cd "$here" && GOWORK=off CGO_ENABLED=0 nice -n 10 go build -p 2 -mod=readonly -buildvcs=false -trimpath -o "$making/run" .)
mkdir -p "$1"
mv -f "$making/run" "$1/run"
