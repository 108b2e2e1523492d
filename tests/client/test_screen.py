"""Which terminals are drawn on, frames of one write, and the terminal as it was."""

from __future__ import annotations

import ast
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vault_client.screen import Screen

CLIENT = Path(__file__).parents[2] / "client"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "vt100"}, True),
        ({"TERM": "linux"}, True),
        ({"TERM": "xterm", "VAULTD_PLAIN": "0"}, True),
        ({"TERM": "xterm", "VAULTD_PLAIN": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
        ({}, False),
        ({"TERM": "no-such-terminal"}, False),
        ({"TERM": "../../etc/passwd"}, False),
    ],
)
def test_what_is_drawn_on(environ: dict[str, str], wanted: bool) -> None:
    """Terminals that terminfo knows to speak ECMA-48, and nobody who wants lines."""
    assert (modes_of(environ) is not None) is wanted


def modes_of(environ: dict[str, str]) -> Any:
    """What `drawable` says in a process of its own: terminfo is read once in each."""
    code = "import sys; from vault_client.screen import drawable; print(drawable(eval(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, repr(environ)], env={"PYTHONPATH": str(CLIENT)}, capture_output=True, check=True,
        text=True,
    )  # fmt: skip
    return ast.literal_eval(done.stdout)


def test_modes_are_those_of_the_terminal() -> None:
    """The other screen only where the terminal has one, colours only where it has them."""
    xterm, console, old = (modes_of({"TERM": name}) for name in ("xterm-256color", "linux", "vt100"))

    assert "\x1b[?1049h" in xterm[0]
    assert "\x1b[?1049l" in xterm[1]
    assert console[:2] == old[:2] == ("", "")
    assert (xterm[2], console[2], old[2]) == (True, True, False)


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def read(master: int, ending: bytes) -> bytes:
    """What was written, up to `ending`: a pty delivers in pieces."""
    raw = b""
    while not raw.endswith(ending):
        raw += os.read(master, 1)
    return raw


def screen_on(slave: int) -> Screen:
    return Screen(slave, slave, owned=False, modes=("", "", True), escape=0.0)


def test_what_was_typed_before_is_forgotten(ends: tuple[int, int]) -> None:
    """Also the half of a key, and what nobody has read yet. Control: what is typed then is a key."""
    master, slave = ends
    with screen_on(slave) as screen:
        os.write(master, b"\x1b")
        assert screen.wait(20) == ([], [])
        os.write(master, b"[Ay\r")
        assert select.select([slave], [], [], 20)[0]
        screen.forget()
        os.write(master, b"n")
        assert screen.wait(20) == (["n"], [])


def test_only_what_changed_is_written(ends: tuple[int, int]) -> None:
    """A frame is one write of the changed lines, and the same frame again is none; wherever the cursor goes is told."""
    master, slave = ends
    with screen_on(slave) as screen:
        screen.draw(["first", "second"], (0, 5))
        whole = read(master, b"\x1b[?25h")
        screen.draw(["first", "second"], (0, 5))
        screen.draw(["first", "third"], (0, 5))
        changed = read(master, b"\x1b[?25h")
        screen.draw(["first"], None)
        less = read(master, b"\x1b[2K")

    assert b"first" in whole
    assert b"second" in whole
    assert changed == b"\x1b[?25l\x1b[2;1H\x1b[0m\x1b[2Kthird\x1b[0m\x1b[1;6H\x1b[?25h"
    assert less == b"\x1b[?25l\x1b[2;1H\x1b[0m\x1b[2K"


def test_a_paste_is_asked_to_be_told(ends: tuple[int, int]) -> None:
    """Before the first frame, or a newline in what was pasted would be Enter; no terminal is left telling it."""
    master, slave = ends
    with screen_on(slave) as screen:
        screen.draw(["first"])
        begun = read(master, b"first")
    over = read(master, b"\x1b[?25h")

    assert b"\x1b[?2004h" in begun
    assert b"\x1b[?2004l" in over


def test_paused_is_the_terminal_as_it_was(ends: tuple[int, int]) -> None:
    """In between, questions may be asked; afterwards the whole frame is drawn anew, and the settings are ours again."""
    master, slave = ends
    before = termios.tcgetattr(slave)
    with screen_on(slave) as screen:
        ours = termios.tcgetattr(slave)
        screen.draw(["first"])
        with screen.paused():
            assert termios.tcgetattr(slave) == before
        assert termios.tcgetattr(slave) == ours != before
        screen.draw(["second"])
        screen.draw(["second", "third"])
        assert b"second" in read(master, b"third").rpartition(b"\x1b[2J")[2]
    assert termios.tcgetattr(slave) == before


def test_another_source_wakes_it(ends: tuple[int, int]) -> None:
    """`also` is told apart from keys, and a time that is over tells nothing."""
    master, slave = ends
    reader, writer = os.pipe()
    with screen_on(slave) as screen:
        assert screen.wait(0.0, also=[reader]) == ([], [])
        os.write(writer, b"x")
        assert screen.wait(5.0, also=[reader]) == ([], [reader])
        os.write(master, b"q")
        keys, _ = screen.wait(5.0, also=[reader])
        assert keys == ["q"]
    os.close(reader)
    os.close(writer)
