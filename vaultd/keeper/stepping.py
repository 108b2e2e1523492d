"""The steps of a rotation in the keeper: one at a time of an identity, to its end, signed by what the keeper holds.

Rules (architecture.md §8, aws-facts §2.1)
- Whoever gives up waiting does not stop the step under way: a key that was made and not stored is lost.
- The MFA sessions that the old key had opened are dropped once it is Inactive: whether they outlive it is not known.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from vaultd.engine.seams import Clock, Rotated
from vaultd.errors import IdentityBroken, SessionRejected, Unwritable
from vaultd.keeper.custody import Identities
from vaultd.keeper.minting import Gate, Minting
from vaultd.keeper.records import Records
from vaultd.keeper.rotation import KeyRotation
from vaultd.keeper.sessions import MfaSessions
from vaultd.keeper.user_keys import Order
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import Wish


class Stepping:
    """`Custody.rotate` and `Custody.date`."""

    def __init__(
        self,
        gate: Gate,
        *,
        minting: Minting,
        rotation: KeyRotation,
        identities: Identities,
        sessions: MfaSessions,
        records: Records,
        clock: Clock,
    ) -> None:
        self._gate = gate
        self._minting = minting
        self._rotation = rotation
        self._identities = identities
        self._sessions = sessions
        self._records = records
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[Rotated]] = {}

    async def rotate(
        self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None, wish: Wish, grace: timedelta | None
    ) -> Rotated:
        """See the seam."""
        while (before := self._under_way.get(name)) is not None:
            await asyncio.wait({before})
        epoch = self._gate.live()
        task = asyncio.get_running_loop().create_task(
            self._rotated(name, epoch, endpoint=endpoint, handle=handle, wish=wish, grace=grace), name=f"rotate {name}"
        )
        self._under_way[name] = task
        task.add_done_callback(lambda done: self._over(name, done))
        await asyncio.wait({task})
        return task.result()

    def _over(self, name: str, task: asyncio.Task[Rotated]) -> None:
        self._under_way.pop(name, None)
        if not task.cancelled():
            task.exception()  # of a step that nobody waited for: the next one tells

    async def _rotated(
        self,
        name: str,
        epoch: int,
        *,
        endpoint: Endpoint,
        handle: MfaHandle | None,
        wish: Wish,
        grace: timedelta | None,
    ) -> Rotated:
        identity = self._identities.identity(name)
        source = await self._signing(name, handle, epoch)
        order = Order(name, identity.user_name, endpoint, source, wish, grace, still=lambda: self._gate.still(epoch))
        try:
            rotated = await self._rotation.step(order)
        except SessionRejected as exc:
            self._gate.still(epoch)
            if handle is not None:
                await self._minting.rejected(handle, exc, epoch, endpoint=endpoint)
            raise
        except IdentityBroken as exc:  # IAM may know a new key later than STS does
            raise self._minting.too_young(name, exc) from exc
        if self._gate.same(epoch) and _signs_out(rotated, self._clock.now()):
            retired = self._clock.now() if rotated.did == "inactive" else self._rotation.retired(identity)
            in_use = "" if identity.rotation is None else identity.rotation.new
            dropped = self._sign_out(name, in_use=in_use, retired=retired)
            living = tuple(each for each in self._sessions.handles if each.identity == name)
            return replace(rotated, signed_out=dropped, living=living)
        return rotated

    def _sign_out(self, name: str, *, in_use: str, retired: datetime) -> bool:
        dropped = self._sessions.sign_out(name, in_use=in_use, retired=retired)
        with suppress(Unwritable):  # told by records
            self._records.compact()
        return dropped

    async def date(self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None) -> Identity:
        """See the seam."""
        source = await self._signing(name, handle, self._gate.live())
        try:
            return await self._rotation.date(name, endpoint=endpoint, source=source)
        except IdentityBroken as exc:
            raise self._minting.too_young(name, exc) from exc

    async def _signing(self, name: str, handle: MfaHandle | None, epoch: int) -> IdentityKey | MfaSession:
        return await self._minting.key(name, epoch) if handle is None else self._minting.session(handle)


def _signs_out(rotated: Rotated, now: datetime) -> bool:
    """Once the old key is Inactive; one that goes at once is deleted first, by the session that is at hand."""
    rotation = rotated.identity.rotation
    if rotated.did == "inactive":
        return rotation is not None and not rotation.over(now)
    return rotated.did == "deleted"
