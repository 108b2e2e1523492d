"""What the picker shows: the text so far, the profiles that fit it, the marked one; what a key does to it; its frame.

Rule: nothing here knows a terminal; the keys are keyboard.py's, the lines for screen.py's `draw`.
"""

from __future__ import annotations

from vault_client.nearness import Row, fitting, marks
from vault_client.screen import column
from vault_client.tables import clean, fit, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vault_client.tables import Ink

_LONGEST_TYPED = 200
_MOVES = {"up": -1, "ctrl-p": -1, "down": 1, "ctrl-n": 1}


class Offer:
    """What was typed, what fits it, and which of these is marked. `widths`: of the longest in each column."""

    __slots__ = ("at", "found", "rows", "top", "typed", "widths")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.typed = ""
        self.found = list(rows)
        self.at = self.top = 0
        cells = ((row.name, row.account, row.role, row.session) for row in rows)
        self.widths = [max(map(width, texts)) for texts in zip(*cells, strict=True)]

    def type(self, text: str) -> None:
        """Another text: from its best fit on."""
        if text != self.typed:
            self.typed = text[:_LONGEST_TYPED]
            self.found = fitting(self.rows, self.typed)
            self.at = self.top = 0

    def move(self, to: int) -> None:
        """Mark this one, or the nearest that there is."""
        self.at = max(0, min(to, len(self.found) - 1))

    def page(self, height: int) -> list[Row]:
        """The rows to be seen, with the marked one among them."""
        self.top = max(self.at - height + 1, min(self.top, self.at, max(0, len(self.found) - height)))
        return self.found[self.top : self.top + height]


def joined(keys: Iterable[str]) -> Iterator[str]:
    """What was pasted is looked for once, not letter by letter: as text behind a blank, as no key is named."""
    text = ""
    for key in keys:
        if len(key) == 1:
            text += key
            continue
        yield from [f" {text}"] if text else []
        text = ""
        yield key
    yield from [f" {text}"] if text else []


def take(shown: Offer, key: str, *, height: int) -> None:
    """What a key does to it; text begins with a blank, as `joined` gives it."""
    if key.startswith(" "):
        shown.type(shown.typed + key[1:])
    elif key in _MOVES:
        shown.move(shown.at + _MOVES[key])
    elif key in {"pageup", "pagedown"}:
        shown.move(shown.at + (height if key == "pagedown" else -height))
    elif key in {"home", "end"}:
        shown.move(0 if key == "home" else len(shown.found) - 1)
    elif key == "backspace":
        shown.type(_shorter(shown.typed))
    elif key == "ctrl-u":
        shown.type("")
    elif key == "ctrl-w":
        shown.type(shown.typed.rstrip().rpartition(" ")[0])


def _shorter(text: str) -> str:
    """Without the last letter, and what is combined with it."""
    while text and not width(text[-1]):
        text = text[:-1]
    return text[:-1]


def heading(purpose: str) -> str:
    """What is chosen here, before the text."""
    return {"login": "profile to sign in to", "exec": "profile for the command"}.get(purpose, f"profile to {purpose}")


def page_height(size: tuple[int, int]) -> int:
    """Rows for profiles: all but the line that is typed on and, where there is room, the one that tells the keys."""
    return max(1, size[1] - (2 if size[1] > 3 else 1))


def frame(shown: Offer, purpose: str, size: tuple[int, int], ink: Ink) -> tuple[list[str], tuple[int, int]]:
    """The lines of the screen, and where the cursor stands."""
    columns, rows = size
    label = f"{purpose}> " if columns < 40 else f"{heading(purpose)}: "
    room = max(1, columns - len(label) - 1)
    text = clean(shown.typed)
    while width(text) > room:
        text = text[1:]
    lines = [ink.paint(label, "heading") + text]
    height = page_height(size)
    widths = _widths(shown.widths, columns - 2)
    page = shown.page(height)
    lines += [_line(row, widths, shown.typed, ink, here=shown.top + at == shown.at) for at, row in enumerate(page)]
    if not page:
        lines.append(fit("  nothing fits: Backspace", columns))
    if rows > 3:
        lines += [""] * (height - max(1, len(page)))
        lines.append(ink.paint(_footer(shown, columns), "none"))
    return lines[:rows], (0, min(columns - 1, len(label) + width(text)))


def _footer(shown: Offer, columns: int) -> str:
    count = f"{len(shown.found)} of {len(shown.rows)}"
    parts = [count, "Enter chooses", "Esc leaves", "type to filter", "Up and Down move"]
    while len(parts) > 1 and len(" · ".join(parts)) > columns:
        parts.pop()
    return " · ".join(parts)[
        :columns
    ]  # each as wide as a letter: `width` would load tables that a plain list never needs


def _widths(longest: Sequence[int], columns: int) -> list[int]:
    """Of name, account, role and session; 0 for a column that there is no room for."""
    wanted = list(longest)
    least = [min(wanted[0], 16), wanted[1], min(wanted[2], 8), wanted[3]]
    for dropped in (1, 2, 3):
        if _sum(least) > columns:
            least[dropped] = wanted[dropped] = 0
    for at in (2, 0):  # a role is cut before a name is
        wanted[at] = max(least[at], wanted[at] - max(0, _sum(wanted) - columns))
    wanted[0] = min(wanted[0], max(1, columns))
    return wanted


def _sum(widths: Sequence[int]) -> int:
    kept = [each for each in widths if each]
    return sum(kept) + 2 * (len(kept) - 1)


def _line(row: Row, widths: Sequence[int], typed: str, ink: Ink, *, here: bool) -> str:
    parts = ["> " if here else "  ", _name(row, widths[0], typed, ink, here=here)]
    at = 2 + widths[0] + 2
    for text, room, kind in (
        (row.account, widths[1], ""),
        (row.role, widths[2], ""),
        (row.session, widths[3], row.state),
    ):
        if room:
            parts += [column(at), ink.paint(fit(text, room), kind)]
            at += room + 2
    return "".join(parts)


def _name(row: Row, room: int, typed: str, ink: Ink, *, here: bool) -> str:
    """The name, what was typed of it marked; too long a one loses its middle, as names differ at their ends."""
    hits = marks(row, typed)
    letters = [(clean(char), at in hits) for at, char in enumerate(row.name)]
    if width(row.name) > room:
        letters = _without_middle(letters, room)
    plain = "\x1b[0;7m" if here else "\x1b[0m"
    strong = plain[:-1] + (";1;36m" if ink.on and not here else ";1;4m")
    text = ""
    marked = None
    for char, hit in letters:
        if hit is not marked:
            text += strong if hit else plain
            marked = hit
        text += char
    return text + "\x1b[0m"


def _without_middle(letters: list[tuple[str, bool]], room: int) -> list[tuple[str, bool]]:
    head: list[tuple[str, bool]] = []
    tail: list[tuple[str, bool]] = []
    left = room - 1
    for at in range(len(letters)):  # by turns from both ends
        each = letters[at // 2] if at % 2 == 0 else letters[-1 - at // 2]
        left -= width(each[0])
        if left < 0:
            break
        (head if at % 2 == 0 else tail).append(each)
    return [*head, ("…", False), *reversed(tail)]
