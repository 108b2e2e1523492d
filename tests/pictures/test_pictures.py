"""`make pictures` from end to end, and what is shown in README.md."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.pictures.__main__ import main
from tests.process.harness import ROOT

#: What a reader is to see in each.
_SEEN = {
    "picker.svg": ("profile to use:", "payments-", "BreakGlass", "no session", "Enter chooses"),
    "watch.svg": ("web-admin", "deploy", "mfa_required", "no-such-role", "python", "ProfileMismatch", "q leaves"),
}
#: Of the machine that they were made on.
_HOME = re.compile(r"/(?:root|home|Users|work)/")


def _text(file: Path) -> str:
    return "\n".join(ET.parse(file).getroot().itertext())


@pytest.mark.process
def test_they_are_made_from_real_runs(tmp_path: Path) -> None:
    """Both are written, of 80 by 24 cells, and what there was to see is in them."""
    assert main([str(tmp_path)]) == 0
    for name, seen in _SEEN.items():
        picture = (tmp_path / name).read_text()
        assert all(each in _text(tmp_path / name) for each in seen), picture
        assert 'width="664" height="456"' in picture


@pytest.mark.parametrize("name", _SEEN)
def test_those_that_are_shown(name: str) -> None:
    """The ones in docs are such pictures, README.md shows them, and they tell nothing of who made them."""
    file = ROOT / "docs/pictures" / name
    assert all(each in _text(file) for each in _SEEN[name])
    assert not _HOME.search(_text(file))
    assert f"(docs/pictures/{name})" in (ROOT / "README.md").read_text()
    assert file.stat().st_size < 20_000
