"""What people read: aligned tables, times and the sentences of `status`; colour only on a terminal without NO_COLOR.

Rule: nothing that moves a cursor gets through `clean`, whatever the daemon sent.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH119
from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    class Stream(Protocol):
        """What may be a terminal."""

        def isatty(self) -> bool:
            """Is it one?"""
            ...

        def fileno(self) -> int:
            """For its size."""
            ...


_GAP = 2
_NARROWEST = 8
_BIDI = frozenset({0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)})
_COLOURS = {
    "fresh": "32", "due": "33", "expired": "31", "mfa_required": "33", "locked": "33", "error": "31", "none": "2",
    "heading": "1", "bad": "31",
}  # fmt: skip


class Ink:
    """Colour on a terminal, plain text anywhere else (NO_COLOR, TERM=dumb)."""

    __slots__ = ("on", "width")

    def __init__(self, stream: Stream, environ: Mapping[str, str]) -> None:
        terminal = stream.isatty()
        self.on = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self.width = _columns(stream) if terminal else None

    def paint(self, text: str, kind: str) -> str:
        """`text` in the colour of a state."""
        code = _COLOURS.get(kind)
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and code else text


def _columns(stream: Stream) -> int | None:
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def clean(value: object) -> str:
    """One line of text without control, bidi and separator characters."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join("?" if _unsafe(char) else char for char in text)


_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./-_")


def typed(name: object) -> str:
    """`name` as one word of a command that a person may paste, as shlex quotes it (whose import costs 2 ms)."""
    text = clean(name)
    word = text if text and _PLAIN.issuperset(text) else "'" + text.replace("'", "'\"'\"'") + "'"
    return f"-- {word}" if text.startswith("-") else word


def _unsafe(char: str) -> bool:
    code = ord(char)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in _BIDI


def width(text: str) -> int:
    """Columns on a terminal: two for wide East Asian characters, none for combining ones."""
    if text.isascii():
        return len(text)
    import unicodedata  # 1 ms, and most names are ASCII

    return sum(
        0 if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me", "Cf"}
        else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )  # fmt: skip


def fit(text: str, columns: int) -> str:
    """`text` cut to `columns` with an ellipsis."""
    if width(text) <= columns:
        return text
    kept = ""
    for char in text:
        if width(kept + char) > columns - 1:
            break
        kept += char
    return kept + "…"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], ink: Ink, *, state: int | None = None) -> str:
    """Aligned columns, cut to the terminal's width by shortening the widest; column `state` is coloured by its word."""
    cells = [[clean(cell) or "-" for cell in row] for row in rows]
    widths = [max([width(head), *(width(row[at]) for row in cells)]) for at, head in enumerate(heads)]
    _shrink(widths, ink.width)
    lines = [ink.paint(_line(list(heads), widths), "heading")]
    for row in cells:
        line = _line(row, widths, paint=(ink, state) if state is not None else None)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _shrink(widths: list[int], limit: int | None) -> None:
    while limit is not None and sum(widths) + _GAP * (len(widths) - 1) > limit:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _line(row: list[str], widths: list[int], *, paint: tuple[Ink, int] | None = None) -> str:
    parts = []
    for at, (cell, columns) in enumerate(zip(row, widths, strict=True)):
        text = fit(cell, columns)
        filler = " " * (columns - width(text)) if at < len(row) - 1 else ""
        if paint is not None and at == paint[1]:
            text = paint[0].paint(text, cell)
        parts.append(text + filler)
    return (" " * _GAP).join(parts).rstrip()


# ---- times ----


def epoch(stamp: object) -> float | None:
    """Seconds since 1970 of `2026-11-22T20:00:00Z`; None for anything else. datetime costs 2 ms at every start."""
    text = str(stamp)
    if len(text) < 20 or text[10] != "T" or text[-1] != "Z":
        return None
    try:
        year, month, day, hour, minute, second = (
            int(text[at:end]) for at, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
        )
    except ValueError:
        return None
    # days since 1970-01-01 in the proleptic Gregorian calendar, with years that begin in March
    shifted = year - (month <= 2)
    days = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day
    return float((days - 719469) * 86400 + hour * 3600 + minute * 60 + second)


def span(seconds: float) -> str:
    """`3h 12m`, `4m 10s` or `9s`: the two largest units."""
    left = max(0, int(seconds))
    days, left = divmod(left, 86400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (left, "s")) if n]
    return " ".join(parts[:2]) or "0s"


def ago(stamp: object, now: float | None = None) -> str:
    """`4m 10s ago`, or `never`."""
    then = epoch(stamp)
    return "never" if then is None else f"{span((time.time() if now is None else now) - then)} ago"


def local(stamp: object) -> str:
    """The local wall clock of a stamp: the hour today, the day too on another one."""
    then = epoch(stamp)
    if then is None:
        return "-"
    at = time.localtime(then)
    today = time.strftime("%Y-%m-%d") == time.strftime("%Y-%m-%d", at)
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", at)


def skew(seconds: object) -> str | None:
    """`clock is 7 minutes behind AWS`, or None below a minute."""
    if not isinstance(seconds, (int, float)) or abs(seconds) < 60:
        return None
    minutes = round(abs(seconds) / 60)
    unit = "minute" if minutes == 1 else "minutes"
    return f"clock is {minutes} {unit} {'ahead of' if seconds > 0 else 'behind'} AWS"


def peer_text(peer: Any) -> str:
    """`terraform (4711)` of a peer object, whatever of it is known."""
    if not isinstance(peer, dict):
        return "-"
    name = os.path.basename(str(peer.get("argv0") or peer.get("exe") or "")).lstrip("-")
    pid = peer.get("pid")
    return clean(f"{name or 'process'} ({pid})" if pid else name or "-")
