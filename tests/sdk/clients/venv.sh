# Sourced by the build.sh of the Python programs: an environment of its own with pinned requirements, made whole or not.
# `python3 -m venv` finds itself by where it lies, so that it may be renamed; only the scripts in bin may not be used.
build_venv() {
    local here=$1 outdir=$2
    making="$outdir.making.$$"
    trap 'rm -rf "${making:-}"' EXIT
    rm -rf "$making"
    "${PYTHON:-python3}" -m venv "$making/venv"
    nice -n 10 "$making/venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --no-deps -r "$here/requirements.txt"
    "$making/venv/bin/python" -m pip check --disable-pip-version-check >&2
    cp "$here/program.py" "$here/../speaking.py" "$making/"
    printf '#!/bin/sh\nexec "%s/venv/bin/python" "%s/program.py"\n' "$outdir" "$outdir" >"$making/run"
    chmod 755 "$making/run"
    rm -rf "$outdir"
    mv "$making" "$outdir"
}
