"""One target under atheris: `python -m tests.fuzz.run TARGET SECONDS`. Coverage of the product's bytecode guides it.

Rule: this process ends with libFuzzer's own status, 0 or that of a finding. What it did is JSON in `--report`, as
libFuzzer never returns; a finding's input goes where the corpus of the target is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import atheris

#: Bytes of one input, seconds for one, and megabytes of memory in all, past each of which it is a finding.
LONGEST, SLOWEST, LARGEST = 16_384, 10, 2048
#: Of the product, and the parsers of the standard library that it hands whole files to.
_INSTRUMENTED: Final = ["vaultd", "vault_client", "configparser", "tomllib", "shlex"]
#: Executions after which memory counts: imports, caches and the corpus are there by then.
_WARM: Final = 2000


def _leave_the_machine_alone(home: Path) -> None:
    """What the environment says of this machine's AWS is not read."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "VAULTD_", "BOTO", "XDG_"))]:
        del os.environ[name]
    os.environ["HOME"] = str(home)


def main() -> None:
    """Never returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("seconds", type=int)
    parser.add_argument("--report", type=Path, required=True)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vaultd-fuzz-"))
    _leave_the_machine_alone(folder)
    with atheris.instrument_imports(include=_INSTRUMENTED):  # nothing of the product may be imported before
        from tests.fuzz.mutate import mutated
        from tests.fuzz.target import resident_kib
        from tests.fuzz.targets import CORPUS, TARGETS, corpus
    target = TARGETS[given.target]()
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, seed in enumerate([*target.seeds(), *(each.read_bytes() for each in corpus(given.target))]):
        (seeds / f"seed-{number}").write_bytes(seed)
    found = CORPUS / given.target
    found.mkdir(parents=True, exist_ok=True)
    started, execs, first, told = time.monotonic(), 0, 0, 0.0

    def report(*, finding: str | None = None) -> None:
        nonlocal told
        told = time.monotonic()
        new = sum(not each.name.startswith("seed-") for each in seeds.iterdir())
        lines = {"execs": execs, "seconds": told - started, "new": new, "rss_start": first, "rss_end": resident_kib()}
        given.report.write_text(json.dumps({**lines, "finding": finding}))

    def one(data: bytes) -> None:
        nonlocal execs, first
        execs += 1
        if execs == _WARM or not first:
            first = resident_kib()
        try:
            target.one(data)
        except Exception as exc:
            report(finding=f"{type(exc).__name__}: {exc}")
            raise
        if time.monotonic() - told > 1.0:
            report()

    def mutation(data: bytes, longest: int, seed: int) -> bytes:
        """By turns libFuzzer's own, which follows comparisons in the product, and ours, which know what things mean."""
        return bytes(atheris.Mutate(data, longest)) if seed % 2 else mutated(data, seed=seed, longest=longest)

    options = [
        f"-max_total_time={given.seconds}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}", f"-rss_limit_mb={LARGEST}",
        f"-artifact_prefix={found}/", "-verbosity=0", str(seeds),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutation, internal_libfuzzer=True)
    with contextlib.suppress(KeyboardInterrupt):
        atheris.Fuzz()


if __name__ == "__main__":
    main()
