"""What a target of the fuzzer is, and the watch that says whether the invariants held.

Rule: a Finding names the invariant, never the bytes of the input; those are in the corpus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol, Self

from vaultd.files import Files

#: Stands in requests wherever nothing of them may come back.
MARK: Final = b"zqxjkvbwpy"
#: A fuzzer cannot guess these: they are put into the input before it is used, so that a corpus outlives its run.
TOKEN, PORT, METADATA = b"%TOKEN%", b"%PORT%", b"%METADATA%"
#: Splits an input: the pieces arrive one by one, or are parts of it.
SPLIT: Final = b"\x1e"


#: What a target may grow by in a run, however long.
GROWTH_KIB: Final = 64 * 1024


class Finding(Exception):
    """An invariant did not hold."""


class Target(Protocol):
    """One reader of bytes from outside. `one` raises Finding, or whatever the product let through."""

    def seeds(self) -> Iterable[bytes]:
        """Inputs from which the mutations start: each is of the kind that means something."""

    def one(self, data: bytes) -> None:
        """Read it, and check every invariant."""

    def close(self) -> None:
        """Leave nothing behind."""


class Watch(logging.Handler):
    """Everything that was logged or went unhandled since the last `clear`, and what must not be in it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._lines: list[str] = []
        self._wrong: list[str] = []
        self._root = logging.getLogger()
        self._before = self._root.level

    def __enter__(self) -> Self:
        self._root.addHandler(self)
        self._root.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        self._root.removeHandler(self)
        self._root.setLevel(self._before)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._lines.append(text)
        if record.levelno >= logging.ERROR or record.exc_info:
            self._wrong.append(text)

    def unhandled(self, _: asyncio.AbstractEventLoop, said: dict[str, Any]) -> None:
        """The loop's hook for exceptions that nobody took."""
        exc = said.get("exception")
        self._wrong.append(f"{said.get('message')}: {type(exc).__name__} {exc}")

    def clear(self) -> None:
        self._lines.clear()
        self._wrong.clear()

    def check(self, said: bytes | str, never: Iterable[bytes]) -> None:
        """Raises Finding for an error in the log, or when one of `never` was said or logged."""
        if self._wrong:
            raise Finding(f"an error was logged: {self._wrong[0]}")
        told = said.encode("utf-8", "surrogateescape") if isinstance(said, str) else said
        logged = "\n".join(self._lines).encode("utf-8", "surrogatepass")
        for each in never:
            if each in told:
                raise Finding(f"{each[:16]!r} is in what was said")
            if each in logged:
                raise Finding(f"{each[:16]!r} is in the log")


class InMemory(Files):
    """`Files` whose bytes are in a dict: a disk that costs no system call, and takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[Path, bytes] = {}

    def read(self, path: Path, *, last: int | None = None) -> bytes | None:
        content = self.held.get(path)
        return content if content is None or last is None else content[max(0, len(content) - last) :]

    def read_config(self, path: Path) -> bytes | None:
        return self.held.get(path)

    def replace(self, path: Path, content: bytes) -> None:
        self.held[path] = content

    def append(self, path: Path, content: bytes, *, sync: bool) -> None:
        self.held[path] = self.held.get(path, b"") + content

    def cut(self, path: Path, size: int) -> None:
        self.held[path] = self.held[path][:size]

    def remove(self, path: Path) -> None:
        self.held.pop(path, None)

    def rename(self, source: Path, target: Path) -> None:
        self.held[target] = self.held.pop(source)

    def stat_key(self, path: Path) -> tuple[int, ...] | None:
        return (hash(self.held[path]),) if path in self.held else None


def resident_kib() -> int:
    """This process's resident memory."""
    with Path("/proc/self/status").open() as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1])
