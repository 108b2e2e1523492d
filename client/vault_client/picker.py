"""The picker: which profile, when a command was typed without one. `choose` is what `use`, `exec` and `login` call.

Rules
- Only a person is asked: stderr is a terminal, and there is one to read from. Anybody else gets exit 2, as before.
- What is chosen is a name, as if it had been typed: the daemon looks at its config afresh, and says what is wrong.
- Nothing is done until Enter. Esc, Ctrl-C and Ctrl-G leave (130, as fzf does), and say that nothing was done.
- The screen is screen.py's; where none is to be drawn on, a numbered list is printed and a line is read.
- What is typed narrows the list (nearness.py); until then the most used come first (habits.py).
"""

from __future__ import annotations

import os
import sys
import termios

from vault_client import habits
from vault_client.errors import MISCONFIGURED, USAGE, Stop
from vault_client.nearness import Row, fitting, marks
from vault_client.screen import Screen, column
from vault_client.tables import clean, fit, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from vault_client.cli import Call
    from vault_client.tables import Ink

_LONGEST_NAME = 1000
_LONGEST_TYPED = 200
_LONGEST_LINE = 4096
_LISTED = 20
_CANCEL = frozenset({"esc", "ctrl-c", "ctrl-g", "ctrl-\\"})
_MOVES = {"up": -1, "ctrl-p": -1, "down": 1, "ctrl-n": 1}


def choose(call: Call, purpose: str) -> str:
    """The profile that the person at this terminal chooses. `purpose` is the command: `use`, `exec` or `login`. Raises
    Stop: 2 without a terminal, 130 when nothing was chosen, 1 when there is nothing to choose, 69 without a daemon.
    """
    if not sys.stderr.isatty():
        raise _missing(purpose)
    rows = _rows(call, purpose)
    screen = Screen.find(call.environ)
    try:
        found = _listed(rows, purpose) if screen is None else _drawn(screen, rows, purpose, call.environ)
    except KeyboardInterrupt:
        found = None
    except SystemExit as ended:  # a signal; what evaluates our lines is to hear of it, so this ends as a Stop does
        raise Stop("", int(ended.code or 0)) from None
    if found is None:
        words = "exec -- CMD" if purpose == "exec" else purpose  # `exec` alone would be refused
        raise Stop(f"nothing was chosen, so nothing was done: type `vault-client {words}` for the list again, or add "
                   "the name of a profile", 130)  # fmt: skip
    return found


def _missing(purpose: str) -> Stop:
    return Stop(f"{purpose}: PROFILE is missing: type `vault-client {purpose} --help`", USAGE)


def _rows(call: Call, purpose: str) -> list[Row]:
    """What can be chosen, most used first, then as in `list`."""
    body = call.link.call("GET", "/v1/profiles")
    used = habits.scores(call.environ)
    try:
        rows = [Row(each, used.get(str(each["profile"]), 0.0)) for each in body["profiles"]]
    except (TypeError, KeyError, AttributeError):
        raise Stop("vaultd sent a list that is none of profiles: look who answers with `vaultd status`, or type "
                   "`vaultd restart`") from None  # fmt: skip
    # The command line takes no other name, either.
    rows = [row for row in rows if clean(row.name) == row.name and 0 < len(row.name) <= _LONGEST_NAME]
    if not rows:
        raise _nothing(body, purpose)
    rows.sort(key=lambda row: -row.used)
    return rows


def _nothing(body: dict[str, Any], purpose: str) -> Stop:
    trouble = body.get("trouble")
    if trouble:
        return Stop(str(trouble[0] if isinstance(trouble, list) else trouble), MISCONFIGURED)
    return Stop("there is no profile to choose: write `[profile NAME]` and below it `source_profile = IDENTITY` and "
                f"`role_arn = ARN` to ~/.aws/config, then type `vault-client {purpose}`")  # fmt: skip


# ---- on a screen ----


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


