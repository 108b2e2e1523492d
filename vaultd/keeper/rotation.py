"""The rotation of an identity's key, one step a call, from wherever the last one was left (aws-facts §2.1).

Rules (architecture.md §6.5)
- Intent → create → stored as pending → usable 3 × in a row → swap → Inactive → grace → delete: each arrow is one
  replace of `identities.json`, written before what follows it. The item of the new key has its name before there is a
  key, so that one that was stored and not listed is found again.
- Until the new key has answered three times the old one is in use; until the grace is over it is there.
- A key that the intent did not list, and that is of its minute, was made for an answer that was lost: nobody has its
  secret. It is set Inactive and named. No key is deleted unasked but the one that was rotated out, and a new one that
  could not be stored.
- What a person or another machine did to the keys meanwhile is found by ListAccessKeys, and is not undone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import uuid4

from vaultd.engine.seams import Clock, Did, Iam, ListedKey, NewKey, Rotated, Sts
from vaultd.errors import IdentityBroken, RoleDenied, RotationStopped, VaultdError
from vaultd.keeper.custody import Identities
from vaultd.model.credentials import Identity, IdentityKey, MfaSession
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import GRACE, USABLE, USABLE_WITHIN, Rotation, Wish
from vaultd.model.text import shown, typed

#: How far the date of a key that we had made may be from the moment of its intent, and our clock from AWS's.
MINUTE = timedelta(seconds=60)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """One call of `Custody.rotate`. `source` signs IAM's calls; `still` raises Locked once the keeper was closed."""

    name: str
    endpoint: Endpoint
    source: IdentityKey | MfaSession
    wish: Wish
    grace: timedelta | None
    still: Callable[[], None]


