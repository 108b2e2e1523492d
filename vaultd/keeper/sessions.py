"""The MFA sessions: in memory while unlocked, sealed before anyone uses them.

Rule: one per identity, device and region; a new one takes the old one's place. With `persist` off nothing is sealed,
and a restart asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from vaultd.engine.seams import Clock
from vaultd.keeper import codec
from vaultd.keeper.records import Records
from vaultd.model.credentials import SERVE_FLOOR, MfaHandle, MfaSession

_PREFIX = "mfa:"


class MfaSessions:
    """MFA sessions by record key."""

    def __init__(self, *, records: Records, clock: Clock, persist: bool) -> None:
        self._records = records
        self._clock = clock
        self._persist = persist
        self._held: dict[str, MfaSession] = {}

    @property
    def handles(self) -> tuple[MfaHandle, ...]:
        """Of every session, the oldest first."""
        return tuple(sorted((each.handle for each in self._held.values()), key=lambda handle: handle.issued))

    def open(self, living: Mapping[str, bytes]) -> None:
        """Take back what still lives; the rest leaves the log."""
        floor = self._clock.now() + SERVE_FLOOR
        for key in [key for key in living if key.startswith(_PREFIX)]:
            found = codec.mfa_of(living[key])
            if self._persist and found is not None and found[0].handle.expiration > floor:
                self._held[key] = found[0]
            else:
                self._records.keep(key, None)

    def close(self) -> None:
        """Forget them; the log remembers."""
        self._held.clear()

    def put(self, session: MfaSession, *, region: str) -> None:
        """Seal, then hold. A full disk is no reason to waste the code that it cost."""
        handle = session.handle
        key = f"{_PREFIX}{handle.identity}:{handle.mfa_serial or ''}:{region}"
        if self._persist:
            self._records.keep(key, codec.mfa_record(session, region=region))
        self._held[key] = session

    def find(self, handle: MfaHandle) -> MfaSession | None:
        """The session that `handle` means."""
        return next((each for each in self._held.values() if each.handle == handle), None)

    def drop(self, wanted: Callable[[MfaHandle], bool]) -> bool:
        """Forget those whose handle is `wanted`; True when there was one. The caller compacts."""
        return self._drop([key for key, each in self._held.items() if wanted(each.handle)])

    def sign_out(self, name: str, *, in_use: str, retired: datetime) -> bool:
        """Forget those of `name` that another key than the one in use opened, as `drop`. Of one that an earlier version
        sealed only its time tells: it was there before that other key was retired.
        """
        mine = {key: each for key, each in self._held.items() if each.handle.identity == name}
        return self._drop([
            key for key, each in mine.items()
            if (each.opened_by != in_use if each.opened_by else each.handle.issued <= retired)
        ])  # fmt: skip

    def _drop(self, keys: list[str]) -> bool:
        for key in keys:
            del self._held[key]
            self._records.keep(key, None)
        return bool(keys)
