"""The identities: their index in memory, their keys while unlocked, adding, removing, finding their MFA device.

Rules
- A key is verified with GetCallerIdentity before it is stored; root's and temporary keys are refused.
- Write order (security.md §3.1): new item → read back (the store does) → index → drop the old item. Removal drops the
  key first: a kill in between leaves a line without a key, never a key without a line.
- The device is AWS's answer or what the user said, never made up from the user name (aws-facts §2.2).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import uuid4

from vaultd.engine.seams import Clock, Iam, IdentityStore, Sts
from vaultd.errors import BadRequest, IdentityBroken, IdentityExists, Locked, RoleDenied, UnknownIdentity, VaultdError
from vaultd.keeper import codec
from vaultd.keeper.index_seal import IndexSeal
from vaultd.model import limits
from vaultd.model.credentials import Identity, IdentityKey
from vaultd.model.partitions import Endpoint, parse_arn
from vaultd.model.text import nearest, shown, typed

log = logging.getLogger(__name__)

_ITEM = "identity:"


class Entry(Protocol):
    """One line of the index: the identity, and the item `uuid` of store `backend` that holds its key."""

    @property
    def identity(self) -> Identity:
        """Whose key it is."""

    @property
    def uuid(self) -> str:
        """The item's name."""

    @property
    def backend(self) -> str:
        """`file`, or the keyring's id."""

    @property
    def generation(self) -> int:
        """The store's when it was written."""

    @property
    def state(self) -> Literal["active", "pending", "retired"]:
        """`active` for the key in use (aws-facts §2.1 for the others)."""


class Index(Protocol):
    """`identities.json`, loaded and saved whole (store/identities.py). `entries` are of its own class."""

    @property
    def digest(self) -> str:
        """Of the file as it was loaded or saved last."""

    def load(self) -> tuple[Entry, ...]:
        """Raises FileRefused, Misconfigured."""

    def save(self, entries: tuple[Any, ...]) -> None:
        """Raises Unwritable; the old index then stands."""

    def digest_of(self, entries: tuple[Any, ...]) -> str:
        """What `digest` is once they are saved."""


class MakeEntry(Protocol):
    """Makes a line of the index's own class."""

    def __call__(
        self,
        identity: Identity,
        uuid: str,
        backend: str,
        *,
        generation: int,
        state: Literal["active", "pending", "retired"] = "active",
    ) -> Entry:
        """`generation` is the store's after the key was written."""


class Identities:
    """The index and the keys. `store` is None while shut."""

    def __init__(
        self, *, index: Index, seal: IndexSeal, make_entry: MakeEntry, sts: Sts, iam: Iam, clock: Clock
    ) -> None:
        self._index = index
        self._seal = seal
        self._make_entry = make_entry
        self._sts = sts
        self._iam = iam
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
            raise IdentityBroken(
                f"the store holds no key for identity {shown(name)}; run `vault-client add {typed(name)} --replace`"
            )
        key = codec.key_of(item, identity=entry.identity, uuid=entry.uuid)
        if self.store is store:  # not closed meanwhile
            self._keys[entry.uuid] = key
        return key

    async def add(self, key: IdentityKey, *, endpoint: Endpoint, mfa_serial: str | None, replace: bool) -> Identity:
        """Verify, find the device, store, index."""
        store = self._open_store()
        old = self._replaceable(key.identity, replace=replace)
        arn = await self._verified(key, endpoint=endpoint)
        same_user = old is not None and old.identity.user_arn == arn
        fallback = old.identity.mfa_serial if old is not None and same_user else None
        serial = _checked_serial(mfa_serial) or await self._one_device(key, endpoint=endpoint, fallback=fallback)
        identity = _identity(key, arn=arn, serial=serial, created=self._clock.now())
        await self._store_key(store, key, identity, replace=replace)
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
        return await self._devices(await self.key(name), endpoint=endpoint)

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

    def _replaceable(self, name: str, *, replace: bool) -> Entry | None:
        old = self._find(name)
        if old is not None and not replace:
            raise IdentityExists(
                f"identity {shown(name)} exists; run `vault-client add {typed(name)} --replace` to replace its key"
            )
        return old

    async def _store_key(self, store: IdentityStore, key: IdentityKey, identity: Identity, *, replace: bool) -> None:
        uuid = str(uuid4())
        await store.save(_item(uuid), codec.key_item(key, uuid=uuid))
        try:
            self._replaceable(identity.name, replace=replace)  # again: another `add` may have come first
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

    async def _verified(self, key: IdentityKey, *, endpoint: Endpoint) -> str:
        """The ARN of the user whose key it is. Raises BadRequest, IdentityBroken."""
        if not re.fullmatch(r"[A-Z0-9]{16,128}", key.access_key_id):
            raise BadRequest("AccessKeyId has not the shape of an access key id; run `vault-client add` again")
        if key.access_key_id.startswith("ASIA"):
            raise BadRequest(
                "AccessKeyId is a temporary key (ASIA…), which would be dead within hours; create an access key for "
                "your IAM user and run `vault-client add` with that"
            )
        try:
            arn = await self._sts.caller_identity(key, endpoint=endpoint)
        except IdentityBroken as exc:
            raise IdentityBroken(
                f"AWS does not accept that key for identity {shown(key.identity)}; check key id and secret and run "
                f"`vault-client add {typed(key.identity)}` again"
            ) from exc
        parsed = parse_arn(arn)
        if parsed is None or not parsed.resource.startswith("user/"):
            raise BadRequest(
                f"AccessKeyId belongs to {shown(arn)}, which is no IAM user (root cannot assume roles); create an IAM "
                "user and run `vault-client add` with a key of that"
            )
        return arn

    async def _one_device(self, key: IdentityKey, *, endpoint: Endpoint, fallback: str | None) -> str | None:
        """The one usable device, None for none; a refusal to tell is no reason not to store the key."""
        try:
            serials = await self._devices(key, endpoint=endpoint)
        except RoleDenied as exc:
            log.info("skip mfa-detection identity=%s reason=%s", shown(key.identity), exc.kind)
            return fallback
        if len(serials) > 1:
            raise BadRequest(
                f"MfaSerial: the user of identity {shown(key.identity)} has several MFA devices: "
                f"{', '.join(shown(serial) for serial in serials)}; run "
                f"`vault-client add {typed(key.identity)} --mfa-serial ARN`",
                mfa_serials=[shown(serial) for serial in serials],
            )
        return serials[0] if serials else None

    async def _devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        found = await self._iam.mfa_devices(key, endpoint=endpoint)
        return tuple(serial for serial in found if _usable(serial))

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


def _usable(serial: str) -> bool:
    """`:mfa/` ARNs and the bare serials of hardware; FIDO devices never work with STS (aws-facts §1.1, §2.2)."""
    return ":mfa/" in serial or not serial.startswith("arn:")


def _checked_serial(serial: str | None) -> str | None:
    if serial is None or _usable(serial):
        return serial
    what = "a FIDO device, which STS cannot use" if ":u2f/" in serial else "not the ARN of an MFA device"
    raise BadRequest(f"MfaSerial: {shown(serial)} is {what}; run `vault-client add` with --mfa-serial arn:…:mfa/NAME")


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
