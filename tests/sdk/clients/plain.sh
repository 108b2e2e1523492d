# Sourced by the build.sh of the programs that start a tool of the system: nothing but the script is put in place.
build_plain() {
    local here=$1 outdir=$2
    making="$outdir.making.$$"
    trap 'rm -rf "${making:-}"' EXIT
    rm -rf "$making"
    mkdir -p "$making"
    cp "$here/program.py" "$here/../speaking.py" "$making/"
    printf '#!/bin/sh\nexec "%s" "%s/program.py"\n' "$(command -v "${PYTHON:-python3}")" "$outdir" >"$making/run"
    chmod 755 "$making/run"
    rm -rf "$outdir"
    mv "$making" "$outdir"
}
