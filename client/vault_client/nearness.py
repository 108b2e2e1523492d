"""What fits what was typed, best first: the profiles of the picker.

Rules
- Each word counts for itself: by the name's letters in their order, or as the beginning of account or role.
- Best first (`nearness`), then the most used, then the shortest name; a longer text never fits more.
"""

from __future__ import annotations

from vault_client.tables import clean, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_STATES = {"mfa_required": "needs a code", "none": "no session"}
#: Without these no letter of a word is its first.
_APART = {ord(char): " " for char in "-_.:/@+=,~#()[]{}|\\'\"!?&*<>$%^`;"}
_FOREVER = 1e9
_WHOLE, _BEGINS, _WORD, _INITIALS, _INSIDE, _BESIDE, _SCATTERED = range(7)


class Row:
    """A profile, as it is shown and found."""

    __slots__ = ("_initials", "account", "folded", "left", "name", "role", "state", "used")

    def __init__(self, profile: Mapping[str, Any], used: float = 0.0) -> None:
        self.name = str(profile["profile"])
        self.account = clean(profile.get("account_id"))
        self.role = clean(str(profile.get("role_arn") or "").rpartition("/")[2])
        self.state = clean(profile.get("state"))
        seconds = profile.get("seconds_left")
        self.left = float(seconds) if isinstance(seconds, (int, float)) and 0 < seconds < _FOREVER else 0.0
        self.used = used
        self.folded = folded(self.name)
        self._initials: str | None = None

    @property
    def session(self) -> str:
        """`fresh 55m`, `needs a code`."""
        text = _STATES.get(self.state, self.state)
        return f"{text} {span(self.left).partition(' ')[0]}" if self.left else text

    @property
    def initials(self) -> str:
        """`web-admin eu` → `wae`."""
        if self._initials is None:
            self._initials = "".join(word[0] for word in self.folded.translate(_APART).split())
        return self._initials


def folded(text: str) -> str:
    """As it is compared: no letter case, and accents however they were typed."""
    if text.isascii():
        return text.lower()
    import unicodedata

    return unicodedata.normalize("NFC", text).casefold()


def fitting(rows: Iterable[Row], typed: str) -> list[Row]:
    """The rows that fit every word of what was typed: best first, then the most used, then the shortest."""
    words = folded(typed).split()
    if not words:
        return list(rows)
    found = []
    for at, row in enumerate(rows):
        near = [nearness(row, word) for word in words]
        if None not in near:
            kinds, spans = zip(*filter(None, near), strict=True)
            found.append((sum(kinds), sum(spans), -row.used, len(row.name), at, row))
    found.sort(key=lambda each: each[:5])
    return [each[5] for each in found]


def nearness(row: Row, word: str) -> tuple[int, int] | None:
    """How well one word fits, least is best: the whole name, its beginning, a word's beginning in it, the initials of
    its words, anywhere inside, how account or role begin, or its letters in this order, the closer together the better.
    """
    name = row.folded
    at = name.find(word)
    if at == 0:
        return (_WHOLE if name == word else _BEGINS), len(word)
    while at > 0:
        if not name[at - 1].isalnum():
            return _WORD, len(word)
        at = name.find(word, at + 1)
    if len(word) > 1 and word in row.initials:
        return _INITIALS, len(word)
    if word in name:
        return _INSIDE, len(word)
    if row.account.startswith(word) or row.role.lower().startswith(word):
        return _BESIDE, len(word)
    hits = scattered(name, word)
    return (_SCATTERED, hits[-1] - hits[0] + 1) if hits else None


def scattered(name: str, word: str) -> list[int]:
    """Where the letters of `word` stand in `name`, in their order, from the first place at which they end, and as close
    together as they get there; nothing when they do not.
    """
    at = -1
    for char in word:
        at = name.find(char, at + 1)
        if at < 0:
            return []
    hits = []
    at += 1
    for char in reversed(word):
        at = name.rfind(char, 0, at)
        hits.append(at)
    return hits[::-1]


def marks(row: Row, typed: str) -> frozenset[int]:
    """Which characters of the name are what was typed."""
    if len(row.folded) != len(row.name):  # casefolding made one letter two
        return frozenset()
    found: set[int] = set()
    for word in folded(typed).split():
        near = nearness(row, word)
        if near is None or near[0] == _BESIDE:
            continue
        found.update(_places(row, word, near[0]))
    return frozenset(found)


def _places(row: Row, word: str, kind: int) -> Iterable[int]:
    if kind == _SCATTERED:
        return scattered(row.folded, word)
    if kind == _INITIALS:
        first = row.initials.find(word)
        return _starts(row.folded)[first : first + len(word)]
    at = row.folded.find(word)
    while kind == _WORD and row.folded[at - 1].isalnum():
        at = row.folded.find(word, at + 1)
    return range(at, at + len(word))


def _starts(name: str) -> list[int]:
    apart = name.translate(_APART)
    return [at for at, char in enumerate(apart) if not char.isspace() and (at == 0 or apart[at - 1].isspace())]
