"""Keys out of bytes, whatever a terminal sends and however it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_client.keyboard import Keys
from vault_client.tables import clean

KNOWN = {
    b"\x1b[A": "up", b"\x1bOB": "down", b"\x1b[1;5C": "right", b"\x1b[D": "left", b"\x1b[H": "home", b"\x1bOF": "end",
    b"\x1b[1~": "home", b"\x1b[4~": "end", b"\x1b[5~": "pageup", b"\x1b[6~": "pagedown", b"\x1b[3~": "delete",
    b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace", b"\x03": "ctrl-c", b"\x07": "ctrl-g",
    b"\x1c": "ctrl-\\", b"\x0e": "ctrl-n", b"\t": "tab", b"\x1b[Z": "backtab", b"a": "a", "日".encode(): "日",
    "🚀".encode(): "🚀", "\u200d".encode(): "\u200d", "\uf115".encode(): "\uf115", b"\x1bx": "alt-x",
}  # fmt: skip
NO_KEY = (b"\x1b[I", b"\x1b[24~", b"\x1b[[A", b"\x1b[?1;2c", b"\x1b[<0;3;4M", b"\x1bOP", "\u202e".encode(), b"\x9b")


@pytest.mark.parametrize("raw", KNOWN)
def test_each_key(raw: bytes) -> None:
    """By its name; a character is itself."""
    assert Keys().feed(raw) == [KNOWN[raw]]


@pytest.mark.parametrize("raw", NO_KEY)
def test_what_is_no_key(raw: bytes) -> None:
    """Focus, mouse, replies, function keys and what cannot be shown are swallowed whole; what follows is not."""
    assert [key for key in Keys().feed(raw + b"q") if key != "\ufffd"] == ["q"]


@given(st.lists(st.sampled_from([*KNOWN, *NO_KEY, b"\x1b[200~rm\r\n\x1b[A\x1b[201~"]), max_size=8), st.data())
def test_however_it_is_split(typed: list[bytes], data: st.DataObject) -> None:
    """A slow line delivers a key in pieces: the same keys come of it."""
    whole = b"".join(typed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    keys = Keys()
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert [key for piece in pieces for key in keys.feed(piece)] == Keys().feed(whole)


@given(st.binary(max_size=60))
def test_any_bytes(raw: bytes) -> None:
    """Nothing a terminal sends makes an error, and every key is one character that can be shown, or a name."""
    keys = Keys()
    found = [*keys.feed(raw), *keys.flush()]

    assert all(key and clean(key) == key for key in found)


def test_esc_alone() -> None:
    """Esc is Esc when nothing follows in time; half a sequence is nobody's key, and is given more time."""
    keys = Keys()
    told = [(keys.feed(raw), keys.patience, keys.flush()) for raw in (b"", b"\x1b", b"\x1b[1", b"\x1b\x1b[A")]

    assert told == [([], None, []), ([], 0.1, ["esc"]), ([], 1.0, []), (["esc", "up"], None, [])]


def test_a_paste_is_text() -> None:
    """No newline, arrow or Esc of what was pasted is a key, but Ctrl-C is, as the end of a paste may never come."""
    keys = Keys()
    assert keys.feed(b"\x1b[200~we\x1bb\r\n-admin\x1b[201~\r") == [*"web-admin", "enter"]
    assert keys.feed(b"\x1b[200~x\x03") == ["x", "ctrl-c"]
