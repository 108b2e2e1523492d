"""One key of an identity in the place of another: its lines and items while a rotation is under way.

Rules (architecture.md §6.5, security.md §3.1)
- Each arrow is one replace of the index. A key that is stored and has no line is found by its item's name.
- At the end keys are dropped before lines: a kill in between leaves a line without a key, never a key without a line.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from vaultd.engine.seams import Clock
from vaultd.errors import IdentityBroken
from vaultd.keeper.custody import Identities
from vaultd.model.credentials import Identity
from vaultd.model.rotation import Rotation


class Exchange:
    """The lines and items of `Identities`, for a rotation."""

    def __init__(self, identities: Identities, clock: Clock) -> None:
        self._identities = identities
        self._clock = clock

    async def stored_id(self, name: str) -> str:
        """The id of the key in use; empty where the store has none that is good."""
        try:
            return (await self._identities.key(name)).access_key_id
        except IdentityBroken:
            return ""

    def begin_swap(self, name: str, key_id: str, *, created: datetime, rotation: Rotation) -> Identity:
        """One replace: the new key, stored under `rotation.item`, is a pending line beside the active one."""
        active = self._identities.active(name)
        fresh = replace(
            active.identity,
            key_ending=key_id[-4:],
            created=self._clock.now().replace(microsecond=0),
            key_created=created,
            rotation=None,
        )
        identity = replace(active.identity, rotation=rotation)
        pending = self._identities.pending(fresh, rotation.item)
        self._identities.put(name, (self._identities.line(active, identity), pending))
        return identity

    def swap(self, name: str, rotation: Rotation) -> Identity:
        """One replace: the pending key is the active one, and the other way round."""
        active = self._identities.active(name)
        pending = next(each for each in self._identities.lines(name) if each.state == "pending")
        identity = replace(pending.identity, mfa_serial=active.identity.mfa_serial, rotation=rotation)
        old = replace(active.identity, rotation=None)
        self._identities.put(
            name, (self._identities.line(pending, identity, "active"), self._identities.line(active, old, "retired"))
        )
        return identity

    async def end_rotation(self, name: str) -> Identity:
        """One replace: only the active line is left. Every other key of the name is dropped first: a kill in between
        leaves a line without a key, never a key without a line.
        """
        active = self._identities.active(name)
        for each in self._identities.lines(name):
            if each is not active:
                await self._identities.forget(each.uuid)
        active = self._identities.active(name)
        identity = replace(active.identity, rotation=None)
        self._identities.put(name, (self._identities.line(active, identity),))
        return identity
