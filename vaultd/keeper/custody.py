"""The identities: their index in memory, their keys while unlocked, adding and removing.

Rules
- A key is verified before it is stored (verification.py).
- Write order (security.md §3.1): new item → read back (the store does) → index → drop the old item. Removal drops the
  key first: a kill in between leaves a line without a key, never a key without a line.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from vaultd.engine.seams import Clock, IdentityStore
from vaultd.errors import IdentityBroken, IdentityExists, Locked, UnknownIdentity, VaultdError
from vaultd.keeper import codec, losses
from vaultd.keeper.index import Entry, Index, MakeEntry
from vaultd.keeper.index_seal import IndexSeal
from vaultd.keeper.unfinished import unfinished
from vaultd.keeper.verification import Verification
from vaultd.model import limits
from vaultd.model.credentials import Identity, IdentityKey
from vaultd.model.partitions import Endpoint
from vaultd.model.text import nearest, shown, typed

log = logging.getLogger(__name__)

_ITEM = "identity:"


class Identities:
    """The index and the keys. `store` is None while shut."""

    def __init__(
        self, *, index: Index, seal: IndexSeal, make_entry: MakeEntry, verification: Verification, clock: Clock
    ) -> None:
        self._index = index
        self._seal = seal
        self._make_entry = make_entry
        self._verification = verification
        self._clock = clock
        self._entries: tuple[Entry, ...] = ()
        self._keys: dict[str, IdentityKey] = {}
        self.store: IdentityStore | None = None

    @property
    def recorded(self) -> frozenset[str]:
        """The backends that the index names."""
        return frozenset(entry.backend for entry in self._entries)

    @property
    def generation(self) -> int:
        """The highest that the index has seen."""
        return max((entry.generation for entry in self._entries), default=0)

    def unlisted(self, store: IdentityStore) -> int:
        """How many keys an open store holds where the index lists none at all; 0 where the store cannot tell."""
        names = () if self._entries else store.names() or ()
        return sum(name.startswith(_ITEM) for name in names)

    def keyless(self, store: IdentityStore) -> tuple[Identity, ...]:
        """The identities in use whose key an open store does not hold; none where the store cannot tell."""
        names = store.names()
        if names is None:
            return ()
        lines = (self._entry(each.name) for each in self.all())
        return tuple(each.identity for each in lines if _item(each.uuid) not in names)

    def load(self) -> None:
        """Read the index."""
        self._entries = self._index.load()

    def newest(self, living: Mapping[str, bytes]) -> bool:
        """Is the index the one that was written last? By the sealed log, which was just opened."""
        return self._seal.open(living, self._index.digest, empty=not self._entries)

    def close(self) -> None:
        """Forget keys and store."""
        self._keys.clear()
        self.store = None

    def all(self) -> tuple[Identity, ...]:
        """The identities in use, by name."""
        found = (entry.identity for entry in self._entries if entry.state == "active")
        return tuple(sorted(found, key=lambda identity: identity.name))

    def identity(self, name: str) -> Identity:
        """Raises UnknownIdentity."""
        return self._entry(name).identity

    async def key(self, name: str) -> IdentityKey:
        """The key of `name`, from the store at its first use. Raises UnknownIdentity, IdentityBroken, KeyringBusy."""
        entry = self._entry(name)
        if (held := self._keys.get(entry.uuid)) is not None:
            return held
        store = self._open_store()
        item = await store.load(_item(entry.uuid))
        if item is None:
            raise IdentityBroken(losses.of_key(name))
        key = codec.key_of(item, identity=entry.identity, uuid=entry.uuid)
        if self.store is store:  # not closed meanwhile
            self._keys[entry.uuid] = key
        return key

    async def add(
        self, key: IdentityKey, *, endpoint: Endpoint, mfa_serial: str | None, replace: bool, overtakes: str = ""
    ) -> Identity:
        """Verify, find the device, store, index. `overtakes`: the item of the rotation that this may end."""
        store = self._open_store()
        old = self._replaceable(key.identity, replace=replace, overtakes=overtakes)
        arn = await self._verification.user(key, endpoint=endpoint)
        same_user = old is not None and old.identity.user_arn == arn
        fallback = old.identity.mfa_serial if old is not None and same_user else None
        serial = await self._verification.device(key, endpoint=endpoint, given=mfa_serial, fallback=fallback)
        identity = _identity(key, arn=arn, serial=serial, created=self._clock.now())
        await self._store_key(store, key, identity, replace=replace, overtakes=overtakes)
        return identity

    async def read_back(self, name: str) -> IdentityKey | None:
        """The key of `name` as the store gives it now, whatever is held in memory; None where there is none."""
        entry = self._find(name)
        return None if entry is None else await self.stored(name, entry.uuid)

    async def remove(self, name: str) -> None:
        """Drop key, then line; those of a rotation that is under way, too."""
        self._entry(name)
        store = self._open_store()
        dropped: set[str] = set()
        while left := [entry for entry in self.lines(name) if entry.uuid not in dropped]:  # a step may add one
            for entry in left:
                await store.drop(_item(entry.uuid))
                self._keys.pop(entry.uuid, None)
                dropped.add(entry.uuid)
        self._save(tuple(each for each in self._entries if each.identity.name != name))

    async def detect(self, name: str, *, endpoint: Endpoint) -> Sequence[str]:
        """The usable serials of `name`'s user."""
        return await self._verification.devices(await self.key(name), endpoint=endpoint)

    # ---- for a rotation (exchange.py) ----

    def holds(self, asked: Identity) -> bool:
        """Is the key that `asked` had when a call began still one of that name, in use or just rotated out of it?"""
        mine = (asked.user_arn, asked.key_ending, asked.created)
        lines = (each.identity for each in self.lines(asked.name))
        return any((each.user_arn, each.key_ending, each.created) == mine for each in lines)

    def note(self, name: str, **changes: Any) -> Identity:
        """One replace of the index: what is said of the active key's identity (`rotation`, `key_created`)."""
        entry = self._entry(name)
        identity = replace(entry.identity, **changes)
        self.put(name, (self.line(entry, identity), *(each for each in self.lines(name) if each is not entry)))
        return identity

    async def stored(self, name: str, uuid: str) -> IdentityKey | None:
        """The key under an item that no line may name yet."""
        item = await self.open_store().load(_item(uuid))
        return None if item is None else codec.stored_key(item, name=name, uuid=uuid)

    async def keep(self, key: IdentityKey, *, uuid: str) -> None:
        """Store a key that no line names yet; read back by the store."""
        await self.open_store().save(_item(uuid), codec.key_item(key, uuid=uuid))

    async def forget(self, uuid: str) -> None:
        """Drop the item of a key."""
        self._keys.pop(uuid, None)
        await self.open_store().drop(_item(uuid))

    def active(self, name: str) -> Entry:
        """The line of the key in use. Raises UnknownIdentity."""
        return self._entry(name)

    def open_store(self) -> IdentityStore:
        """A rotation's step goes on after whoever asked for it has gone, and a lock may come in between."""
        if self.store is None:
            raise Locked("vaultd is locked; run `vault-client unlock`")
        return self.store

    def line(
        self, entry: Entry, identity: Identity, state: Literal["active", "pending", "retired"] | None = None
    ) -> Entry:
        """A line with another identity or state over the same item."""
        return self._make_entry(
            identity, entry.uuid, entry.backend, generation=entry.generation, state=state or entry.state
        )

    def pending(self, identity: Identity, uuid: str) -> Entry:
        """A line of a key that was just stored under `uuid`, and is not in use."""
        store = self.open_store()
        return self._make_entry(identity, uuid, store.backend, generation=store.generation, state="pending")

    def lines(self, name: str) -> tuple[Entry, ...]:
        """All of a name's."""
        return tuple(each for each in self._entries if each.identity.name == name)

    def put(self, name: str, lines: tuple[Entry, ...]) -> None:
        """One replace of the index: those are the name's lines."""
        self._save((*(each for each in self._entries if each.identity.name != name), *lines))

    # ---- adding ----

    def _replaceable(self, name: str, *, replace: bool, overtakes: str) -> Entry | None:
        old = self._find(name)
        if old is not None and not replace:
            raise IdentityExists(
                f"identity {shown(name)} exists; run `vault-client add {typed(name)} --replace` to replace its key"
            )
        if old is not None and (rotation := old.identity.rotation) is not None and rotation.item != overtakes:
            raise unfinished(name, rotation)
        return old

    async def _store_key(
        self, store: IdentityStore, key: IdentityKey, identity: Identity, *, replace: bool, overtakes: str
    ) -> None:
        uuid = str(uuid4())
        await store.save(_item(uuid), codec.key_item(key, uuid=uuid))
        try:
            # again: another `add` may have come first, or a rotation have begun
            self._replaceable(identity.name, replace=replace, overtakes=overtakes)
            before = self.lines(identity.name)
            self.put(identity.name, (self._make_entry(identity, uuid, store.backend, generation=store.generation),))
        except VaultdError:
            await store.drop(_item(uuid))
            raise
        if self.store is store:
            self._keys[uuid] = key
        for each in before:  # with those of a rotation that the new key has overtaken
            self._keys.pop(each.uuid, None)
            await _drop_old(store, each.uuid)

    def _save(self, entries: tuple[Entry, ...]) -> None:
        entries = tuple(sorted(entries, key=lambda entry: entry.identity.name))
        self._seal.expect(self._index.digest, self._index.digest_of(entries))
        self._index.save(entries)
        self._seal.settle(self._index.digest)
        self._entries = entries

    def _entry(self, name: str) -> Entry:
        if (found := self._find(name)) is not None:
            return found
        near = nearest(name, (identity.name for identity in self.all()))
        way = "identities" if limits.identity_name(name) else f"add {typed(name)}"
        raise UnknownIdentity(f"no key is stored for identity {shown(name)}.{near} Run `vault-client {way}`")

    def _find(self, name: str) -> Entry | None:
        return next((each for each in self._entries if each.identity.name == name and each.state == "active"), None)

    def _open_store(self) -> IdentityStore:
        if self.store is None:
            raise AssertionError  # the keeper asks only while it is open
        return self.store


def _item(uuid: str) -> str:
    return f"{_ITEM}{uuid}"


def _identity(key: IdentityKey, *, arn: str, serial: str | None, created: datetime) -> Identity:
    return Identity(
        name=key.identity,
        account_id=arn.split(":")[4],
        user_arn=arn,
        mfa_serial=serial,
        key_ending=key.access_key_id[-4:],
        created=created.replace(microsecond=0),
    )


async def _drop_old(store: IdentityStore, uuid: str) -> None:
    """The new key stands; an old item that cannot be dropped now is one nobody reads."""
    try:
        await store.drop(_item(uuid))
    except VaultdError as exc:
        log.warning("drop old-key failed error=%s", exc.kind)
