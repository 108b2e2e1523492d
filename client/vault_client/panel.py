"""The frame of `status --watch`: what is known of the daemon, as lines for a terminal of any size.

Rules
- Pure: the same board and size make the same lines. What a person has to answer comes first and is never pushed out,
  then what lives; what is in error stays so until somebody mends it, and is last.
- A narrow terminal loses columns, a low one rows (their number is told), none its way out.
"""

from __future__ import annotations

from collections import deque

from vault_client import ask
from vault_client.changes import clock, rows, troubles
from vault_client.tables import Ink, ago, clean, epoch, fit, peer_text, skew, span, table, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Body = dict[str, Any]

_DENIALS = 20
_NUMBERED = 9
_NOTED = 3
_HOUR = 3600.0
#: What waits for a person, what lives, what has ended (from _DEAD on), what somebody has to mend.
_ORDER = {"mfa_required": 0, "due": 1, "fresh": 2, "expired": 3, "error": 5}
_DEAD = 3
_BARS = ("█", "░")
_PLAIN_BARS = ("#", "-")


class Board:
    """What the frame shows. `body`: of GET /v1/status, as it was `at` (monotonic seconds)."""

    __slots__ = ("at", "away", "bars", "body", "denials", "lengths", "page", "said", "top")

    def __init__(self, *, utf8: bool = True) -> None:
        self.body: Body = {}
        self.at = 0.0
        #: Why nothing is heard of the daemon; what is shown is then of before.
        self.away = ""
        #: A word for the person, until he presses a key.
        self.said = ""
        self.denials: deque[Body] = deque(maxlen=_DENIALS)
        #: profile → of which session, and how long that was when it was seen first.
        self.lengths: dict[str, tuple[object, float]] = {}
        self.bars = _BARS if utf8 else _PLAIN_BARS
        #: The first session that is shown, and how many are: `frame` keeps both within what there is room for.
        self.top = self.page = 0

    def take(self, body: Body, at: float) -> None:
        """Another answer of the daemon."""
        self.body, self.at = body, at
        for row in rows(body, "profiles"):
            name, left = str(row.get("profile")), row.get("seconds_left")
            if isinstance(left, (int, float)) and self.lengths.get(name, (None, 0))[0] != row.get("expiration"):
                self.lengths[name] = row.get("expiration"), max(_HOUR, float(left))

    def scroll(self, key: str) -> bool:
        """The sessions, by an arrow or a page; False for any other key."""
        step = {"up": -1, "down": 1, "pageup": -self.page, "pagedown": self.page}.get(key)
        if step is not None:
            self.top = max(0, self.top + step)
        return step is not None

    @property
    def questions(self) -> list[Body]:
        """Those that a digit answers, the oldest first."""
        return rows(self.body, "prompts")[:_NUMBERED]


