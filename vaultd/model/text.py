"""The only maker of strings that a terminal may see.

Rule: what a profile name, a process or AWS wrote is hostile until it went through `shown()`: no C0, C1, bidi control
or line separator, at most 200 characters (interface.md §6). Control characters inject into prompts (security.md §4).
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable

from vaultd.model import near

LIMIT = 200
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def shown(text: str, *, limit: int = LIMIT) -> str:
    """`text` with every unsafe character as `?`, cut to `limit` characters with an ellipsis."""
    clean = text[: limit + 1]
    if not (clean.isascii() and clean.isprintable()):  # nearly always: `list` shows 5,000 texts for 1,000 profiles
        clean = "".join("?" if _unsafe(char) else char for char in clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def typed(name: str) -> str:
    """`name` as one word of a command that a person may paste: a profile may be called `$(…)` or `a b`."""
    word = shlex.quote(shown(name))
    return f"-- {word}" if name.startswith("-") else word


def _unsafe(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} or ord(char) in _BIDI


def reason_phrase(text: str) -> str:
    """An HTTP reason phrase: printable ASCII, others `?`, at most 160 characters (minio-go and .NET show only it)."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:160])


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean a, b?` with a leading space, or nothing: for errors about unknown names."""
    return meant(near.Names(names).close(name))


def meant(close: Iterable[str]) -> str:
    """` Did you mean a, b?` with a leading space, or nothing."""
    said = ", ".join(shown(each) for each in close)
    return f" Did you mean {said}?" if said else ""


def counted(number: int, noun: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration_text(seconds: float) -> str:
    """`3h 12m`, `4m 10s` or `9s`: the two largest units."""
    left = max(0, int(seconds))
    days, left = divmod(left, 86400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (left, "s")) if n]
    return " ".join(parts[:2]) or "0s"
