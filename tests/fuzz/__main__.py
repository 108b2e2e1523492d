"""`make fuzz SECONDS=600`: every target in turn, each in a process of its own with its share of the time.

Prints a row for each: executions, inputs that reached something new, findings, memory. Ends with 1 on a finding, whose
input is then in corpus/TARGET/, where `make test` replays it from then on.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.fuzz.target import GROWTH_KIB
from tests.fuzz.targets import CORPUS, TARGETS

_ROOT: Final = Path(__file__).parents[2]
#: Beyond its time: to import, to instrument, and to write the last report.
_MARGIN: Final = 120


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz; 1 on a finding, 2 when there is no atheris."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    given = parser.parse_args(argv)
    if importlib.util.find_spec("atheris") is None:
        print(
            "make fuzz: atheris is not installed here (its wheels are for Linux on x86-64): run it there",
            file=sys.stderr,
        )
        return 2
    names = given.target or list(TARGETS)
    share = max(1, given.seconds // len(names))
    print(
        f"{'target':20} {'execs':>9} {'execs/s':>8} {'new':>5} {'findings':>8} {'RSS MiB':>15} {'KiB/1000 execs':>15}"
    )
    rows = [_fuzzed(name, share) for name in names]
    findings = sum(bool(row["finding"]) for row in rows)
    execs, seconds = sum(row["execs"] for row in rows), sum(row["seconds"] for row in rows)
    print(f"\n{execs} executions in {seconds:.0f} s: {findings} findings")
    return 1 if findings else 0


def _fuzzed(name: str, seconds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="vaultd-fuzz-") as folder:
        report, said = Path(folder) / "report.json", Path(folder) / "said"
        argv = [sys.executable, "-m", "tests.fuzz.run", name, str(seconds), "--report", str(report)]
        environ = {**os.environ, "TMPDIR": folder}  # libFuzzer leaves its process without cleaning up
        with said.open("wb") as out:
            try:
                ended = subprocess.run(
                    argv, cwd=_ROOT, env=environ, stdout=out, stderr=out, timeout=seconds + _MARGIN, check=False
                )
                status = ended.returncode
            except subprocess.TimeoutExpired:
                status = -1
        row: dict[str, Any] = {"execs": 0, "seconds": 0.0, "new": 0, "rss_start": 0, "rss_end": 0, "finding": None}
        if report.is_file():
            row |= json.loads(report.read_text())
        row["finding"] = finding_of(row, status)
        _tell(name, row, said)
        return row


def finding_of(row: dict[str, Any], status: int) -> str | None:
    """What a run found, by its report and its exit status."""
    if row["finding"]:
        return str(row["finding"])
    if status:
        return f"it ended with {status}: too slow, too large, or not started"
    if row["rss_end"] - row["rss_start"] >= GROWTH_KIB:
        return f"it grew by {GROWTH_KIB // 1024} MiB or more"
    return None if row["execs"] else "nothing was executed"


def _tell(name: str, row: dict[str, Any], said: Path) -> None:
    grown = row["rss_end"] - row["rss_start"]
    memory = f"{row['rss_start'] / 1024:.1f} → {row['rss_end'] / 1024:.1f}"
    slope = grown / max(1, row["execs"]) * 1000
    rate = row["execs"] / max(0.1, row["seconds"])
    found = int(bool(row["finding"]))
    print(f"{name:20} {row['execs']:9} {rate:8.0f} {row['new']:5} {found:8} {memory:>15} {slope:15.2f}", flush=True)
    if found:
        print(f"  {row['finding'].splitlines()[0][:300]}\n  its input is in {CORPUS / name}; what was said:")
        lines = [line for line in said.read_text(errors="replace").splitlines() if not line.startswith("INFO:")]
        print("\n".join(f"  | {line[:200]}" for line in lines[-40:]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
