"""DaemonKeeper: open, mint, note, close; the only holder of identity keys, MFA sessions and the data key.

Rules (architecture.md §3, §6.6, §7)
- Nothing secret goes up but role sessions, and an MFA session only for a profile without role.
- Each call carries the epoch it began in; what lands after a lock is dropped and answered Locked.
- `close` is one turn without an await: epoch, keys, sessions first, then what touches the disk.
- The keeper owns facts, not policy: when to ask, renew or retry is the broker's.
"""

from __future__ import annotations

import asyncio
import builtins
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
from vaultd.errors import (
    BadRequest,
    IdentityBroken,
    KeyringBusy,
    Locked,
    MfaRequired,
    SessionRejected,
    StoreUnavailable,
    StsUnavailable,
    Throttled,
    Unwritable,
    VaultdError,
)
from vaultd.files import Files
from vaultd.keeper import codec
from vaultd.keeper.codes import Codes, Sent, six_digits
from vaultd.keeper.custody import Identities, Index, MakeEntry
from vaultd.keeper.importing import KeyImport
from vaultd.keeper.index_seal import IndexSeal
from vaultd.keeper.notes import living_notes, seal_head, seal_note
from vaultd.keeper.opening import Kind, Shut, Stores
from vaultd.keeper.records import Records
from vaultd.keeper.rotation import KeyRotation
from vaultd.keeper.sessions import MfaSessions
from vaultd.keeper.stepping import Gate, Stepping
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import Wish
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed

log = logging.getLogger(__name__)

_DATA_KEY = "data-key"
_LOCKED = "vaultd is locked; run `vault-client unlock`"


