"""The pictures' writer: what stands on the screen is in the file, once, where it stood, and nothing else is."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pyte

from tests.pictures.svg import Screen, drawn

_SPACE = "{http://www.w3.org/2000/svg}"


def _screen(text: str, columns: int = 20, lines: int = 4) -> Screen:
    screen = Screen(columns, lines)
    pyte.ByteStream(screen).feed(text.encode())
    return screen


def _texts(picture: str) -> list[tuple[str | None, dict[str, str]]]:
    return [(each.text, dict(each.attrib)) for each in ET.fromstring(picture).iter(f"{_SPACE}text")]


def test_each_piece_where_it_stood() -> None:
    """Columns and rows are places in cells of 8 by 18; pieces are kept whole over one blank, and apart over two."""
    found = _texts(drawn(_screen("one two   <&>\r\n  \u65e5\u672c x"), "t"))

    assert [(text, each["x"], each["y"], each["textLength"]) for text, each in found] == [
        ("one two", "12", "25", "56"),
        ("<&>", "92", "25", "24"),
        ("\u65e5\u672c x", "28", "43", "48"),
    ]


def test_looks() -> None:
    """Colour, bold, faint, underlined, reversed: each in the piece that has it, and in no other."""
    found = _texts(
        drawn(_screen("\x1b[32mgreen\x1b[0m \x1b[1mbold\x1b[0m \x1b[2mfaint\x1b[0m\r\n\x1b[7mback\x1b[0m"), "t")
    )
    looks = {str(text).strip(): {name: each.get(name) for name in ("fill", "font-weight")} for text, each in found}

    assert looks["green"] == {"fill": "#8fce7c", "font-weight": None}
    assert looks["bold"] == {"fill": None, "font-weight": "bold"}
    assert looks["faint"] == {"fill": "#858a96", "font-weight": None}
    assert looks["back"]["fill"] == "#16181d"
    assert 'width="32" height="18" fill="#d7dae0"' in drawn(_screen("\x1b[?25l\x1b[7mback\x1b[0m"), "t")


def test_nothing_is_fetched_and_nothing_runs() -> None:
    """No address but that of the format itself, no script; the same screen makes the same bytes."""
    text = "<script>alert(1)</script> \" ' &amp; \x1b[31mx"
    picture = drawn(_screen(text, 80), 'a "title" <here>')

    assert picture == drawn(_screen(text, 80), 'a "title" <here>')
    assert re.findall(r"\w+://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]
    assert {each.tag.removeprefix(_SPACE) for each in ET.fromstring(picture).iter()} == {
        "svg",
        "title",
        "rect",
        "g",
        "text",
    }


def test_the_cursor_is_there_unless_hidden() -> None:
    """A block where the next character would stand."""
    assert 'x="36" y="12" width="8" height="18" fill="#d7dae0" fill-opacity' in drawn(_screen("abc"), "t")
    assert "fill-opacity" not in drawn(_screen("abc\x1b[?25l"), "t")
