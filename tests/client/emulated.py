"""A terminal emulator as the reader of a pty: what a person sees of all that was written, and what is left behind."""

from __future__ import annotations

import copy
import errno
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

import pyte

from tests.client.terminal import OnTerminal, Ran

_OTHER = 1049 << 5
BEFORE = "$ what stood here before"


class Emulator(pyte.Screen):
    """pyte, with the other screen that xterm has and pyte has not."""

    def __init__(self, columns: int, lines: int) -> None:
        self._kept: Any = None
        self.scrolled = 0
        super().__init__(columns, lines)

    def set_mode(self, *modes: int, **options: Any) -> None:
        super().set_mode(*modes, **options)
        if options.get("private") and 1049 in modes:
            self._kept = copy.deepcopy(self.buffer), copy.copy(self.cursor)
            self.erase_in_display(2)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        super().reset_mode(*modes, **options)
        if options.get("private") and 1049 in modes and self._kept:
            self.buffer, self.cursor = self._kept
            self._kept = None

    def index(self) -> None:
        """Counted: a screen that scrolls was written past its end."""
        self.scrolled += self.cursor.y == (self.margins.bottom if self.margins else self.lines - 1)
        super().index()

    @property
    def text(self) -> list[str]:
        """The lines without the blanks at their ends, and without the empty ones at the end of all."""
        lines = [line.rstrip() for line in self.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Watched:
    """A process on a pty, and the emulator that shows it."""

    def __init__(self, running: OnTerminal, columns: int = 80, lines: int = 24) -> None:
        self.running = running
        self.screen = Emulator(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._stream.feed(BEFORE.encode() + b"\r\n")
        self.modes = set(self.screen.mode)
        self._size(columns, lines)
        self.settings = termios.tcgetattr(running.master)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.running.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """The window gets another size."""
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return self.screen.text

    def until(self, holds: Callable[[list[str]], bool], seconds: float = 20.0) -> list[str]:
        """Read until what is on the screen is so."""
        last = time.monotonic() + 3 * seconds
        while not self._so(holds):
            assert time.monotonic() < last, f"it never came: {self.lines}"
            assert select.select([self.running.master], [], [], seconds)[0], f"it never came: {self.lines}"
            assert self._read(), f"the terminal ended before it came: {self.lines}"
        return self.lines

    def _so(self, holds: Callable[[list[str]], bool]) -> bool:
        try:
            return holds(self.lines)
        except IndexError:  # half a frame has not all the lines that are looked at
            return False

    def shows(self, text: str) -> list[str]:
        """Read until `text` is somewhere on the screen."""
        return self.until(lambda lines: any(text in line for line in lines))

    def type(self, text: str) -> None:
        self.running.type(text)

    def end(self, seconds: float = 20.0) -> Ran:
        """Wait for the end; `err` is what is on the screen then."""
        child, out = self.running.child, b""
        pipe = child.stdout.fileno() if child.stdout else self.running.master
        sources = {self.running.master, pipe}
        last = time.monotonic() + seconds  # what draws for ever never lets one wait for it come to nothing
        while sources:
            ready, _, _ = select.select(sources, [], [], seconds)
            assert ready, f"it does not end: {self.lines}"
            assert time.monotonic() < last, f"it does not end: {self.lines}"
            if self.running.master in ready and not self._read():
                sources.discard(self.running.master)
            if pipe in ready and pipe != self.running.master:
                piece = os.read(pipe, 65536)
                out += piece
                sources = sources if piece else sources - {pipe}
        return Ran(child.wait(seconds), out.decode(), "\n".join(self.lines))

    @property
    def restored(self) -> bool:
        """Modes, cursor and the terminal's own settings are as they were, and what stood there before is there."""
        same = termios.tcgetattr(self.running.master) == self.settings
        return same and self.screen.mode == self.modes and not self.screen.cursor.hidden and BEFORE in self.lines

    def _read(self) -> bytes:
        try:
            piece = os.read(self.running.master, 65536)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return b""
        self.raw += piece
        self._stream.feed(piece)
        return piece
