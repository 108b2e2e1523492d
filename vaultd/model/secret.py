"""Secret: a value that refuses to be shown, copied, pickled or compared in variable time.

Rule: the only way out is `reveal()`, and every place that calls it is listed in tests/test_imports.py.
Wiping is best effort: botocore and `str` keep copies that Python cannot erase (security.md T10).
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Text that never reaches a repr, str, format, pickle or JSON."""

    __slots__ = ("__weakref__", "_bytes")

    def __init__(self, value: str | bytes) -> None:
        self._bytes = bytearray(value.encode() if isinstance(value, str) else value)

    def reveal(self) -> str:
        """The text itself; raises ValueError once wiped, so that a dropped key is never sent as an empty one."""
        return self.reveal_bytes().decode()

    def reveal_bytes(self) -> bytes:
        """The bytes themselves; raises ValueError once wiped."""
        if not self._bytes:
            raise ValueError("the secret is empty or was wiped")
        return bytes(self._bytes)

    def digits(self, count: int) -> Secret | None:
        """Exactly `count` ASCII digits with blanks left out, or None: the shape of a token code, checked unrevealed."""
        kept = self._bytes.translate(None, b" \t\r\n")
        return Secret(bytes(kept)) if len(kept) == count and kept.isdigit() else None

    def wipe(self) -> None:
        """Overwrite and empty it."""
        self._bytes[:] = b"\0" * len(self._bytes)
        self._bytes.clear()

    def __bool__(self) -> bool:
        return bool(self._bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the secret

    def __repr__(self) -> str:
        return "<Secret>"

    def __format__(self, spec: str) -> str:
        return "<Secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")

    def __copy__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied")

    def __del__(self) -> None:
        self.wipe()
