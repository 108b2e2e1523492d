"""The file that keeps a locked daemon locked over a restart (interface.md §7): `locked`, in state.

Rule: it is written after everything else is forgotten (keeper.py: `close`). Where it cannot be, the daemon is locked
and says that a restart would open the store; where it cannot be removed, that a restart would not.
"""

from __future__ import annotations

import logging
from pathlib import Path

from vaultd.errors import Unwritable, VaultdError
from vaultd.files import Files

log = logging.getLogger(__name__)


class LockedMarker:
    """The file at `path`."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path

    def there(self) -> bool:
        """Does a start leave the store shut? Raises FileRefused."""
        return self._files.read(self._path) is not None

    def put(self) -> None:
        """Raises Unwritable."""
        try:
            self._files.replace(self._path, b"locked\n")
        except VaultdError as exc:
            log.warning("write locked-marker failed error=%s", exc.message)
            raise Unwritable(
                f"vaultd is locked, but {self._path} could not be written and a restart would open the store again: "
                f"{_mending(exc)}, then type `vault-client lock` again.",
                path=str(self._path),
            ) from exc

    def take_away(self) -> list[str]:
        """For an `unlock`; the warning where it stays."""
        try:
            self._files.remove(self._path)
        except Unwritable as exc:
            return [f"vaultd is unlocked now but will start locked: {exc.message}"]
        return []


def _mending(exc: VaultdError) -> str:
    """What the file layer says mends it: a full disk and a directory that may not be written want different things."""
    return exc.message.rpartition(": ")[2].removesuffix(".").removesuffix(", and try again")
