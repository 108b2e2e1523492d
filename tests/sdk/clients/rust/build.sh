#!/usr/bin/env bash
# Builds the program as OUTDIR/run. From a copy in a temporary sibling, then one rename: a killed build leaves no half a program, and the
# lock file, which names where the crates come from, never lies in the source tree.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$(dirname "$1")"
making=$(mktemp -d "$1.making.XXXXXX")
trap 'rm -rf "$making"' EXIT
cp -R "$here/Cargo.toml" "$here/build.rs" "$here/src" "$making/"
(cd "$making" && CARGO_TARGET_DIR=target nice -n 10 cargo build --quiet --jobs 2)
mkdir -p "$1"
mv -f "$making/target/debug/sdk-program" "$1/run"
