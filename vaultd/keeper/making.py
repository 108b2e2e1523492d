"""The new key of a rotation, from the intent until it is stored: the part that can cost a key, and never one in use.

Rules (architecture.md §6.5)
- The intent is written before AWS is asked, and the item of the new key has its name before there is a key, so that
  one that was stored and not listed is found again.
- CreateAccessKey is asked once an intent. An answer that was lost leaves a key whose secret nobody has: one that the
  intent did not list, that is of its minute, and that nobody has used. It is set Inactive and named.
- Where AWS said no there is no key of that intent: one of its minute is another machine's, and is not touched.
- A new key that cannot be stored is deleted at AWS again; no other one is deleted here.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

from vaultd.engine.seams import ListedKey, NewKey, Rotated
from vaultd.errors import (
    IdentityBroken,
    RoleDenied,
    RotationStopped,
    SessionRejected,
    StsUnavailable,
    VaultdError,
)
from vaultd.keeper.custody import Identities
from vaultd.keeper.exchange import Exchange
from vaultd.keeper.user_keys import MINUTE, Order, UserKeys, denied, did, own, two_keys
from vaultd.model.credentials import IdentityKey
from vaultd.model.rotation import GRACE, USABLE_WITHIN, Rotation
from vaultd.model.text import shown, typed

#: For so long IAM may not list a key that it has made.
_LAG = 2 * USABLE_WITHIN

log = logging.getLogger(__name__)


class Making:
    """Intent → create → stored. It remembers only what may be forgotten: for which intents AWS was not asked yet."""

    def __init__(self, *, identities: Identities, exchange: Exchange, keys: UserKeys) -> None:
        self._identities = identities
        self._exchange = exchange
        self._keys = keys
        #: Items of intents for which no key can have been made.
        self._unasked: set[str] = set()

    # ---- intent ----

    async def begin(self, order: Order) -> Rotated:
        """Write down what will be made."""
        asked = self._identities.identity(order.name)
        key = await self._identities.key(order.name)
        await self.refuse_shared(order.name, key.access_key_id)
        listed = await self._keys.listed(order)
        order.still()
        if not self._identities.holds(asked):
            raise RotationStopped(f"the key of {shown(order.name)} was replaced under way; type "
                                  f"`vault-client rotate {typed(order.name)}`")  # fmt: skip
        mine = own(listed, key.access_key_id, order.name)
        if len(listed) > 1:
            raise await self._two_keys(order.name, listed, mine.id)
        grace = GRACE if order.grace is None else order.grace
        return self._intend(order, Rotation("intent", str(uuid4()), (mine.id,), self._keys.now(), grace), mine)

    async def refuse_shared(self, name: str, key_id: str) -> None:
        """The same key under another name would be dead there once it is Inactive."""
        other = await self._stored_as(key_id, beside=name)
        if other is not None:
            raise RotationStopped(
                f"the key of {shown(name)} is stored as {shown(other)}, too, which would be left with a dead one; type "
                f"`vault-client remove {typed(other)}`, then `vault-client rotate {typed(name)}`"
            )

    async def _stored_as(self, key_id: str, *, beside: str) -> str | None:
        """Another identity of that user which has this key in use."""
        mine = self._identities.identity(beside)
        for each in self._identities.all():
            if each.name == beside or (each.user_arn, each.key_ending) != (mine.user_arn, key_id[-4:]):
                continue
            if await self._exchange.stored_id(each.name) == key_id:
                return each.name
        return None

    async def _two_keys(self, name: str, listed: tuple[ListedKey, ...], mine: str) -> RotationStopped:
        other = next(each for each in listed if each.id != mine)
        return two_keys(name, listed, mine, stored_as=await self._stored_as(other.id, beside=name))

    def _intend(self, order: Order, rotation: Rotation, mine: ListedKey) -> Rotated:
        """Written before AWS is asked for a key, with the minute of which that key will be."""
        rotation = replace(rotation, since=self._keys.now(), stray=())
        identity = self._identities.note(order.name, rotation=rotation, key_created=mine.created)
        self._unasked.add(rotation.item)
        return did("intent", identity, rotation)

    # ---- create, store ----

    async def make(self, order: Order, rotation: Rotation) -> Rotated:
        """The key of an intent, made and stored; of one that was asked for before, or long ago, what became of it."""
        if rotation.item not in self._unasked or abs(self._keys.now() - rotation.since) > MINUTE:
            return await self._look_back(order, rotation)
        try:
            made = await self._made(order, rotation)
        except RoleDenied as exc:
            with suppress(VaultdError):  # an intent that stays looks back first
                self._end(order, rotation)
            raise denied(order, exc, "the key in use is untouched") from exc
        await self._store(order, rotation, made)
        return self._pend(order, rotation, made.id, made)

    async def _made(self, order: Order, rotation: Rotation) -> NewKey:
        self._unasked.discard(rotation.item)
        try:
            made = await self._keys.create(order)
        except (SessionRejected, IdentityBroken):  # AWS knew no caller, so it did nothing (a Throttling may come late)
            self._unasked.add(rotation.item)
            raise
        if made.id in rotation.listed:
            raise StsUnavailable(
                f"CreateAccessKey answered with the old key of {shown(order.name)}, so that is not from AWS; the old "
                f"key is in use as before: type `vault-client rotate {typed(order.name)}`"
            )
        return made

    async def _store(self, order: Order, rotation: Rotation, made: NewKey) -> None:
        """Before anything else. One that cannot be stored is deleted at AWS again: nobody will have its secret."""
        try:
            order.still()
            self._keys.current(order, rotation)
            await self._identities.keep(IdentityKey(order.name, made.id, made.secret), uuid=rotation.item)
            self._keys.current(order, rotation)
        except VaultdError as exc:
            await self._take_back(order, rotation, made.id, exc)
        order.still()  # locked, but stored: who goes on finds it under its item

    async def _take_back(self, order: Order, rotation: Rotation, key_id: str, why: VaultdError) -> None:
        """Raises, of the class of `why`. A write that was given up may land later, so its item is dropped."""
        name = typed(order.name)
        reason = why.message.rstrip(".")
        try:
            await self._keys.gone(order, key_id)
        except VaultdError as exc:
            log.warning("delete unstored-key failed identity=%s error=%s", shown(order.name), exc.kind)
            with suppress(VaultdError):
                self._keys.current(order, rotation)
                self._identities.note(order.name, rotation=replace(rotation, stray=(key_id,)))
            said = f"the new key {key_id} could not be stored ({reason}), nor deleted at AWS again"
            then = f"the old one is in use as before; type `vault-client rotate {name} --abandon`"
            raise type(why)(f"{said}; {then}", **why.details) from why
        with suppress(VaultdError):
            await self._identities.forget(rotation.item)
        with suppress(VaultdError):
            self._end(order, rotation)
        raise type(why)(
            f"the new key could not be stored ({reason}) and was deleted at AWS again, so the old one is in use as "
            f"before; mend that, then type `vault-client rotate {name}`",
            **why.details,
        ) from why

    def _end(self, order: Order, rotation: Rotation) -> None:
        self._keys.current(order, rotation)
        self._identities.note(order.name, rotation=None)

    def _pend(self, order: Order, rotation: Rotation, key_id: str, made: NewKey | ListedKey) -> Rotated:
        rotation = replace(rotation, stage="pending", since=self._keys.now(), new=key_id)
        identity = self._exchange.begin_swap(order.name, key_id, created=made.created, rotation=rotation)
        return did("pending", identity, rotation)

    # ---- what became of it ----

    async def _look_back(self, order: Order, rotation: Rotation) -> Rotated:
        """An intent of which nobody knows what became: was a key made for it, and has it been stored?"""
        listed = await self._keys.listed(order)
        kept = await self._identities.stored(order.name, rotation.item)
        order.still()
        self._keys.current(order, rotation)
        mine = own(listed, rotation.old, order.name)
        if kept is not None:
            found = next((each for each in listed if each.id == kept.access_key_id), None)
            if found is not None:
                return self._pend(order, rotation, found.id, found)
            await self._forget_unlisted(order, rotation)
        if found_strays := await self.strays(order, rotation, listed):
            await self.quiet(order, rotation, found_strays)
        if len(listed) > 1:
            raise await self._two_keys(order.name, listed, mine.id)
        order.still()
        self._keys.current(order, rotation)
        again = self._intend(order, rotation, mine).identity.rotation
        return await self.make(order, again or rotation)

    async def _forget_unlisted(self, order: Order, rotation: Rotation) -> None:
        """Deleted at AWS, by us or by others; or so new that IAM does not list it yet, and then its secret is kept."""
        if abs(self._keys.now() - rotation.since) <= _LAG:
            raise StsUnavailable(
                f"the new key of {shown(order.name)} is stored and AWS does not list it yet; in a minute, type "
                f"`vault-client rotate {typed(order.name)}` again"
            )
        await self._identities.forget(rotation.item)

    async def strays(self, order: Order, rotation: Rotation, listed: tuple[ListedKey, ...]) -> tuple[ListedKey, ...]:
        """Keys that the intent did not list, that are of its minute by AWS's clock, that nobody has used or stored."""
        found = []
        for each in listed:
            if each.id in rotation.stray:
                found.append(each)
            elif each.id not in rotation.listed and abs(each.created - rotation.since) <= MINUTE:
                used = await self._keys.last_used(order, each.id)
                lost = used in {"", "never"} and await self._stored_as(each.id, beside=order.name) is None
                found += [each] if lost else []
        return tuple(found)

    async def quiet(self, order: Order, rotation: Rotation, strays: tuple[ListedKey, ...]) -> None:
        """Raises RotationStopped, naming them."""
        for each in strays:
            if each.active:
                await self._keys.set(order, each.id, active=False)
        self._keys.current(order, rotation)
        self._identities.note(order.name, rotation=replace(rotation, stray=tuple(each.id for each in strays)))
        name = typed(order.name)
        ids = ", ".join(each.id for each in strays)
        raise RotationStopped(
            f"an earlier rotation of {shown(order.name)} was cut off before the secret of its new key {ids} came, so "
            f"nobody has that; it is Inactive now, and the old key is in use; to delete it, type "
            f"`vault-client rotate {name} --abandon`, then begin anew"
        )