class KeyRotation:
    """The steps. It remembers only what may be forgotten: whose intent is new, how often a key answered."""

    def __init__(self, *, identities: Identities, sts: Sts, iam: Iam, clock: Clock) -> None:
        self._identities = identities
        self._sts = sts
        self._iam = iam
        self._clock = clock
        #: Items for which nothing was asked of AWS since their intent was written.
        self._unasked: set[str] = set()
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
            return await self._begin(order)
        if order.grace is not None and order.grace != rotation.grace:
            rotation = rotation.within(order.grace)
            self._note(order, rotation)
        steps = {
            "intent": self._make,
            "pending": self._prove,
            "swapped": self._retire,
            "inactive": self._end,
            "reactivated": self._retire,
        }
        return await steps[rotation.stage](order, rotation)

    def young(self, name: str) -> bool:
        """Is the key in use so new that a service of AWS may not know it yet (aws-facts §1.5 row 10)?"""
        identity = next((each for each in self._identities.all() if each.name == name), None)
        if identity is None:
            return False
        rotation = identity.rotation
        swapped = rotation is not None and rotation.stage not in {"intent", "pending"}
        return swapped and self._clock.now() - identity.created < 2 * USABLE_WITHIN

    async def date(self, name: str, *, endpoint: Endpoint, source: IdentityKey | MfaSession) -> Identity:
        """When AWS made the key."""
        identity = self._identities.identity(name)
        key = await self._identities.key(name)
        listed = await self._iam.keys(source, user=identity.user_name, endpoint=endpoint)
        made = next((each.created for each in listed if each.id == key.access_key_id), None)
        return identity if made is None else self._identities.note(name, key_created=made)

    # ---- intent ----

    async def _begin(self, order: Order) -> Rotated:
        key = await self._identities.key(order.name)
        await self._refuse_shared(key)
        listed = await self._listed(order)
        order.still()
        own = _own(listed, key.access_key_id, order.name)
        if len(listed) > 1:
            raise _two_keys(order.name, listed, own.id)
        rotation = Rotation("intent", str(uuid4()), (own.id,), self._clock.now(), _grace(order))
        return self._intend(order, rotation, own)

    async def _refuse_shared(self, key: IdentityKey) -> None:
        """The same key under another name would be dead there once it is Inactive."""
        name = key.identity
        own = self._identities.identity(name)
        for each in self._identities.all():
            if each.name == name or (each.user_arn, each.key_ending) != (own.user_arn, own.key_ending):
                continue
            other = await self._identities.stored_id(each.name)
            if other == key.access_key_id:
                raise RotationStopped(
                    f"the key of {shown(name)} is stored as {shown(each.name)}, too, which would be left with a dead "
                    f"one; type `vault-client remove {typed(each.name)}`, then `vault-client rotate {typed(name)}`"
                )

    def _intend(self, order: Order, rotation: Rotation, own: ListedKey) -> Rotated:
        """Written before AWS is asked for a key, with the minute of which that key will be."""
        rotation = replace(rotation, since=self._clock.now(), stray=())
        identity = self._identities.note(order.name, rotation=rotation, key_created=own.created)
        self._unasked.add(rotation.item)
        return _did("intent", identity, rotation)

    # ---- create, store ----

    async def _make(self, order: Order, rotation: Rotation) -> Rotated:
        if rotation.item not in self._unasked:
            return await self._look_back(order, rotation)
        self._unasked.discard(rotation.item)
        try:
            made = await self._iam.create(order.source, user=self._user(order), endpoint=order.endpoint)
        except RoleDenied as exc:
            raise self._denied(order, exc, "the key in use is untouched") from exc
        log.info("create key identity=%s key=%s", shown(order.name), made.id[-4:])
        await self._store(order, rotation, made)
        return self._pend(order, rotation, made.id, made)

    async def _store(self, order: Order, rotation: Rotation, made: NewKey) -> None:
        """Before anything else. One that cannot be stored is deleted at AWS again: nobody will have its secret."""
        try:
            order.still()
            await self._identities.keep(IdentityKey(order.name, made.id, made.secret), uuid=rotation.item)
        except VaultdError as exc:
            await self._take_back(order, rotation, made.id, exc)
        order.still()  # locked, but stored: who goes on finds it under its item

    async def _take_back(self, order: Order, rotation: Rotation, key_id: str, why: VaultdError) -> None:
        """Raises, of the class of `why`. A write that was given up may land later, so its item is dropped."""
        name, reason = typed(order.name), why.message.rstrip(".")
        try:
            await self._gone(order, key_id)
        except VaultdError as exc:
            log.warning("delete unstored-key failed identity=%s error=%s", shown(order.name), exc.kind)
            said = f"the new key …{key_id[-4:]} could not be stored ({reason}), nor deleted at AWS again"
            then = f"the old one is in use as before; type `vault-client rotate {name} --abandon`"
            raise type(why)(f"{said}; {then}", **why.details) from why
        with suppress(VaultdError):
            await self._identities.forget(rotation.item)
        with suppress(VaultdError):
            self._identities.note(order.name, rotation=None)
        raise type(why)(
            f"the new key could not be stored ({reason}) and was deleted at AWS again, so the old one is in use as "
            f"before; mend that, then type `vault-client rotate {name}`",
            **why.details,
        ) from why

    def _pend(self, order: Order, rotation: Rotation, key_id: str, made: NewKey | ListedKey) -> Rotated:
        rotation = replace(rotation, stage="pending", since=self._clock.now(), new=key_id)
        identity = self._identities.begin_swap(order.name, key_id, created=made.created, rotation=rotation)
        return _did("pending", identity, rotation)

    async def _look_back(self, order: Order, rotation: Rotation) -> Rotated:
        """An intent of which nobody knows what became: was a key made for it, and has it been stored?"""
        listed = await self._listed(order)
        kept = await self._identities.stored(order.name, rotation.item)
        order.still()
        own = _own(listed, rotation.old, order.name)
        if kept is not None:
            found = next((each for each in listed if each.id == kept.access_key_id), None)
            if found is not None:
                return self._pend(order, rotation, found.id, found)
            await self._identities.forget(rotation.item)  # deleted at AWS since, by us or by others
        if strays := self._strays(rotation, listed):
            await self._quiet(order, rotation, strays)
        if len(listed) > 1:
            raise _two_keys(order.name, listed, own.id)
        again = self._intend(order, rotation, own).identity.rotation
        return await self._make(order, again or rotation)

    def _strays(self, rotation: Rotation, listed: tuple[ListedKey, ...]) -> tuple[ListedKey, ...]:
        """Keys that the intent did not list and that are of its minute, by AWS's clock."""
        there = rotation.since - timedelta(seconds=self._sts.clock_skew() or 0.0)
        return tuple(
            each
            for each in listed
            if each.id not in rotation.listed and (each.id in rotation.stray or abs(each.created - there) <= MINUTE)
        )

    async def _quiet(self, order: Order, rotation: Rotation, strays: tuple[ListedKey, ...]) -> None:
        """Raises RotationStopped, naming them."""
        for each in strays:
            if each.active:
                await self._set(order, each.id, active=False)
        self._note(order, replace(rotation, stray=tuple(each.id for each in strays)))
        ids, name = ", ".join(each.id for each in strays), typed(order.name)
        raise RotationStopped(
            f"an earlier rotation of {shown(order.name)} was cut off before the secret of its new key {ids} came, so "
            f"nobody has that; it is Inactive now, and the old key is in use; to delete it, type "
            f"`vault-client rotate {name} --abandon`, then begin anew"
        )

    # ---- usable, swap ----

    async def _prove(self, order: Order, rotation: Rotation) -> Rotated:
        """One look; the call after the third success in a row swaps."""
        usable, began = self._looks.get(rotation.item, (0, self._clock.boottime()))
        if usable >= USABLE:
            return self._swap(order, rotation)
        key = await self._identities.stored(order.name, rotation.item)
        if key is None:
            raise self._unusable(order, rotation, "is not in the store any more")
        try:
            arn = await self._sts.caller_identity(key, endpoint=order.endpoint)
        except IdentityBroken:
            usable = -1
        else:
            if arn != self._identities.identity(order.name).user_arn:
                raise self._unusable(order, rotation, f"belongs to {shown(arn)}")
        order.still()
        self._looks[rotation.item] = (usable + 1, began)
        if usable < 0 and self._clock.boottime() - began >= USABLE_WITHIN.total_seconds():
            del self._looks[rotation.item]  # a rotation that is gone on with has another minute
            raise self._unusable(order, rotation, f"is not usable yet after {USABLE_WITHIN.seconds} s")
        return _did("tried", self._identities.identity(order.name), rotation, usable=usable + 1)

    def _swap(self, order: Order, rotation: Rotation) -> Rotated:
        rotation = replace(rotation, stage="swapped", since=self._clock.now())
        identity = self._identities.swap(order.name, rotation)
        self._looks.pop(rotation.item, None)
        log.info("swap key identity=%s key=%s", shown(order.name), identity.key_ending)
        return _did("swapped", identity, rotation)

    # ---- Inactive, grace, delete ----

    async def _retire(self, order: Order, rotation: Rotation) -> Rotated:
        last_used = ""
        with suppress(VaultdError):  # W0 does not grant it (aws-facts §0)
            last_used = await self._iam.last_used(order.source, rotation.old, endpoint=order.endpoint)
        try:
            await self._set(order, rotation.old, active=False)
        except RoleDenied as exc:
            if _no_such_key(exc):  # deleted elsewhere: there is nothing left to wait for
                return await self._finished(order, rotation)
            raise self._denied(order, exc, "both keys are Active, and the new one is in use") from exc
        rotation = replace(rotation, stage="inactive", since=self._clock.now())
        return _did("inactive", self._note(order, rotation), rotation, last_used=last_used)

    async def _end(self, order: Order, rotation: Rotation) -> Rotated:
        if not rotation.over(self._clock.now()):
            return _did("kept", self._identities.identity(order.name), rotation)
        listed = await self._listed(order)
        order.still()
        if any(each.id == rotation.old and each.active for each in listed):
            self._note(order, replace(rotation, stage="reactivated", since=self._clock.now()))
            raise RotationStopped(
                f"the old key …{rotation.old[-4:]} of {shown(order.name)} was set Active again elsewhere, so it is not "
                f"deleted; once nothing uses it any more, type `vault-client rotate {typed(order.name)}`"
            )
        try:
            await self._gone(order, rotation.old)
        except RoleDenied as exc:
            raise self._denied(order, exc, "the old key is Inactive, and the new one is in use") from exc
        return await self._finished(order, rotation)

    async def _finished(self, order: Order, rotation: Rotation) -> Rotated:
        order.still()
        identity = await self._identities.end_rotation(order.name)
        log.info("delete key identity=%s key=%s", shown(order.name), rotation.old[-4:])
        return _did("deleted", identity, rotation)

    # ---- wishes ----

    async def _undo(self, order: Order, rotation: Rotation | None) -> Rotated:
        """The old key works again, for whatever still has it. The new one stays in use."""
        if rotation is None or rotation.stage != "inactive":
            raise RotationStopped(
                f"no old key of {shown(order.name)} is Inactive, so there is nothing to undo; "
                "type `vault-client identities`"
            )
        try:
            await self._set(order, rotation.old, active=True)
        except RoleDenied as exc:
            raise self._denied(order, exc, "the old key is Inactive, and the new one is in use") from exc
        rotation = replace(rotation, stage="reactivated", since=self._clock.now())
        return _did("reactivated", self._note(order, rotation), rotation)

    async def _abandon(self, order: Order, rotation: Rotation | None) -> Rotated:
        """What was made for this rotation is deleted, asked; the old key stays in use."""
        if rotation is None or rotation.stage not in {"intent", "pending"}:
            in_use = rotation is not None
            why = "the new key is in use" if in_use else "none is under way"
            way = f"rotate {typed(order.name)}" if in_use else "identities"
            raise RotationStopped(
                f"no rotation of {shown(order.name)} can be abandoned: {why}; type `vault-client {way}`"
            )
        listed = await self._listed(order)
        order.still()
        ours = {each.id for each in self._strays(rotation, listed)} | ({rotation.new} if rotation.new else set())
        kept = await self._identities.stored(order.name, rotation.item)
        if kept is not None:
            ours.add(kept.access_key_id)
        for key_id in sorted(ours):
            await self._gone(order, key_id)
        await self._identities.forget(rotation.item)
        self._looks.pop(rotation.item, None)
        return _did("abandoned", await self._identities.end_rotation(order.name), rotation)

    # ---- one call ----

    def _user(self, order: Order) -> str:
        return self._identities.identity(order.name).user_name

    async def _listed(self, order: Order) -> tuple[ListedKey, ...]:
        try:
            return await self._iam.keys(order.source, user=self._user(order), endpoint=order.endpoint)
        except RoleDenied as exc:
            raise self._denied(order, exc, "nothing has changed at AWS") from exc

    async def _set(self, order: Order, key_id: str, *, active: bool) -> None:
        await self._iam.set_status(order.source, key_id, active=active, user=self._user(order), endpoint=order.endpoint)
        log.info("set key identity=%s key=%s active=%s", shown(order.name), key_id[-4:], active)

    async def _gone(self, order: Order, key_id: str) -> None:
        """Deleted, or it was not there any more."""
        try:
            await self._iam.delete(order.source, key_id, user=self._user(order), endpoint=order.endpoint)
        except RoleDenied as exc:
            if not _no_such_key(exc):
                raise

    def _note(self, order: Order, rotation: Rotation) -> Identity:
        return self._identities.note(order.name, rotation=rotation)

    # ---- words ----

    def _denied(self, order: Order, exc: RoleDenied, stands: str) -> RoleDenied:
        """AWS's no, with what stands at AWS and how to go on."""
        said = exc.message.partition("; run `vault-client explain")[0]
        return type(exc)(
            f"{said}; {stands}: mend that in IAM, then type `vault-client rotate {typed(order.name)}`", **exc.details
        )

    def _unusable(self, order: Order, rotation: Rotation, why: str) -> RotationStopped:
        name = typed(order.name)
        return RotationStopped(
            f"the new key …{rotation.new[-4:]} of {shown(order.name)} {why}, and the old one …{rotation.old[-4:]} is "
            f"Active and in use as before; to go on type `vault-client rotate {name}`, to delete the new one "
            f"`vault-client rotate {name} --abandon`"
        )


