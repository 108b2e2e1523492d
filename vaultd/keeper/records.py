"""What the keeper keeps in the sealed log, and what happens when the disk takes nothing.

Rule: a disk that is full or read-only is told once, and costs no session: what should have been sealed still serves
until the daemon ends (interface.md §1). Keys of records: `mfa:…`, `cell:FINGERPRINT:KIND`, `codes:SERIAL`, `codes`,
`head`, `index`.
"""

from __future__ import annotations

import logging

from vaultd.engine.seams import SealedLog
from vaultd.errors import Unwritable
from vaultd.model.secret import Secret

log = logging.getLogger(__name__)


class Records:
    """The sealed log, open or shut."""

    def __init__(self, sealed: SealedLog) -> None:
        self._sealed = sealed
        self._told = False

    @property
    def damaged(self) -> bool:
        """True when the log was set aside at `open`."""
        return self._sealed.damaged

    def open(self, data_key: Secret) -> dict[str, bytes]:
        """The living records by key."""
        return self._sealed.open(data_key)

    def seal(self, key: str, value: bytes | None) -> None:
        """Write one record, or drop it (None); raises Unwritable, which is logged once until a write succeeds."""
        try:
            self._sealed.append(key, value)
        except Unwritable as exc:
            self._tell(exc)
            raise
        self._told = False

    def keep(self, key: str, value: bytes | None) -> bool:
        """Like `seal`, for what goes on without the disk; False when it was not written."""
        try:
            self.seal(key, value)
        except Unwritable:
            return False
        return True

    def compact(self) -> None:
        """Take what was dropped off the disk; raises Unwritable."""
        try:
            self._sealed.compact()
        except Unwritable as exc:
            self._tell(exc)
            raise

    def close(self) -> None:
        """Forget the data key."""
        self._sealed.close()

    def _tell(self, exc: Unwritable) -> None:
        if not self._told:
            log.warning("seal record failed error=%s", exc.message)
        self._told = True
