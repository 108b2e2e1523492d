#!/usr/bin/env bash
# build.sh OUTDIR: the pinned tree of package-lock.json, the program beside it, and OUTDIR/run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(realpath -m "${1:?usage: build.sh OUTDIR}")
mkdir -p "$(dirname "$out")"
part=$(mktemp -d "$out.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
cp "$here/package.json" "$here/package-lock.json" "$here/main.mjs" "$part/"
(cd "$part" && nice -n 10 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
cat > "$part/run" <<'RUN'
#!/bin/sh
exec node "$(dirname "$0")/main.mjs"
RUN
chmod 755 "$part" "$part/run"
rm -rf "$out"
mv -T "$part" "$out"