class DaemonKeeper:
    """The seams `Keeper` and `Custody` in this process.

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
        self._sts = sts
        self._clock = clock
        self._files = files
        self._marker = locked_marker
        self._persist = persist
        self._records = Records(sealed_log)
        self._codes = Codes(records=self._records, clock=clock)
        self._sessions = MfaSessions(records=self._records, clock=clock, persist=persist)
        self._identities = Identities(
            index=index, seal=IndexSeal(self._records), make_entry=make_entry, sts=sts, iam=iam, clock=clock
        )
        self._rotation = KeyRotation(identities=self._identities, sts=sts, iam=iam, clock=clock)
        self._import = KeyImport(foreign, self._identities)
        self._stepping = Stepping(
            Gate(
                live=self._live,
                still=self._still,
                same=lambda epoch: epoch == self._epoch,
                key=self._key,
                session=self._session,
                rejected=self._rejected,
                too_young=self._too_young,
            ),
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
        if not unlock and self._files.read(self._marker) is not None:
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
            data_key = await _data_key(store)
        except KeyringBusy as exc:
            if unlock:
                raise
            return self._shut("keyring", exc.message)
        if epoch != self._epoch:
            store.close()
            return self._shut(store.kind, _LOCKED)
        return self._opened(store, data_key, unlock=unlock)

    def _shut(self, kind: Kind, reason: str) -> Opened:
        return Opened(self._epoch, kind, locked=True, reason=reason)

    def _opened(self, store: IdentityStore, data_key: Secret, *, unlock: bool) -> Opened:
        """In one turn: either all of it is open or none."""
        try:
            unlisted = self._identities.unlisted(store)
            living = self._records.open(data_key)
        except VaultdError:
            store.close()
            raise
        self._store = self._identities.store = store
        known = self._codes.open(data_key, living, expected=bool(self._identities.all()))
        self._sessions.open(living)
        notes, head = living_notes(self._records, living, now=self._clock.now(), persist=self._persist)
        warnings = self._unmark() if unlock else []
        warnings += _log_warnings(damaged=self._records.damaged, known=known)
        warnings += _index_warnings(unlisted, newest=self._identities.newest(living))
        log.info("open store kind=%s sessions=%d", store.kind, len(self._sessions.handles))
        return Opened(
            self._epoch,
            store.kind,
            locked=False,
            handles=self._sessions.handles,
            notes=notes,
            head=head,
            warnings=tuple(warnings),
        )

    def _unmark(self) -> builtins.list[str]:
        try:
            self._files.remove(self._marker)
        except Unwritable as exc:
            return [f"vaultd is unlocked now but will start locked: {exc.message}"]
        return []

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
            self._mark()
        return self._epoch

    def _mark(self) -> None:
        try:
            self._files.replace(self._marker, b"locked\n")
        except VaultdError as exc:
            log.warning("write locked-marker failed error=%s", exc.message)
            raise Unwritable(
                f"vaultd is locked, but {self._marker} could not be written and a restart would open the store again: "
                f"{_mending(exc)}, then type `vault-client lock` again.",
                path=str(self._marker),
            ) from exc

    # ---- mint ----

    async def mint(self, order: MintMfa | MintRole | MintServed) -> Minted:
        """One session, or the error; Locked when a lock came first, whatever the call brought."""
        epoch = self._live()
        try:
            return await self._minted(order, epoch)
        except VaultdError as exc:
            if epoch != self._epoch and not isinstance(exc, Locked):
                raise Locked(_LOCKED) from exc
            if isinstance(exc, IdentityBroken) and not isinstance(order, MintServed):
                raise self._too_young(order.identity, exc) from exc
            raise

    def _too_young(self, name: str, exc: IdentityBroken) -> VaultdError:
        """Row 10 of a key that was rotated in a moment ago: not every region knows it yet, so it may work later."""
        if "account" in exc.details or not self._rotation.young(name):  # one of another account never will
            return exc
        return StsUnavailable(
            f"the key of identity {shown(name)} was rotated a moment ago, and AWS does not know the new one everywhere "
            "yet; try again in a minute",
            code_sent=False,
        )

    async def _minted(self, order: MintMfa | MintRole | MintServed, epoch: int) -> Minted:
        if isinstance(order, MintMfa):
            return Minted(handle=await self._mint_mfa(order, epoch))
        if isinstance(order, MintRole):
            return Minted(session=await self._mint_role(order, epoch))
        return Minted(session=self._mint_served(order))

    async def _mint_mfa(self, order: MintMfa, epoch: int) -> MfaHandle:
        key = await self._key(order.identity, epoch)
        asked = self._identities.identity(order.identity)
        code, sent = self._spend(order.mfa_serial, order.token_code)
        try:
            session = await self._sts.session_token(
                key,
                endpoint=order.endpoint,
                duration=order.duration,
                mfa_serial=order.mfa_serial,
                token_code=code,
            )
        except Throttled:
            self._throttled(sent, epoch)
            raise
        self._still(epoch)
        self._still_there(asked)
        self._sessions.put(session, region=order.endpoint.region)
        return session.handle

    async def _mint_role(self, order: MintRole, epoch: int) -> RoleSession:
        source = await self._source(order, epoch)
        code, sent = self._spend(order.mfa_serial, order.token_code)
        asked = None if code is None else self._identities.identity(order.identity)
        try:
            session = await self._sts.assume_role(
                source,
                endpoint=order.endpoint,
                duration=order.duration,
                role=order.role,
                mfa_serial=order.mfa_serial,
                token_code=code,
            )
        except Throttled:
            self._throttled(sent, epoch)
            raise
        except SessionRejected as exc:
            self._still(epoch)
            if isinstance(order.source, MfaHandle):
                await self._rejected(order.source, exc, epoch, endpoint=order.endpoint)
            raise
        self._still(epoch)
        self._still_there(asked)
        return session

    async def _source(self, order: MintRole, epoch: int) -> IdentityKey | MfaSession | RoleSession:
        if order.source is None:
            return await self._key(order.identity, epoch)
        if order.token_code is not None:
            raise BadRequest("token_code goes with an identity key only; run `vault-client explain PROFILE`")
        return self._session(order.source) if isinstance(order.source, MfaHandle) else order.source

    async def _rejected(self, handle: MfaHandle, exc: SessionRejected, epoch: int, *, endpoint: Endpoint) -> None:
        """Rows 9 and 10: the MFA session is dead. Row 10 may be the key's own death, which no code mends: probe it."""
        log.warning("drop mfa-session identity=%s expired=%s", handle.identity, exc.details.get("expired"))
        self._sessions.drop(lambda each: each == handle)
        if exc.details.get("expired"):
            return
        try:
            await self._prove(handle.identity, epoch, endpoint)
        except IdentityBroken:
            raise
        except VaultdError as probe:
            log.info("probe identity-key undecided identity=%s error=%s", handle.identity, probe.kind)

    async def _prove(self, name: str, epoch: int, endpoint: Endpoint) -> str:
        """Whose key it is, by AWS, in the account that it was added for (security.md §1 T13). Raises IdentityBroken."""
        key = await self._key(name, epoch)
        arn = await self._sts.caller_identity(key, endpoint=endpoint)
        account = arn.split(":")[4]
        added = self._identities.identity(name).account_id
        if account != added:
            raise IdentityBroken(
                f"the key that is stored for {typed(name)} is of account {shown(account)}, and was added for {added}: "
                f"type `vault-client add {typed(name)} --replace`",
                account=account,
            )
        return arn

    def _mint_served(self, order: MintServed) -> RoleSession:
        session = self._session(order.handle)
        return RoleSession(
            access_key_id=session.access_key_id,
            secret_access_key=session.secret_access_key,
            session_token=session.session_token,
            issued=session.handle.issued,
            expiration=session.handle.expiration,
            account_id=self._identities.identity(order.handle.identity).account_id,
        )

    def _spend(self, serial: str | None, code: Secret | None) -> tuple[Secret | None, Sent | None]:
        """The code as it is sent, written down as sent; both None for a call without one."""
        if (serial is None) != (code is None):
            raise BadRequest("mfa_serial and token_code go together; run `vault-client explain PROFILE`")
        if serial is None or code is None:
            return None, None
        digits = six_digits(code)
        return digits, self._codes.spend(serial, digits)

    def _throttled(self, sent: Sent | None, epoch: int) -> None:
        if sent is not None and epoch == self._epoch:
            again = self._codes.unmark(sent)
            log.info("throttle code serial=%s again=%s", sent.serial, again)

    def _session(self, handle: MfaHandle) -> MfaSession:
        found = self._sessions.find(handle)
        if found is None:
            raise SessionRejected("that MFA session was dropped; run `vault-client mfa`", expired=True)
        return found

    async def _key(self, name: str, epoch: int) -> IdentityKey:
        key = await self._identities.key(name)
        self._still(epoch)
        return key

    # ---- note ----

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
        identity = await self._identities.add(key, endpoint=endpoint, mfa_serial=mfa_serial, replace=replace)
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
        try:
            return await self._prove(name, self._live(), endpoint)
        except IdentityBroken as exc:
            raise self._too_young(name, exc) from exc

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

    def _still_there(self, asked: Identity | None) -> None:
        """A call with a code is never cancelled, so it may land after `remove`: what it brought goes with the identity.

        Raises UnknownIdentity, or MfaRequired where another key has taken the name.
        """
        if asked is None:
            return
        self._identities.identity(asked.name)
        if not self._identities.holds(asked):
            name = typed(asked.name)
            raise MfaRequired(
                f"the key of identity {shown(asked.name)} was replaced under way; type `vault-client mfa {name}`"
            )


