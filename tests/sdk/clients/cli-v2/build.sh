#!/usr/bin/env bash
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../plain.sh"
command -v /usr/bin/aws >/dev/null || { echo "no /usr/bin/aws: run \`make sdk\` as root" >&2; exit 1; }
build_plain "$here" "$1"
