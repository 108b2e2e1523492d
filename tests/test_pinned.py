"""What is installed is pinned: every package by version and by the hashes of its files (security.md T12)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED, WHOLE = "constraints.txt", "constraints-dev.txt"


def requirements(name: str) -> dict[str, str]:
    """Package → its whole requirement, continuation lines and all."""
    joined = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {re.split(r"[=\[ ;<>~]", line)[0].lower(): line for line in lines}


def loose(requirement: str) -> bool:
    """Whether pip could take something else for it than what was looked at."""
    exact = re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^\s;*]+", requirement)
    return exact is None or re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", requirement) is None


def unchecked(text: str) -> list[str]:
    """The installs in a text that take a package by its name alone: what is not ours needs its hash."""
    installs = [line.strip() for line in text.splitlines() if re.search(r"\bpip install\b", line)]
    return [line for line in installs if "--require-hashes" not in line and "--no-deps" not in line]


@pytest.mark.parametrize("name", [SHIPPED, WHOLE])
def test_every_package_is_pinned_by_its_hashes(name: str) -> None:
    """One version each, and at least one SHA-256; controls: without either it would be seen."""
    found = requirements(name)

    assert len(found) > 20
    assert [each for each, line in found.items() if loose(line)] == []
    assert loose("aiohttp==3.14.5")
    assert loose("aiohttp>=3.14 --hash=sha256:" + "0" * 64)


def test_what_we_need_is_among_it() -> None:
    """Each dependency of ours is in both files, in the same version: what is tested is what is shipped."""
    shipped, whole = requirements(SHIPPED), requirements(WHOLE)
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    assert {re.split(r"[>=\[ ;]", each)[0] for each in ours} <= set(shipped)
    assert {name: line.split()[0] for name, line in shipped.items()} == {
        name: line.split()[0] for name, line in whole.items() if name in shipped
    }


@pytest.mark.parametrize("name", ["Makefile", "README.md"])
def test_every_install_checks_hashes(name: str) -> None:
    """`--require-hashes`, or nothing of others at all (`--no-deps`); control: an install by name is seen."""
    text = (ROOT / name).read_text()

    assert "--require-hashes" in text
    assert unchecked(text) == []
    assert unchecked("pip install aiohttp") == ["pip install aiohttp"]
