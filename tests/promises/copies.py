"""A copy of the committed tree with a `.venv` of its own, in which controls are taken away and put back.

Rule: the work tree itself is never broken. Daemons of the tests start with `python -I`, which no PYTHONPATH reaches: so
the copy's own interpreter has the copy as its editable install. Installed packages are hard links: nothing writes into
them but by replacing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.promises.promise import Break


class Misfit(ValueError):
    """A break that does not fit the tree: `old` is not there exactly once."""


@dataclass(frozen=True)
class Copy:
    root: Path

    @property
    def python(self) -> str:
        return str(self.root / ".venv/bin/python")

    @contextmanager
    def broken(self, breaks: tuple[Break, ...]) -> Iterator[None]:
        """The tree without these controls; afterwards as it was committed."""
        try:
            for each in breaks:
                self._edit(each)
            yield
        finally:
            _git(self.root, "checkout", "--quiet", "--", ".")
            for each in breaks:
                self._forget(each)

    def _edit(self, one: Break) -> None:
        path = self.root / one.path
        text = path.read_text()
        if text.count(one.old) != 1:
            raise Misfit(f"{one.path} holds {one.old!r} {text.count(one.old)} times")
        path.write_text(text.replace(one.old, one.new))
        self._forget(one)

    def _forget(self, one: Break) -> None:
        """A compiled file is told from its source by size and second only: both may be the same here."""
        path = self.root / one.path
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True)
    return done.stdout


def uncommitted(root: Path) -> list[str]:
    """Files of the tree that differ from HEAD, also new ones."""
    return [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]


def copied(root: Path, into: Path) -> Copy:
    """HEAD of the work tree, checked out in `into` (which is not there yet) with an environment like this process's."""
    head = _git(root, "rev-parse", "HEAD").strip()
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(root), str(into)], check=True)
    _git(into, "checkout", "--quiet", "--detach", head)
    _environment(Path(sys.prefix), root, into)
    made = Copy(into)
    found = [made.python, "-I", "-c", "import vaultd; print(vaultd.__file__)"]
    assert Path(subprocess.run(found, check=True, capture_output=True, text=True).stdout).is_relative_to(into)
    return made


def _environment(prefix: Path, root: Path, into: Path) -> None:
    made = into / ".venv"
    shutil.copytree(prefix, made, symlinks=True, copy_function=_linked)
    for script in (made / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            _moved(script, str(prefix), str(made))
    for pointer in made.glob("lib/python*/site-packages/*vaultd*.pth"):
        _moved(pointer, str(root), str(into))


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copy2(source, target)
    return target


def _moved(path: Path, old: str, new: str) -> None:
    """The file with another path in it, as a file of its own: it is a link until here."""
    text, mode = path.read_bytes(), path.stat().st_mode
    if old.encode() in text:
        path.unlink()
        path.write_bytes(text.replace(old.encode(), new.encode()))
        path.chmod(mode)
