"""Which `identities.json` was written last, as the sealed log knows it: an older one that is put back is told.

Rules
- Two places know of it: the file, and its digest under the data key. An older log is told in its turn, by the audit
  log.
- Before the file is written the log holds the old digest and the new one, after it the new one alone: a kill, or a disk
  that takes nothing, between the two accuses nobody.
- Told once: the warning is in the audit log then, and what lies there is what is gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from vaultd.keeper.records import Records

_KEY = "index"


class IndexSeal:
    """Over the sealed log, while that is open."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def open(self, living: Mapping[str, bytes], digest: str, *, empty: bool) -> bool:
        """Is the file with this digest the one that was written last? `empty`: it lists nothing."""
        known = _digests(living.get(_KEY))
        if known != (digest,) and not (empty and not known):
            self.settle(digest)
        return not known or digest in known

    def expect(self, old: str, new: str) -> None:
        """Either may be there from now on. Raises Unwritable, and the file is not to be written then."""
        self._records.seal(_KEY, _record(old, new))

    def settle(self, digest: str) -> None:
        """That one is there."""
        self._records.keep(_KEY, _record(digest))


def _record(*digests: str) -> bytes:
    return json.dumps({"v": 1, "digests": digests}).encode()


def _digests(record: bytes | None) -> tuple[str, ...]:
    """None for a record that is not there, or that a later version wrote."""
    try:
        return tuple(str(each) for each in json.loads(record or b"")["digests"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
