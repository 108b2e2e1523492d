"""leftovers.py: what is looked for at the end of a run is found, by each of its three marks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.leftovers import living_below

pytestmark = pytest.mark.needs("linux")


@pytest.mark.parametrize("mark", ["argument", "environment", "directory"])
def test_what_still_runs(mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found while it runs, not found when it has ended."""
    monkeypatch.setattr("tests.leftovers.PATIENCE_MS", 0)
    left = subprocess.Popen(
        [sys.executable, "-c", "input()", *([str(tmp_path)] if mark == "argument" else [])],
        stdin=subprocess.PIPE,
        env={"OF": str(tmp_path)} if mark == "environment" else {},
        cwd=tmp_path if mark == "directory" else "/",
    )
    with left:
        try:
            found = living_below(tmp_path)
        finally:
            left.kill()

    assert [each.partition(":")[0] for each in found] == [str(left.pid)]
    assert living_below(tmp_path) == []
