"""What a terminal shows, as an SVG: text that can be selected and searched, in the reader's own fixed-width font.

Rule: nothing is fetched by who looks at it (no font, no script, no style sheet of elsewhere), and the same screen makes
the same bytes. (The libraries that there are draw pixels, are for recordings, or name a font on a server.)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from pyte.screens import Char

from tests.client.emulated import Emulator

#: Of one cell, and around all of them.
_WIDTH, _HEIGHT, _MARGIN, _BASELINE = 8, 18, 12, 13
_BEHIND, _INK = "#16181d", "#d7dae0"
_COLOURS = {
    "black": "#16181d",
    "red": "#f2777a",
    "green": "#8fce7c",
    "brown": "#e5b567",
    "blue": "#6ea8fe",
    "magenta": "#c792ea",
    "cyan": "#6fd3d3",
    "white": "#d7dae0",
    "brightblack": "#858a96",
}
_FAINT, _FAINTLY = 2, 90


class Screen(Emulator):
    """The emulator of the tests, with the faint text that pyte leaves out, as grey."""

    def select_graphic_rendition(self, *codes: int, **options: Any) -> None:
        super().select_graphic_rendition(*(_FAINTLY if code == _FAINT else code for code in codes), **options)


class _Look(NamedTuple):
    ink: str
    behind: str
    bold: bool
    underlined: bool


def drawn(screen: Screen, title: str) -> str:
    """The whole picture; `title` is what a screen reader says, before the text itself."""
    wide, high = screen.columns * _WIDTH + 2 * _MARGIN, screen.lines * _HEIGHT + 2 * _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'role="img" aria-label={quoteattr(title)}>\n<title>{escape(title)}</title>\n'
        f'<rect width="{wide}" height="{high}" rx="8" fill="{_BEHIND}"/>\n'
        f'<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="13" fill="{_INK}" '
        'xml:space="preserve">\n'
    )
    rows = [part for number in range(screen.lines) for part in _row(screen, number)]
    return head + "".join(f"{part}\n" for part in [*rows, *_cursor(screen)]) + "</g>\n</svg>\n"


def _row(screen: Screen, number: int) -> Iterator[str]:
    cells = [screen.buffer[number][column] for column in range(screen.columns)]
    top, place = _MARGIN + number * _HEIGHT, 0
    for look, run in groupby(cells, _look):
        chars = [cell.data for cell in run]  # "" is the second column of a wide one
        left, length = _MARGIN + place * _WIDTH, len(chars) * _WIDTH
        place += len(chars)
        if look.behind != _BEHIND:
            yield f'<rect x="{left}" y="{top}" width="{length}" height="{_HEIGHT}" fill="{look.behind}"/>'
        yield from _words(chars, left, top + _BASELINE, look)


def _words(chars: list[str], left: int, base: int, look: _Look) -> Iterator[str]:
    """Each piece between wide gaps has a place and a length of its own, so that columns stand whatever the font is."""
    text = "".join(char or "\0" for char in chars)
    for start, end in _pieces(text):
        said = escape(text[start:end].replace("\0", ""))
        size = f'x="{left + start * _WIDTH}" y="{base}" textLength="{(end - start) * _WIDTH}"'
        yield f'<text {size} lengthAdjust="spacingAndGlyphs"{_style(look)}>{said}</text>'


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    start = None
    for at, char in enumerate(text + "  "):
        if start is None:
            start = None if char == " " else at
        elif (text + "  ")[at : at + 2] == "  ":
            yield start, at
            start = None


def _style(look: _Look) -> str:
    ink = "" if look.ink == _INK else f' fill="{look.ink}"'
    return (
        ink + (' font-weight="bold"' if look.bold else "") + (' text-decoration="underline"' if look.underlined else "")
    )


def _look(cell: Char) -> _Look:
    ink, behind = _colour(cell.fg, _INK), _colour(cell.bg, _BEHIND)
    if cell.reverse:
        ink, behind = behind, ink
    return _Look(ink, behind, cell.bold, cell.underscore)


def _colour(name: str, otherwise: str) -> str:
    if name == "default":
        return otherwise
    plain = name if name in _COLOURS else name.removeprefix("bright")
    return _COLOURS.get(plain) or f"#{name}"


def _cursor(screen: Screen) -> Iterator[str]:
    if not screen.cursor.hidden:
        left, top = _MARGIN + screen.cursor.x * _WIDTH, _MARGIN + screen.cursor.y * _HEIGHT
        yield f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="{_INK}" fill-opacity="0.6"/>'