def _drawn(screen: Screen, rows: Sequence[Row], purpose: str, environ: Mapping[str, str]) -> str | None:
    shown = Offer(rows)
    with screen:
        while True:
            lines, cursor = frame(shown, purpose, screen.size, screen.ink(environ))
            screen.draw(lines, cursor)
            for key in _joined(screen.wait()[0]):
                if key in _CANCEL or (key == "ctrl-d" and not shown.typed):
                    return None
                if key == "enter" and shown.found:
                    return shown.found[shown.at].name
                if key == "ctrl-z":
                    screen.suspend()
                _take(shown, key, height=_height(screen.size))


def _joined(keys: Iterable[str]) -> Iterator[str]:
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


def _take(shown: Offer, key: str, *, height: int) -> None:
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


def _label(purpose: str) -> str:
    return {"login": "profile to sign in to", "exec": "profile for the command"}.get(purpose, f"profile to {purpose}")


def _height(size: tuple[int, int]) -> int:
    """Rows for profiles: all but the line that is typed on and, where there is room, the one that tells the keys."""
    return max(1, size[1] - (2 if size[1] > 3 else 1))


def frame(shown: Offer, purpose: str, size: tuple[int, int], ink: Ink) -> tuple[list[str], tuple[int, int]]:
    """The lines of the screen, and where the cursor stands."""
    columns, rows = size
    label = f"{purpose}> " if columns < 40 else f"{_label(purpose)}: "
    room = max(1, columns - len(label) - 1)
    text = clean(shown.typed)
    while width(text) > room:
        text = text[1:]
    lines = [ink.paint(label, "heading") + text]
    height = _height(size)
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


# ---- on a terminal that shows lines ----


def _listed(rows: Sequence[Row], purpose: str) -> str | None:
    """A numbered list, and a line to type a number or a part of a name on: for dumb terminals and screen readers."""
    try:
        device, owned = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC), True
    except OSError:
        device, owned = 0, False
    if not owned and not sys.stdin.isatty():
        raise _missing(purpose)
    try:
        return _numbered(rows, purpose, device, device if owned else 2)
    except (OSError, termios.error):  # the terminal went away
        return None
    finally:
        if owned:
            os.close(device)


def _numbered(rows: Sequence[Row], purpose: str, source: int, target: int) -> str | None:
    termios.tcflush(source, termios.TCIFLUSH)  # what was typed before the list was seen chooses nothing on it
    found = list(rows)
    while True:
        _tell(target, listing(found, purpose))
        typed = _typed_line(source)
        if not typed:
            return None
        chosen = _numbered_one(found, typed)
        if chosen is not None:
            return chosen
        narrowed = fitting(rows, typed)
        if not narrowed:
            _tell(target, f"nothing fits {clean(typed)}\n")
        found = narrowed or found


def _numbered_one(found: Sequence[Row], typed: str) -> str | None:
    if typed.isascii() and typed.isdigit() and len(typed) < 6 and 0 < int(typed) <= min(len(found), _LISTED):
        return found[int(typed) - 1].name
    return next((row.name for row in found if row.name == typed), None)


def listing(rows: Sequence[Row], purpose: str) -> str:
    """The first of them, a line each, and what can be typed."""
    lines = []
    for number, row in enumerate(rows[:_LISTED], 1):
        beside = (row.account and f"account {row.account}", row.role and f"role {row.role}", row.session)
        lines.append(", ".join(part for part in (f"{number}. {row.name}", *beside) if part))
    if len(rows) > _LISTED:
        lines.append(f"and {len(rows) - _LISTED} more")
    lines.append(f"{_label(purpose)}: a number, a part of a name, or Enter to leave: ")
    return "\n".join(lines)


def _tell(target: int, text: str) -> None:
    raw = text.encode("utf-8", "replace")
    while raw:
        raw = raw[os.write(target, raw) :]


def _typed_line(source: int) -> str:
    typed = bytearray()
    while not typed.endswith(b"\n") and len(typed) < _LONGEST_LINE:
        piece = os.read(source, 4096)
        if not piece:
            break
        typed += piece
    return typed.decode("utf-8", "replace").strip()
