"""DaemonKeeper: the seams `Keeper`, `Custody` and `Importer`; the only holder of identity keys, MFA sessions, data key.

Rules (architecture.md §3, §6.6, §7)
- Nothing secret goes up but role sessions, and an MFA session only for a profile without role.
- Each call carries the epoch it began in; what lands after a lock is dropped and answered Locked.
- `close` is one turn without an await: epoch, keys, sessions first, then what touches the disk.
- The keeper owns facts, not policy: when to ask, renew or retry is the broker's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from vaultd.engine.seams import (
    Clock,
    ForeignKeys,
    ForeignStore,
    Head,
    Iam,
    IdentityStore,
    Kin,
    Minted,
    MintMfa,
    MintRole,
    MintServed,
    Note,
    Offer,
    Opened,
    Rotated,
    SealedLog,
    Sts,
)
from vaultd.errors import KeyringBusy, Locked, StoreUnavailable, Unwritable, VaultdError
from vaultd.files import Files
from vaultd.keeper import losses
from vaultd.keeper.codes import Codes
from vaultd.keeper.custody import Identities
from vaultd.keeper.importing import KeyImport
from vaultd.keeper.index import Index, MakeEntry
from vaultd.keeper.index_seal import IndexSeal
from vaultd.keeper.marker import LockedMarker
from vaultd.keeper.minting import Gate, Minting
from vaultd.keeper.notes import living_notes, seal_head, seal_note
from vaultd.keeper.opening import Kind, Shut, Stores, data_key
from vaultd.keeper.records import Records
from vaultd.keeper.rotation import KeyRotation
from vaultd.keeper.sessions import MfaSessions
from vaultd.keeper.stepping import Stepping
from vaultd.keeper.verification import Verification
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import Wish
from vaultd.model.secret import Secret

log = logging.getLogger(__name__)

_LOCKED = "vaultd is locked; run `vault-client unlock`"


class DaemonKeeper:
    """In this process. Each seam's work is in a module of its own; open, close and the epoch are here.

    `locked_marker` is the file of interface.md §7 that keeps a locked daemon locked over a restart.
    """

    def __init__(
        self,
        *,
        stores: Stores,
        sealed_log: SealedLog,
        index: Index,
        make_entry: MakeEntry,
        sts: Sts,
        iam: Iam,
        foreign: ForeignKeys,
        clock: Clock,
        files: Files,
        locked_marker: Path,
        persist: bool = True,
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._marker = LockedMarker(files, locked_marker)
        self._persist = persist
        self._records = Records(sealed_log)
        self._codes = Codes(records=self._records, clock=clock)
        self._sessions = MfaSessions(records=self._records, clock=clock, persist=persist)
        self._identities = Identities(
            index=index,
            seal=IndexSeal(self._records),
            make_entry=make_entry,
            verification=Verification(sts=sts, iam=iam),
            clock=clock,
        )
        self._rotation = KeyRotation(identities=self._identities, sts=sts, iam=iam, clock=clock)
        self._import = KeyImport(foreign, self._identities)
        gate = Gate(live=self._live, still=self._still, same=lambda epoch: epoch == self._epoch)
        self._minting = Minting(
            gate,
            sts=sts,
            identities=self._identities,
            codes=self._codes,
            sessions=self._sessions,
            rotation=self._rotation,
        )
        self._stepping = Stepping(
            gate,
            minting=self._minting,
            rotation=self._rotation,
            identities=self._identities,
            sessions=self._sessions,
            records=self._records,
            clock=clock,
        )
        self._store: IdentityStore | None = None
        self._opening: asyncio.Future[None] | None = None
        self._epoch = 0

    # ---- open and close ----

    async def open(
        self, *, passphrase: Secret | None = None, unlock: bool = False, accept_rollback: bool = False
    ) -> Opened:
        """See the seam. Open already: the handles again, without the notes, which only a start needs."""
        while self._opening is not None:
            await asyncio.wait({self._opening})
        if self._store is not None:
            return Opened(self._epoch, self._store.kind, locked=False, handles=self._sessions.handles)
        self._opening = opening = asyncio.get_running_loop().create_future()
        try:
            return await self._open(passphrase, unlock=unlock, accept_rollback=accept_rollback)
        finally:
            self._opening = None
            opening.set_result(None)

    @property
    def expects(self) -> Kind:
        """The kind of store that `open` tries first, for whoever must say so while it is shut."""
        recorded = self._identities.recorded
        try:
            return self._stores.expected(recorded)
        except StoreUnavailable:  # the settings and the index name different ones
            return "file" if "file" in recorded else "keyring"

    async def _open(self, passphrase: Secret | None, *, unlock: bool, accept_rollback: bool) -> Opened:
        epoch = self._epoch
        self._identities.load()
        recorded = self._identities.recorded
        if not unlock and self._marker.there():
            return self._shut(self._stores.expected(recorded), _LOCKED)
        try:
            store = await self._stores.open(
                recorded,
                passphrase=passphrase,
                seen=self._identities.generation,
                accept_rollback=accept_rollback,
            )
            if isinstance(store, Shut):
                return self._shut(store.kind, store.reason)
            key = await data_key(store)
        except KeyringBusy as exc:
            if unlock:
                raise
            return self._shut("keyring", exc.message)
        if epoch != self._epoch:
            store.close()
            return self._shut(store.kind, _LOCKED)
        return self._opened(store, key, unlock=unlock)

    def _shut(self, kind: Kind, reason: str) -> Opened:
        return Opened(self._epoch, kind, locked=True, reason=reason)

    def _opened(self, store: IdentityStore, data_key: Secret, *, unlock: bool) -> Opened:
        """In one turn: either all of it is open or none."""
        try:
            unlisted = self._identities.unlisted(store)
            keyless = self._identities.keyless(store)
            living = self._records.open(data_key)
        except VaultdError:
            store.close()
            raise
        self._store = self._identities.store = store
        known = self._codes.open(data_key, living, expected=bool(self._identities.all()))
        self._sessions.open(living)
        notes, head = living_notes(self._records, living, now=self._clock.now(), persist=self._persist)
        given_up = bool(keyless) and keyless == self._identities.all()
        warnings = self._marker.take_away() if unlock else []
        warnings += losses.of_log(damaged=self._records.damaged, known=known, given_up=given_up)
        warnings += losses.of_index(unlisted, newest=self._identities.newest(living))
        log.info("open store kind=%s sessions=%d", store.kind, len(self._sessions.handles))
        return Opened(
            self._epoch,
            store.kind,
            locked=False,
            handles=self._sessions.handles,
            notes=notes,
            head=head,
            warnings=tuple(warnings),
            keyless=keyless,
        )

    async def close(self, head: Head | None, *, lock: bool = True) -> int:
        """Keys and sessions go first; the head is sealed with the log's key, which goes next; then the marker.

        Raises Unwritable when all of that is gone, but the marker could not be written: a restart would open the store.
        """
        self._epoch += 1
        store, self._store = self._store, None
        self._identities.close()
        self._sessions.close()
        self._codes.close()
        if store is not None:
            store.close()
            self._codes.vouch()
            with suppress(Unwritable):  # told by records; a head not sealed is a tail that cannot be attested
                seal_head(self._records, head)
            self._records.close()
        log.info("close store lock=%s epoch=%d", lock, self._epoch)
        if lock:
            self._marker.put()
        return self._epoch

    # ---- mint, note ----

    async def mint(self, order: MintMfa | MintRole | MintServed) -> Minted:
        """See the seam."""
        return await self._minting.mint(order)

    async def note(self, note: Note) -> None:
        """Seal or drop a record; raises Locked, Unwritable."""
        self._live()
        if note.kind == "drop_mfa":
            self._sessions.drop(lambda handle: handle.identity == note.cell)
            self._records.compact()
        else:
            seal_note(self._records, note, persist=self._persist)

    # ---- custody ----

    def list(self) -> tuple[Identity, ...]:
        """The index, by name."""
        return self._identities.all()

    async def add(
        self, key: IdentityKey, *, endpoint: Endpoint, mfa_serial: str | None = None, replace: bool = False
    ) -> Identity:
        """See the seam."""
        epoch = self._live()
        before = next((each for each in self.list() if each.name == key.identity), None)
        overtakes = await self._rotation.overtaken(key.identity, endpoint=endpoint) if replace else ""
        self._still(epoch)
        identity = await self._identities.add(
            key, endpoint=endpoint, mfa_serial=mfa_serial, replace=replace, overtakes=overtakes
        )
        if epoch == self._epoch:
            self._codes.vouch()
        if before is not None and before.user_arn != identity.user_arn and epoch == self._epoch:
            self._sessions.drop(lambda handle: handle.identity == identity.name)  # another user's sessions
        return identity

    async def remove(self, name: str) -> None:
        """Drop key, index line and MFA sessions."""
        epoch = self._live()
        await self._identities.remove(name)
        self._still(epoch)
        self._sessions.drop(lambda handle: handle.identity == name)
        self._records.compact()

    async def probe(self, name: str, *, endpoint: Endpoint) -> str:
        """See the seam."""
        return await self._minting.probe(name, endpoint=endpoint)

    async def detect(self, name: str, *, endpoint: Endpoint) -> Sequence[str]:
        """The usable MFA serials."""
        self._live()
        return await self._identities.detect(name, endpoint=endpoint)

    async def rotate(
        self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None, wish: Wish, grace: timedelta | None
    ) -> Rotated:
        """See the seam."""
        return await self._stepping.rotate(name, endpoint=endpoint, handle=handle, wish=wish, grace=grace)

    async def date(self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None) -> Identity:
        """See the seam."""
        return await self._stepping.date(name, endpoint=endpoint, handle=handle)

    # ---- importer ----

    async def offers(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[Offer, ...]:
        """See the seam."""
        epoch = self._live()
        found = await self._import.offers(source, passphrase=passphrase, names=names)
        self._still(epoch)
        return found

    async def adopt(
        self, source: ForeignStore, name: str, *, passphrase: Secret | None, endpoint: Endpoint, mfa_serial: str | None
    ) -> Identity:
        """See the seam."""
        epoch = self._live()
        key = await self._import.key(source, name, passphrase=passphrase)
        self._still(epoch)
        if await self._import.holds(key):
            return self._identities.identity(key.identity)
        return await self.add(key, endpoint=endpoint, mfa_serial=mfa_serial)

    async def discard(self, source: ForeignStore, name: str, *, passphrase: Secret | None) -> None:
        """See the seam."""
        self._live()
        await self._import.discard(source, name, passphrase=passphrase)

    async def holds(self, key: IdentityKey) -> bool:
        """See the seam."""
        self._live()
        return await self._import.holds(key)

    async def kin(self, key: IdentityKey) -> Kin:
        """See the seam."""
        self._live()
        return await self._import.kin(key)

    # ---- shared ----

    def _live(self) -> int:
        """The epoch; raises Locked while shut."""
        if self._store is None:
            raise Locked(_LOCKED)
        return self._epoch

    def _still(self, epoch: int) -> None:
        """Raises Locked when the keeper was closed since `epoch`."""
        if epoch != self._epoch:
            raise Locked(_LOCKED)
