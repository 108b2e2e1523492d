"""What was typed: keys out of the bytes that a terminal sends, one character each, or a name: up, enter, esc, ctrl-c, …

Rules
- What comes in pieces is put together, and what is no key (a mouse, a reply, half a sequence) is swallowed whole.
- What was pasted is text: no newline, arrow or Esc of it is a key.
"""

from __future__ import annotations

import codecs

from vault_client.tables import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PASTE_OVER = "\x1b[201~"
#: A lone Esc is told from the beginning of an arrow key by what follows in so many seconds (ESCDELAY, as in ncurses).
_ESCAPE_SECONDS, _SEQUENCE_SECONDS = 0.1, 1.0
_LONGEST_SEQUENCE = 64
_FINAL = {"A": "up", "B": "down", "C": "right", "D": "left", "F": "end", "H": "home", "Z": "backtab"}
_NUMBERED = {"1": "home", "2": "insert", "3": "delete", "4": "end", "5": "pageup", "6": "pagedown", "7": "home",
             "8": "end"}  # fmt: skip
_NAMED = {"\r": "enter", "\n": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace", "\x00": "ctrl-space"}


class Keys:
    """Bytes of a terminal in, keys out: one character each, or a name. What comes in pieces is put together."""

    __slots__ = ("_decoder", "_pasting", "_text")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._pasting = False

    @property
    def patience(self) -> float | None:
        """In how many seconds the rest of an escape sequence is due; None when nothing is open."""
        if not self._text:
            return None
        return _SEQUENCE_SECONDS if len(self._text) > 1 or self._pasting else _ESCAPE_SECONDS

    def feed(self, raw: bytes) -> list[str]:
        """The keys that are whole by now."""
        self._text += self._decoder.decode(raw)
        return list(self._whole())

    def flush(self) -> list[str]:
        """Nothing followed: Esc is Esc. Half a sequence is nobody's key."""
        alone, self._text = self._text == "\x1b", ""
        return ["esc"] if alone and not self._pasting else []

    def _whole(self) -> Iterator[str]:
        while self._text:
            taken, key = self._pasted() if self._pasting else _key(self._text)
            if not taken:
                return
            self._text = self._text[taken:]
            if key in {"paste", "pasted"}:
                self._pasting = key == "paste"
            elif key:
                yield key

    def _pasted(self) -> tuple[int, str]:
        """Every character is text, until the end of the paste."""
        if self._text.startswith(_PASTE_OVER):
            return len(_PASTE_OVER), "pasted"
        if _PASTE_OVER.startswith(self._text):
            return 0, ""
        if self._text[0] == "\x03":  # the end of the paste may never come
            return 1, "ctrl-c"
        return 1, _text(self._text[0])


def _key(text: str) -> tuple[int, str]:
    """How many characters the first key is, and which; 0 for one that is not whole, no name for what is no key."""
    if text[0] == "\x1b":
        return _escaped(text)
    if text[0] in _NAMED:
        return 1, _NAMED[text[0]]
    if text[0] < " ":
        return 1, "ctrl-" + chr(ord(text[0]) + 0x40).lower()
    return 1, _text(text[0])


def _text(char: str) -> str:
    """What may be shown (interface.md §6): the joiner of an emoji and private characters are letters of a name."""
    return char if clean(char) == char else ""


def _escaped(text: str) -> tuple[int, str]:
    second = text[1:2]
    if not second:
        return 0, ""
    if second == "\x1b":
        return 1, "esc"
    if second == "O":  # application mode: ESC O A
        return (3, _FINAL.get(text[2], "")) if len(text) > 2 else (0, "")
    if second != "[":
        taken, key = _key(second)
        return 1 + taken, f"alt-{key}" if key else ""
    return _control_sequence(text)


def _control_sequence(text: str) -> tuple[int, str]:
    """ECMA-48 5.4: parameters and intermediates up to `?`, then one final character. Modifiers are not told apart."""
    for at in range(2, min(len(text), _LONGEST_SEQUENCE)):
        if text[at] == "[" and at == 2:  # a function key of the Linux console: ESC [ [ A
            return (4, "") if len(text) > 3 else (0, "")
        if not " " <= text[at] <= "?":
            return at + 1, _meant(text[2:at], text[at])
    return (_LONGEST_SEQUENCE, "") if len(text) >= _LONGEST_SEQUENCE else (0, "")


def _meant(parameters: str, final: str) -> str:
    if final != "~":
        return _FINAL.get(final, "")
    number = parameters.partition(";")[0]
    return {"200": "paste", "201": "pasted"}.get(number) or _NUMBERED.get(number, "")