def _index_warnings(unlisted: int, *, newest: bool) -> builtins.list[str]:
    """An index that was lost, over a store that was not: it lists nothing, and looks like a new home. Or one that is
    not as it was written: it may list fewer keys, or another state of one.
    """
    if not unlisted and newest:
        return []
    if not unlisted:
        said = "identities.json is not the one that sessions.sealed knows, so one of them is older or was changed"
        return [f"{said}; see what it lists with `vault-client identities`"]
    keys = "a key" if unlisted == 1 else f"{unlisted} keys"
    lost = f"the store holds {keys} and identities.json lists none; if that file was lost, restore it from a backup and"
    return [f"{lost} run `vaultd restart`, else run `vault-client add IDENTITY`"]


def _log_warnings(*, damaged: bool, known: bool) -> builtins.list[str]:
    """One at most (interface.md §1): where the log was lost, what became of it and of the codes."""
    mute = "which codes were sent is not known and none is taken for the first 30 s; run `vault-client mfa`"
    if damaged:
        kept = "sessions.sealed was damaged and is kept as sessions.sealed.damaged"
        return [f"{kept}; run `vault-client mfa` to sign in again" if known else f"{kept}, so {mute} to sign in again"]
    return [] if known else [f"sessions.sealed was missing though keys are stored, so {mute} after that"]


async def _data_key(store: IdentityStore) -> Secret:
    """The data key of this home, made at the first open."""
    try:
        item = await store.load(_DATA_KEY)
        if item is not None:
            return codec.data_key_of(item)
        made = codec.new_data_key()
        await store.save(_DATA_KEY, codec.data_key_item(made))
    except VaultdError:
        store.close()
        raise
    return made


def _mending(exc: VaultdError) -> str:
    """What the file layer says mends it: a full disk and a directory that may not be written want different things."""
    return exc.message.rpartition(": ")[2].removesuffix(".").removesuffix(", and try again")