def _grace(order: Order) -> timedelta:
    return GRACE if order.grace is None else order.grace


def _own(listed: tuple[ListedKey, ...], key_id: str, name: str) -> ListedKey:
    """The key in use among those that AWS has (E8: it may have been deleted elsewhere)."""
    found = next((each for each in listed if each.id == key_id), None)
    if found is None or not found.active:
        what = "has no key" if found is None else "has set Inactive the key"
        raise IdentityBroken(
            f"AWS {what} …{key_id[-4:]} of identity {shown(name)}, so there is nothing to rotate; "
            f"run `vault-client add {typed(name)} --replace`"
        )
    return found


def _two_keys(name: str, listed: tuple[ListedKey, ...], own: str) -> RotationStopped:
    """AWS allows two, and Inactive ones count (aws-facts §2.1): a third is not even asked for."""
    other = next(each for each in listed if each.id != own)
    state = "Active" if other.active else "Inactive"
    return RotationStopped(
        f"the user of {shown(name)} has two keys already, which is AWS's most: beside …{own[-4:]} in use there is "
        f"{other.id} ({state}, made {other.created:%Y-%m-%d}); delete that in IAM if nothing uses it, then type "
        f"`vault-client rotate {typed(name)}`"
    )


def _no_such_key(exc: RoleDenied) -> bool:
    return exc.details.get("aws_code") == "NoSuchEntity"


def _did(did: Did, identity: Identity, rotation: Rotation, *, usable: int = 0, last_used: str = "") -> Rotated:
    return Rotated(
        identity,
        did,
        old_key=rotation.old[-4:],
        new_key=rotation.new[-4:],
        usable=usable,
        last_used=last_used,
    )