def frame(
    board: Board, size: tuple[int, int], ink: Ink, *, now: float, wall: float, asked: Sequence[str] = ()
) -> tuple[list[str], tuple[int, int] | None]:
    """The lines, and where the cursor stands. `asked`: a question being answered, and what is typed to it last; `now`
    is monotonic as in Board, `wall` seconds since 1970.
    """
    columns, height = size
    ink.width = columns
    head = [ink.paint(fit(_head(board), columns), "heading"), *_notes(board, columns, ink)][: max(1, height // 2)]
    foot = _asking(asked, columns, height) if asked else _foot(board, columns, height, ink)
    room = height - len(head) - len(foot)
    body = _sections(board, columns, room, ink, now=now, wall=wall)
    if not asked:
        foot[-1] = _keys(board, columns, ink)
    lines = [*head, *body, *[""] * (room - len(body)), *foot][-height:]
    return lines, (len(lines) - 1, min(columns - 1, width(foot[-1]))) if asked else None


def _head(board: Board) -> str:
    body = board.body
    state = "locked" if body.get("locked") else "unlocked"
    if board.away:
        state = "away"
    parts = [f"vaultd {state}", body.get("version"), f"pid {body.get('pid')}", f"port {body.get('port')}"]
    return " · ".join(map(clean, [*parts, f"store {body.get('store')}"]))


def _notes(board: Board, columns: int, ink: Ink) -> list[str]:
    """What is wrong with the daemon, its clock and its log."""
    body = board.body
    said = [board.away] if board.away else []
    if body.get("locked"):
        said.append("nothing is served: type `vault-client unlock`")
    if text := skew(body.get("clock_skew_seconds")):
        said.append(f"{text}: set the clock")
    if lost := body.get("lost_audit_lines"):
        said.append(f"{lost} audit lines could not be written: free space")
    lines = [line for each in (said + troubles(body))[:_NOTED] for line in wrapped(each, columns)]
    return [ink.paint(line, "bad") for line in lines]


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of words; a word that is too long is cut in pieces, none of it is lost."""
    lines: list[str] = []
    line = ""
    for word in clean(text).split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined) <= columns:
            line = joined
            continue
        pieces = _pieces(word, columns)
        lines += [*([line] if line else []), *pieces[:-1]]
        line = pieces[-1]
    return [*lines, line]


def _pieces(word: str, columns: int) -> list[str]:
    pieces = [""]
    for char in word:
        if pieces[-1] and width(pieces[-1] + char) > columns:
            pieces.append("")
        pieces[-1] += char
    return pieces


# ---- the foot ----


def _asking(asked: Sequence[str], columns: int, height: int) -> list[str]:
    lines = [line for each in asked[:-1] for line in wrapped(each, columns)]
    return [*lines[: max(0, height - 2)], fit(asked[-1], columns - 1)]


def question(prompt: Body, said: str, typed: str) -> list[str]:
    """What `frame` shows as `asked`: who wants what, a word on the last try, and the line that is typed on."""
    line = f"[y/N] {typed}" if ask.consents(prompt) else "MFA code: "
    hint = "what is typed is not shown; Esc leaves it open"
    if ask.consents(prompt):
        hint = "allow it until a lock, or for 8 hours? Enter alone denies, Esc leaves it open"
    return [ask.headline(prompt), said or hint, line]


def _foot(board: Board, columns: int, height: int, ink: Ink) -> list[str]:
    said = wrapped(board.said, columns)[:_NOTED] if board.said else []
    return [*said[: max(0, height - 3)], _keys(board, columns, ink)]


def _keys(board: Board, columns: int, ink: Ink) -> str:
    keys, found = ["q leaves"], rows(board.body, "profiles")
    if asked := len(board.questions):
        keys.append("1 answers" if asked == 1 else f"1-{asked} answer")
    if 0 < board.page < len(found):
        keys.append("Up and Down scroll")
    if bad := sum(row.get("state") == "error" for row in found):
        keys.append(f"{bad} in error: `vault-client status` says why")
    return ink.paint(fit(" · ".join(keys), columns), "none")


# ---- the tables ----


class _Section:
    """A table of so many rows, shown from `top` on; `first` of it are always shown."""

    def __init__(self, heads: Sequence[str], cells: list[Sequence[object]], *, state: int | None = None,
                 none: str = "", first: int = 1, top: int = 0) -> None:  # fmt: skip
        self.top = top
        self.heads, self.cells, self.state, self.none = heads, cells, state, none
        self.first = min(first, len(cells))

    def lines(self, shown: int, ink: Ink) -> list[str]:
        if not self.cells:
            return [self.none] if self.none else []
        heads, at = list(self.heads), self.beginning(shown)
        if shown < len(self.cells):
            heads[0] = f"{heads[0]} {f'{at + 1}-{at + shown}' if at else shown}/{len(self.cells)}"
        return table(heads, self.cells[at : at + shown], ink, state=self.state).splitlines()

    def beginning(self, shown: int) -> int:
        """`top`, or what the last page begins with."""
        return max(0, min(self.top, len(self.cells) - shown))


def _sections(board: Board, columns: int, room: int, ink: Ink, *, now: float, wall: float) -> list[str]:
    sessions = _sessions(board, columns, now)
    every = [
        _questions(board, columns, wall),
        sessions,
        _grants(board, columns, wall),
        _denied(board, columns),
    ]
    every = [each for each in every if each.cells or each.none]
    gaps = len(every) if room >= sum(len(each.cells) + 2 for each in every[:2]) + 6 else 0
    shown = shares([len(each.cells) for each in every], [each.first for each in every], room - len(every) - gaps)
    lines: list[str] = []
    for each, count in zip(every, shown, strict=True):
        if each is sessions:
            board.page, board.top = count, each.beginning(count)
        if count or not each.cells:
            lines += [*([""] if gaps else []), *(fit(line, columns) if "\x1b" not in line else line
                                               for line in each.lines(count, ink))]  # fmt: skip
    return lines[: max(0, room)]


def shares(wanted: Sequence[int], first: Sequence[int], room: int) -> list[int]:
    """Rows for each: what must be seen, then a row each by turns, until nobody wants more or none is left."""
    given = [0] * len(wanted)
    for least in (first, wanted):
        waiting = True
        while room > 0 and waiting:
            waiting = False
            for at, most in enumerate(least):
                if given[at] < most and room > 0:
                    given[at], room, waiting = given[at] + 1, room - 1, True
    return given


def _chosen(heads: Sequence[str], cells: list[Sequence[object]], kept: Sequence[int]) -> Any:
    return [heads[at] for at in kept], [[row[at] for at in kept] for row in cells]


def _questions(board: Board, columns: int, wall: float) -> _Section:
    found = [
        (str(at), each.get("profile") or each.get("identity"), "y/n" if ask.consents(each) else "code",
         each.get("requester"), _until(each.get("expires_at"), wall))
        for at, each in enumerate(board.questions, 1)
    ]  # fmt: skip
    kept = range(5) if columns >= 60 else (0, 1, 2) if columns >= 30 else (0, 1)
    return _Section(*_chosen(("?", "WAITS", "FOR", "ASKED BY", "UNTIL"), list(found), kept), first=_NUMBERED)


def _until(stamp: object, wall: float) -> str:
    at = epoch(stamp)
    return "" if at is None else span(at - wall)


def _sessions(board: Board, columns: int, now: float) -> _Section:
    found = sorted(rows(board.body, "profiles"), key=lambda row: _ORDER.get(str(row.get("state")), _DEAD))
    size = 24 if columns >= 72 else 10 if columns >= 50 else 0
    cells = [
        (row.get("profile"), _bar(board, row, size, now), _left(board, row, now), row.get("state"), row.get("identity"))
        for row in found
    ]
    kept = [0, *([1] if size else []), 2, *([3] if columns >= 34 else []), *([4] if columns >= 72 else [])]
    heads, shown = _chosen(("SESSION", "", "LEFT", "STATE", "IDENTITY"), list(cells), kept)
    state = kept.index(3) if 3 in kept else None
    live = sum(_ORDER.get(str(row.get("state")), _DEAD) < _DEAD for row in found)
    return _Section(heads, shown, state=state, none="no session yet: vault-client use PROFILE", first=max(3, live),
                    top=board.top)  # fmt: skip


def _seconds(board: Board, row: Body, now: float) -> float:
    left = row.get("seconds_left")
    return max(0.0, left - (now - board.at)) if isinstance(left, (int, float)) else 0.0


def _left(board: Board, row: Body, now: float) -> str:
    seconds = _seconds(board, row, now)
    return span(seconds) if seconds else ""


def _bar(board: Board, row: Body, size: int, now: float) -> str:
    """Of an hour, or of the session's length where that is longer."""
    seconds, whole = _seconds(board, row, now), board.lengths.get(str(row.get("profile")), (None, _HOUR))[1]
    filled = min(size, -int(-size * seconds // whole))
    return board.bars[0] * filled + board.bars[1] * (size - filled)


def _grants(board: Board, columns: int, wall: float) -> _Section:
    cells = [
        (each.get("profile"), peer_text(each.get("peer")), ago(each.get("last_used"), wall),
         f"{each.get('kind')}{' · imds' if each.get('imds') else ''}", each.get("id"))
        for each in sorted(rows(board.body, "grants"), key=_used)
    ]  # fmt: skip
    kept = range(5) if columns >= 72 else (0, 1, 2) if columns >= 44 else (0, 1)
    return _Section(*_chosen(("GRANT", "HELD BY", "LAST USE", "KIND", "ID"), list(cells), kept), first=3)


def _used(grant: Body) -> float:
    return -(epoch(grant.get("last_used")) or epoch(grant.get("created")) or 0.0)


def _denied(board: Board, columns: int) -> _Section:
    cells = [
        (clock(each), each.get("reason"), each.get("profile"), peer_text(each.get("peer")), each.get("count") or 1)
        for each in reversed(board.denials)
    ]
    kept = range(5) if columns >= 60 else (0, 1, 3) if columns >= 44 else (0, 1)
    return _Section(*_chosen(("DENIED", "WHY", "PROFILE", "TO", "TIMES"), list(cells), kept))
