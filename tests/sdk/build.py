"""Builds the programs of tests/sdk/clients that are missing: `python -m tests.sdk.build [NAME…]`.

Rule: a program is built once for each text of its directory (and interpreter: the Python ones hold an environment), by
its own build.sh, into a directory named by the hash of both; what is there is never built again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

CLIENTS = Path(__file__).with_name("clients")
#: Not the project's environment, which may be thrown away while the programs stay in the cache.
BASE = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def cache() -> Path:
    """`SDK_CACHE`, else below the user's own cache directory."""
    own = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("SDK_CACHE") or f"{own}/vaultd-sdk")


def sources(name: str) -> list[Path]:
    """The files that git knows, or would if asked to, and those that programs share; what it ignores is none."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", ".")
    listed = subprocess.run(command, cwd=CLIENTS / name, capture_output=True, text=True, check=True).stdout
    own = sorted(CLIENTS / name / each for each in listed.split("\0") if each and (CLIENTS / name / each).is_file())
    shares = "/../" in (CLIENTS / name / "build.sh").read_text()
    return own + (sorted(each for each in CLIENTS.iterdir() if each.is_file()) if shares else [])


def outdir(name: str, *, below: Path | None = None) -> Path:
    """The directory whose `run` is the program NAME as its files are now."""
    digest = hashlib.sha256(f"{platform.machine()} {BASE} {sys.version}".encode())
    for file in sources(name):
        digest.update(f"{file.relative_to(CLIENTS)}\0".encode() + file.read_bytes() + b"\0")
    return (below or cache()) / f"{name}-{digest.hexdigest()[:16]}"


def build(name: str) -> Path:
    """OUTDIR of a built program. Raises CalledProcessError when its build.sh fails."""
    where = outdir(name)
    if not (where / "run").exists():
        where.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        subprocess.run(
            ("bash", CLIENTS / name / "build.sh", where),
            check=True,
            cwd=CLIENTS / name,
            stdout=sys.stderr,
            env={**os.environ, "PYTHON": BASE},
        )
        print(f"built {name} in {time.monotonic() - began:.0f} s: {where}", flush=True)
    return where


def names() -> list[str]:
    return sorted(each.parent.name for each in CLIENTS.glob("*/build.sh"))


def main() -> int:
    """Builds all, even after a failure; says which could not be built."""
    failed = []
    for name in sys.argv[1:] or names():
        try:
            build(name)
        except subprocess.CalledProcessError as exc:
            print(f"NOT BUILT: {name}: build.sh ended with {exc.returncode}", file=sys.stderr, flush=True)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
