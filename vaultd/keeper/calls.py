"""The calls that are under way at the keeper's process, and how each of them ends: by its answer, or with that process.

Rule: whoever waits is told how it ended, and a code that was handed down counts as sent.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from vaultd.errors import KeeperEnded, VaultdError
from vaultd.keeper import wire


@dataclass(frozen=True, slots=True)
class _Call:
    code: bool
    landed: asyncio.Future[wire.Message]


class Calls:
    """By number, which is never used again."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Call] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, *, code: bool) -> tuple[int, asyncio.Future[wire.Message]]:
        """A number, and where its answer lands; `code`: one goes down with it."""
        number = next(self._numbers)
        landed: asyncio.Future[wire.Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Call(code, landed)
        return number, landed

    def end(self, number: int) -> None:
        """Nobody waits for that one any more."""
        self._waiting.pop(number, None)

    def land(self, message: wire.Message) -> None:
        """An answer; of a call that is over it is nobody's."""
        number = message["id"]
        found = self._waiting.get(number) if isinstance(number, int) else None
        if found is not None and not found.landed.done():
            found.landed.set_result(message)

    def fail(self, error: VaultdError) -> None:
        """Whoever waits is told; a code that was handed down counts as sent."""
        for each in self._waiting.values():
            if not each.landed.done():
                told = copied(error)
                told.details |= {"code_sent": each.code}
                each.landed.set_result({"error": wire.packed_error(told)})


def ended(how: str, *, code: bool) -> KeeperEnded:
    """`how` is the end of a sentence; `code`: one counts as sent."""
    return KeeperEnded(f"vaultd's keeper process {how}: try again, or type `vaultd logs`", code_sent=code)


def copied(error: VaultdError) -> VaultdError:
    """One for each who waits: an error that is raised twice keeps the first one's traceback."""
    return type(error)(error.message, **error.details)
