"""The rotation of an identity's key, one step a call, from wherever the last one was left (aws-facts §2.1).

Rules (architecture.md §6.5)
- Intent → create → stored as pending (making.py) → usable 3 × in a row → swap → Inactive → grace → delete: each arrow
  is one replace of `identities.json`, written before what follows it.
- Until the new key has answered three times the old one is in use; until the grace is over it is there. Nothing is
  done to the old one while the new one is not Active at AWS, or not in the store: it may be the last that works.
- What a person or another machine did to the keys meanwhile is found by ListAccessKeys, and is not undone. No key is
  deleted unasked but the one that was rotated out, and a new one that could not be stored.
- Unasked (`end`) a grace is ended and nothing else.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from vaultd.engine.seams import Clock, Iam, ListedKey, Rotated, Sts
from vaultd.errors import IdentityBroken, RoleDenied, RotationStopped, StsUnavailable
from vaultd.keeper.custody import Identities
from vaultd.keeper.exchange import Exchange
from vaultd.keeper.making import Making
from vaultd.keeper.unfinished import unfinished
from vaultd.keeper.user_keys import Order, UserKeys, denied, did, no_such_key
from vaultd.model.credentials import Identity, IdentityKey, MfaSession
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import USABLE, USABLE_WITHIN, Rotation
from vaultd.model.text import shown, typed

log = logging.getLogger(__name__)


class KeyRotation:
    """The steps. It remembers only what may be forgotten: how often a new key answered."""

    def __init__(self, *, identities: Identities, sts: Sts, iam: Iam, clock: Clock) -> None:
        self._identities = identities
        self._sts = sts
        self._iam = iam
        self._clock = clock
        self._keys = UserKeys(identities=identities, sts=sts, iam=iam, clock=clock)
        self._exchange = Exchange(identities, clock)
        self._making = Making(identities=identities, exchange=self._exchange, keys=self._keys)
        #: Item → (successes in a row, boottime of the first look).
        self._looks: dict[str, tuple[int, float]] = {}

    async def step(self, order: Order) -> Rotated:
        """See `Custody.rotate`."""
        rotation = self._identities.identity(order.name).rotation
        if order.wish == "undo":
            return await self._undo(order, rotation)
        if order.wish == "abandon":
            return await self._abandon(order, rotation)
        if rotation is None:
            return await self._making.begin(order) if order.wish == "go" else self._nothing(order)
        if order.wish == "end":
            return await self._end(order, rotation) if rotation.stage == "inactive" else self._kept(order, rotation)
        if order.grace is not None and order.grace != rotation.grace:
            rotation = rotation.within(order.grace)
            self._note(order, rotation)
        steps = {
            "intent": self._making.make,
            "pending": self._prove,
            "swapped": self._retire,
            "inactive": self._end,
            "reactivated": self._retire,
        }
        return await steps[rotation.stage](order, rotation)

    def _nothing(self, order: Order) -> Rotated:
        """There is none to go on with or to end: somebody else has."""
        identity = self._identities.identity(order.name)
        return Rotated(identity, "over" if order.wish == "on" else "kept", old_key="", new_key=identity.key_ending)

    def _kept(self, order: Order, rotation: Rotation) -> Rotated:
        return did("kept", self._identities.identity(order.name), rotation)

    def young(self, name: str) -> bool:
        """Is the key in use so new that a service of AWS may not know it yet (aws-facts §1.5 row 10)?"""
        identity = next((each for each in self._identities.all() if each.name == name), None)
        if identity is None:
            return False
        rotation = identity.rotation
        swapped = rotation is not None and rotation.stage not in {"intent", "pending"}
        return swapped and self._clock.now() - identity.created < 2 * USABLE_WITHIN

    async def overtaken(self, name: str, *, endpoint: Endpoint) -> str:
        """The item of the rotation that another key of that name ends, "" where none is under way.

        Raises RotationStopped while it can be ended otherwise: what it leaves in IAM would be told to nobody.
        """
        identity = next((each for each in self._identities.all() if each.name == name), None)
        if identity is None or (rotation := identity.rotation) is None:
            return ""
        if await self._goes_on(identity, rotation, endpoint):
            raise unfinished(name, rotation)
        log.warning(
            "overtake rotation identity=%s stage=%s old=%s new=%s",
            shown(name), rotation.stage, rotation.old[-4:], rotation.new[-4:] or "unknown",
        )  # fmt: skip
        return rotation.item

    async def _goes_on(self, identity: Identity, rotation: Rotation, endpoint: Endpoint) -> bool:
        """Is there a key that its next step can be made with? Of a pending one the new key is, if the old one is dead.

        The store is read anew: every refusal that advises `add --replace` must find that way open.
        """
        in_use = await self._identities.read_back(identity.name)
        if in_use is None:
            return False
        if await self._answers(in_use, identity, endpoint) or self.young(identity.name):
            return True
        kept = await self._identities.stored(identity.name, rotation.item) if rotation.stage == "pending" else None
        return kept is not None and await self._answers(kept, identity, endpoint)

    async def _answers(self, key: IdentityKey, identity: Identity, endpoint: Endpoint) -> bool:
        try:
            return await self._sts.caller_identity(key, endpoint=endpoint) == identity.user_arn
        except IdentityBroken:
            return False

    async def date(self, name: str, *, endpoint: Endpoint, source: IdentityKey | MfaSession) -> Identity:
        """When AWS made the key."""
        identity = self._identities.identity(name)
        key = await self._identities.key(name)
        listed = await self._iam.keys(source, user=identity.user_name, endpoint=endpoint)
        made = next((each.created for each in listed if each.id == key.access_key_id), None)
        return identity if made is None else self._identities.note(name, key_created=made)

    def retired(self, identity: Identity) -> datetime:
        """When the old key went Inactive, by this machine's clock, which dates sessions; now, where it has not."""
        rotation = identity.rotation
        if rotation is None or rotation.stage != "inactive":
            return self._clock.now()
        return rotation.since + (self._clock.now() - self._keys.now())

    # ---- usable, swap ----

    async def _prove(self, order: Order, rotation: Rotation) -> Rotated:
        """One look; the call after the third success in a row swaps."""
        usable, began = self._looks.get(rotation.item, (0, self._clock.boottime()))
        key = await self._identities.stored(order.name, rotation.item)
        order.still()
        self._keys.current(order, rotation)
        if key is None or key.access_key_id != rotation.new:
            raise self._unusable(order, rotation, "is not in the store any more")
        if usable >= USABLE:
            return self._swap(order, rotation)
        try:
            arn = await self._sts.caller_identity(key, endpoint=order.endpoint)
        except IdentityBroken:
            usable = -1
        else:
            if arn != self._identities.identity(order.name).user_arn:
                raise self._unusable(order, rotation, f"belongs to {shown(arn)}")
        order.still()
        self._keys.current(order, rotation)
        self._looks[rotation.item] = (usable + 1, began)
        if usable < 0 and self._clock.boottime() - began >= USABLE_WITHIN.total_seconds():
            del self._looks[rotation.item]  # a rotation that is gone on with has another minute
            raise self._unusable(order, rotation, f"is not usable yet after {USABLE_WITHIN.seconds} s")
        return did("tried", self._identities.identity(order.name), rotation, usable=usable + 1)

    def _swap(self, order: Order, rotation: Rotation) -> Rotated:
        rotation = replace(rotation, stage="swapped", since=self._keys.now())
        identity = self._exchange.swap(order.name, rotation)
        self._looks.pop(rotation.item, None)
        log.info("swap key identity=%s key=%s", shown(order.name), identity.key_ending)
        return did("swapped", identity, rotation)

    # ---- Inactive, grace, delete ----

    async def _retire(self, order: Order, rotation: Rotation) -> Rotated:
        listed = await self._keys.listed(order)
        await self._check_new(order, rotation, listed)
        if all(each.id != rotation.old for each in listed):  # deleted elsewhere: there is nothing left to wait for
            return await self._finished(order, rotation)
        await self._making.refuse_shared(order.name, rotation.old)  # it may have been added since the beginning
        last_used = await self._keys.last_used(order, rotation.old)
        try:
            await self._keys.set(order, rotation.old, active=False)
        except RoleDenied as exc:
            if no_such_key(exc):
                return await self._finished(order, rotation)
            raise denied(order, exc, "both keys are Active, and the new one is in use") from exc
        rotation = replace(rotation, stage="inactive", since=self._keys.now())
        return did("inactive", self._note(order, rotation), rotation, last_used=last_used)

    async def _check_new(self, order: Order, rotation: Rotation, listed: tuple[ListedKey, ...]) -> None:
        """The key in use is Active at AWS and in the store, read anew: without it the old one may be the last."""
        key = await self._identities.stored(order.name, rotation.item)
        order.still()
        self._keys.current(order, rotation)
        found = next((each for each in listed if each.id == rotation.new), None)
        if key is None or key.access_key_id != rotation.new:
            raise self._unsafe(order, rotation, "is not in the store any more", "to store one that works")
        if found is not None and found.active:
            return
        if found is None and self.young(order.name):
            raise StsUnavailable(
                f"AWS does not list the new key …{rotation.new[-4:]} of {shown(order.name)} yet, and "
                f"…{rotation.old[-4:]} is left as it is; type `vault-client rotate {typed(order.name)}` again"
            )
        what = "was deleted at AWS" if found is None else "was set Inactive at AWS"
        raise self._unsafe(order, rotation, what, "after making one that works in IAM")

    async def _end(self, order: Order, rotation: Rotation) -> Rotated:
        """By this machine's clock first, which costs nothing, then by AWS's, which no one here can set."""
        if not rotation.over(self._clock.now()):
            return self._kept(order, rotation)
        listed = await self._keys.listed(order)
        await self._check_new(order, rotation, listed)
        if not rotation.over(self._keys.now()):
            return self._kept(order, rotation)
        if any(each.id == rotation.old and each.active for each in listed):
            self._note(order, replace(rotation, stage="reactivated", since=self._keys.now()))
            raise RotationStopped(
                f"the old key …{rotation.old[-4:]} of {shown(order.name)} was set Active again elsewhere, so it is not "
                f"deleted; once nothing uses it any more, type `vault-client rotate {typed(order.name)}`"
            )
        try:
            await self._keys.gone(order, rotation.old)
        except RoleDenied as exc:
            raise denied(order, exc, "the old key is Inactive, and the new one is in use") from exc
        return await self._finished(order, rotation)

    async def _finished(self, order: Order, rotation: Rotation) -> Rotated:
        order.still()
        self._keys.current(order, rotation)
        identity = await self._exchange.end_rotation(order.name)
        log.info("delete key identity=%s key=%s", shown(order.name), rotation.old[-4:])
        return did("deleted", identity, rotation)

    # ---- wishes ----

    async def _undo(self, order: Order, rotation: Rotation | None) -> Rotated:
        """The old key works again, for whatever still has it. The new one stays in use."""
        if rotation is None or rotation.stage != "inactive":
            raise RotationStopped(
                f"no old key of {shown(order.name)} is Inactive, so there is nothing to undo; "
                "type `vault-client identities`"
            )
        try:
            await self._keys.set(order, rotation.old, active=True)
        except RoleDenied as exc:
            raise denied(order, exc, "the old key is Inactive, and the new one is in use") from exc
        rotation = replace(rotation, stage="reactivated", since=self._keys.now())
        return did("reactivated", self._note(order, rotation), rotation)

    async def _abandon(self, order: Order, rotation: Rotation | None) -> Rotated:
        """What was made for this rotation is deleted, asked; the old key stays in use."""
        if rotation is None or rotation.stage not in {"intent", "pending"}:
            in_use = rotation is not None
            why = "the new key is in use" if in_use else "none is under way"
            way = f"rotate {typed(order.name)}" if in_use else "identities"
            raise RotationStopped(
                f"no rotation of {shown(order.name)} can be abandoned: {why}; type `vault-client {way}`"
            )
        listed = await self._keys.listed(order)
        kept = await self._identities.stored(order.name, rotation.item)
        order.still()
        self._keys.current(order, rotation)
        if not any(each.id == rotation.old and each.active for each in listed):
            raise RotationStopped(
                f"the old key …{rotation.old[-4:]} of {shown(order.name)} is not Active at AWS any more, so what was "
                f"made to replace it is not deleted; to go on, type `vault-client rotate {typed(order.name)}`"
            )
        for key_id in sorted(await self._made(order, rotation, listed, kept)):
            await self._keys.gone(order, key_id)
        self._keys.current(order, rotation)
        await self._identities.forget(rotation.item)
        self._looks.pop(rotation.item, None)
        return did("abandoned", await self._exchange.end_rotation(order.name), rotation)

    async def _made(
        self, order: Order, rotation: Rotation, listed: tuple[ListedKey, ...], kept: IdentityKey | None
    ) -> set[str]:
        """The keys that are surely this rotation's. One that only looks like it is set Inactive and named first."""
        if rotation.stage == "intent":
            strays = await self._making.strays(order, rotation, listed)
            unnamed = [each for each in strays if each.id not in rotation.stray]
            if unnamed and kept is None:
                await self._making.quiet(order, rotation, strays)
        ours = {*rotation.stray, rotation.new, "" if kept is None else kept.access_key_id}
        return ours - {"", *rotation.listed}

    # ---- words ----

    def _note(self, order: Order, rotation: Rotation) -> Identity:
        self._keys.current(order, rotation)
        return self._identities.note(order.name, rotation=rotation)

    def _unusable(self, order: Order, rotation: Rotation, why: str) -> RotationStopped:
        name = typed(order.name)
        return RotationStopped(
            f"the new key …{rotation.new[-4:]} of {shown(order.name)} {why}, and the old one …{rotation.old[-4:]} is "
            f"Active and in use as before; to go on type `vault-client rotate {name}`, to delete the new one "
            f"`vault-client rotate {name} --abandon`"
        )

    def _unsafe(self, order: Order, rotation: Rotation, why: str, when: str) -> RotationStopped:
        return RotationStopped(
            f"the key …{rotation.new[-4:]} of {shown(order.name)}, which is in use, {why}, so the old one "
            f"…{rotation.old[-4:]} is left as it is; {when}, type `vault-client add {typed(order.name)} --replace`"
        )
