"""The Protocols between rooms, and the frozen values that cross them (architecture.md §3).

Rule: above `Keeper` no value carries an identity key or the keys of an MFA session; passphrase, new key and code go
down as `Secret` and are not kept. Arguments and results are frozen and serialisable, errors are VaultdError, there are
no callbacks: the same Protocol over a socketpair is a second process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

from vaultd.model.console import Site
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.rotation import Wish
from vaultd.model.secret import Secret


class Clock(Protocol):
    """Wall time for what AWS dates, boottime (seconds, counts suspend) for idle, cool-down and deadlines."""

    def now(self) -> datetime: ...
    def boottime(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


# ---- for everybody: the keeper and its custody of identities ----


@dataclass(frozen=True, slots=True)
class Head:
    """The audit chain's end: the last `seq` and the hex SHA-256 of its line (interface.md §8)."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class Note:
    """What the broker wants sealed for the next start, or dropped from it.

    session: a role session of `cell`. limit: a learned MFA-age limit of `cell`, in `seconds`. duration: the
    DurationSeconds that AWS accepted for `cell`. head: the audit head, each minute.
    drop: the session of `cell`. drop_mfa: the MFA sessions of identity `cell`. Both compact the log at once.
    """

    kind: Literal["session", "limit", "duration", "head", "drop", "drop_mfa"]
    cell: str = ""
    session: RoleSession | None = None
    seconds: int | None = None
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The keeper's state after `open`. `locked` with `reason` (one sentence ending in what to type) when it stays shut.

    `handles` are the live MFA sessions, `notes` the live sessions and limits, `head` the audit head last sealed.
    `epoch` grows with every close; an outcome of an older epoch is dropped by whoever holds it.
    `keyless` are the identities of the index whose key the store does not hold.
    """

    epoch: int
    store: Literal["keyring", "file"]
    locked: bool
    reason: str = ""
    handles: tuple[MfaHandle, ...] = ()
    notes: tuple[Note, ...] = ()
    head: Head | None = None
    warnings: tuple[str, ...] = ()
    keyless: tuple[Identity, ...] = ()


@dataclass(frozen=True, slots=True)
class MintMfa:
    """GetSessionToken; with `mfa_serial` and `token_code`, or without both."""

    identity: str
    endpoint: Endpoint
    duration: timedelta
    mfa_serial: str | None = None
    token_code: Secret | None = None


@dataclass(frozen=True, slots=True)
class MintRole:
    """AssumeRole from `source`: an MFA session's handle, a parent role session, or None for the identity key itself.

    `mfa_serial` and `token_code` go together, and only with source None (aws-facts §1.5 row 2).
    """

    identity: str
    endpoint: Endpoint
    duration: timedelta
    role: RoleParameters
    source: MfaHandle | RoleSession | None = None
    mfa_serial: str | None = None
    token_code: Secret | None = None


@dataclass(frozen=True, slots=True)
class MintServed:
    """The MFA session itself as a servable session: only for a profile without `role_arn`; no AWS call."""

    handle: MfaHandle


@dataclass(frozen=True, slots=True)
class Minted:
    """`handle` after MintMfa, `session` after MintRole and MintServed."""

    handle: MfaHandle | None = None
    session: RoleSession | None = None


class Keeper(Protocol):
    """The only holder of identity keys, MFA sessions and the data key."""

    async def open(
        self, *, passphrase: Secret | None = None, unlock: bool = False, accept_rollback: bool = False
    ) -> Opened:
        """Open the store, as far as it goes without a person.

        With the marker file `locked` present, or a file store and no passphrase, the result is `locked` with a reason
        unless `unlock` is given. `unlock` with a passphrase creates a file store that does not exist yet.
        Raises WrongPassphrase, StoreDamaged, StoreRolledBack, StoreUnavailable, KeyringBusy.
        """

    async def mint(self, order: MintMfa | MintRole | MintServed) -> Minted:
        """Make one session. An MFA session is sealed before this returns.

        A token code is written down as sent before the call and refused (CodeSpent) ever after, but for a clean
        Throttling, which un-marks it twice at most. Raises Locked, UnknownIdentity, CodeSpent, CodeRefused,
        DeviceRefused, RoleDenied and its children, IdentityBroken, SessionRejected (the source is dead; the keeper has
        dropped it), StsUnavailable (with code_sent), Throttled, KeyringBusy.
        """

    async def note(self, note: Note) -> None:
        """Seal or drop a record; a full or read-only disk is logged once and raises Unwritable."""

    async def close(self, head: Head | None, *, lock: bool = True) -> int:
        """Seal the head, drop every secret, return the new epoch. `lock` writes the marker; stop does not. Unwritable:
        everything is dropped, but the marker is not there.
        """


#: What a step of a rotation did; see Rotated.
Did = Literal[
    "intent", "pending", "tried", "swapped", "inactive", "kept", "deleted", "reactivated", "abandoned", "over"
]


@dataclass(frozen=True, slots=True)
class Rotated:
    """What one step of a rotation did, and the `identity` as it is now.

    intent: written down what will be made. pending: the new key is made and stored. tried: one look whether AWS takes
    it, the `usable`-th in a row. swapped: it is in use. inactive: the old one is Inactive. kept: nothing, its grace is
    not over. deleted: the old one is gone. reactivated, abandoned: as was wished. over: nothing is under way.
    `old_key` and `new_key` are the last 4 characters, `last_used` AWS's word on the old key, where it gives one.
    `signed_out`: MFA sessions that the old key had opened were dropped. `living`, once that key is Inactive or gone:
    those that there are, all of the key in use; None while it is not.
    """

    identity: Identity
    did: Did
    old_key: str
    new_key: str = ""
    usable: int = 0
    last_used: str = ""
    signed_out: bool = False
    living: tuple[MfaHandle, ...] | None = None


class Custody(Protocol):
    """The identities: list, add, remove, detect, rotate. Implemented by the keeper beside Keeper."""

    def list(self) -> tuple[Identity, ...]:
        """The index, by name; no I/O, works while locked."""

    async def add(
        self, key: IdentityKey, *, endpoint: Endpoint, mfa_serial: str | None = None, replace: bool = False
    ) -> Identity:
        """Verify with GetCallerIdentity, detect the MFA device unless given, write, read back, index.

        Raises IdentityExists, IdentityBroken, BadRequest (several devices: names them), StoreUnavailable, KeyringBusy;
        RotationStopped where it would replace a key whose rotation can still be ended: that has another key at AWS.
        """

    async def remove(self, name: str) -> None:
        """Drop key, index line and MFA sessions; raises UnknownIdentity."""

    async def probe(self, name: str, *, endpoint: Endpoint) -> str:
        """The user's ARN, by GetCallerIdentity with the bare key; raises IdentityBroken, ClockSkewed, StsUnavailable,
        KeyringBusy.
        """

    async def detect(self, name: str, *, endpoint: Endpoint) -> Sequence[str]:
        """The usable MFA serials (aws-facts §2.2) by ListMFADevices with the bare key; FIDO devices are left out."""

    async def rotate(
        self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None, wish: Wish, grace: timedelta | None
    ) -> Rotated:
        """One step of the rotation of a key, from wherever it was left (architecture.md §6.5).

        IAM is called through the MFA session `handle`, by the key itself where that is None. `grace` None: as it was
        meant when it began. Raises RotationStopped, IdentityBroken, RoleDenied, SessionRejected, StsUnavailable,
        KeyringBusy, Unwritable; after each of them the next call goes on from the stage that was written last.
        """

    async def date(self, name: str, *, endpoint: Endpoint, handle: MfaHandle | None) -> Identity:
        """Learn from ListAccessKeys when the key was made; raises as `rotate`."""


@dataclass(frozen=True, slots=True)
class ForeignStore:
    """A store of aws-vault's: of backend `file` the directory `place`, of `secret-service` the collection `place`."""

    backend: Literal["file", "secret-service"]
    place: str


@dataclass(frozen=True, slots=True)
class Kin:
    """The identity that a key is stored for already, "" where there is none; `old`: it was rotated out of that one."""

    identity: str = ""
    old: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """One long-term key in a foreign store, and the identity that it would be here ("" where none can be).

    `key_ending` is the last 4 characters; `wrong`, a sentence, why it cannot be imported, `ends`: because it is a
    temporary key. `held`: under that name nothing is stored yet, the same key, or another one. `kin`: where else it is.
    """

    name: str
    identity: str
    key_ending: str = ""
    wrong: str = ""
    held: Literal["no", "same", "other"] = "no"
    ends: bool = False
    kin: Kin = Kin()


class Importer(Protocol):
    """Keys of other programs on their way in. Implemented by the keeper beside Custody: their secrets never go up.

    Every call with a `source` may raise NotFound (no such store), WrongPassphrase, FileRefused, BadRequest (too much
    in it), StoreUnavailable, KeyringBusy, Locked. Nothing of the source is written but by `discard`.
    """

    async def offers(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[Offer, ...]:
        """The long-term keys of a store, or those of `names` that are there; sessions and tokens are left out."""

    async def adopt(
        self, source: ForeignStore, name: str, *, passphrase: Secret | None, endpoint: Endpoint, mfa_serial: str | None
    ) -> Identity:
        """`Custody.add` of a key of the store. One that is stored already is its identity; also raises as `add`."""

    async def discard(self, source: ForeignStore, name: str, *, passphrase: Secret | None) -> None:
        """Delete a key from the store, after our own store gave the same key back. Raises NotImported, Unwritable."""

    async def holds(self, key: IdentityKey) -> bool:
        """Does the store, read again, hold this very key for that identity?"""

    async def kin(self, key: IdentityKey) -> Kin:
        """For whom else it is stored: in use under another name, or rotated out and not yet deleted."""


@dataclass(frozen=True, slots=True)
class Residence:
    """Where a keeper lives. `apart`: in a process of its own, of which `restarts` came after the first.

    `dumpable`: other processes of this user may read its memory. `warnings`: what its hardening could not do.
    """

    pid: int | None
    apart: bool
    dumpable: bool
    restarts: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a sign-in URL is made of: a role session, the console it is for, and how long that is to last.

    `duration` None: as long as the session, which is all that AWS allows a chained one (aws-facts §2.3).
    """

    session: RoleSession
    site: Site
    endpoint: Endpoint
    profile: str
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A sign-in URL, which is a credential. `duration` None: AWS took none, the console ends with the session."""

    url: Secret
    duration: timedelta | None = None


class Console(Protocol):
    """The console's sign-in (aws-facts §2.3)."""

    async def url(self, order: SignIn) -> SignedIn:
        """Raises SessionRejected (AWS refuses the session), StsUnavailable, Throttled, Misconfigured."""


class Outlook(Protocol):
    """What else the daemon asks where its keeper lives: of AWS and of the keyring, which only the keeper talks to."""

    def residence(self) -> Residence:
        """Where the keeper lives now; no I/O."""

    def skew(self) -> float | None:
        """`Sts.clock_skew`; no I/O."""

    async def warm(self) -> None:
        """Have ready what a first call to AWS would wait for; never raises for what a call would tell anyway."""

    async def keyring(self) -> str | None:
        """Which OS keyring there is, None: none here. It is looked for, and not asked for anything."""


# ---- inside keeper/ only: what aws/ and store/ implement ----


class Sts(Protocol):
    """One attempt each, never retried when a code goes along; raises the VaultdErrors of aws-facts §1.5."""

    async def session_token(
        self,
        key: IdentityKey,
        *,
        endpoint: Endpoint,
        duration: timedelta,
        mfa_serial: str | None,
        token_code: Secret | None,
    ) -> MfaSession: ...

    async def assume_role(
        self,
        source: IdentityKey | MfaSession | RoleSession,
        *,
        endpoint: Endpoint,
        duration: timedelta,
        role: RoleParameters,
        mfa_serial: str | None = None,
        token_code: Secret | None = None,
    ) -> RoleSession: ...

    async def caller_identity(self, key: IdentityKey | MfaSession, *, endpoint: Endpoint) -> str:
        """The caller's ARN."""

    def clock_skew(self) -> float | None:
        """Seconds by which this machine is ahead of AWS by the last reply's Date; None before the first."""


@dataclass(frozen=True, slots=True)
class ListedKey:
    """One access key of a user as ListAccessKeys tells it."""

    id: str
    active: bool
    created: datetime


@dataclass(frozen=True, slots=True)
class NewKey:
    """What CreateAccessKey gives, once."""

    id: str
    secret: Secret
    created: datetime


class Iam(Protocol):
    """`mfa_devices` is what a bare key may call under ForceMFA; the rest, a rotation's, goes through the MFA session
    and names the user (aws-facts §2.1). What AWS no longer has is RoleDenied with aws_code NoSuchEntity.
    """

    async def mfa_devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        """Every SerialNumber of the caller's own devices, FIDO included."""

    async def keys(self, source: IdentityKey | MfaSession, *, user: str, endpoint: Endpoint) -> tuple[ListedKey, ...]:
        """The user's keys, Inactive ones too; two at most."""

    async def create(self, source: IdentityKey | MfaSession, *, user: str, endpoint: Endpoint) -> NewKey:
        """CreateAccessKey, sent once."""

    async def set_status(
        self, source: IdentityKey | MfaSession, key_id: str, *, active: bool, user: str, endpoint: Endpoint
    ) -> None:
        """UpdateAccessKey."""

    async def delete(self, source: IdentityKey | MfaSession, key_id: str, *, user: str, endpoint: Endpoint) -> None:
        """DeleteAccessKey."""

    async def last_used(self, source: IdentityKey | MfaSession, key_id: str, *, endpoint: Endpoint) -> str:
        """GetAccessKeyLastUsed as `2026-11-22 by s3 in us-east-1`, or `never`; W0 does not grant it (aws-facts §0)."""


class IdentityStore(Protocol):
    """Small named items in the OS keyring or in the sealed file; the values are opaque to it.

    Every call may raise StoreUnavailable, KeyringBusy, StoreDamaged, StoreRolledBack, FileRefused, Unwritable.
    """

    @property
    def kind(self) -> Literal["keyring", "file"]: ...

    @property
    def backend(self) -> str:
        """The id that the index records: `file`, or the keyring's."""

    @property
    def generation(self) -> int:
        """Of the version read or written last; 0 where a store has none."""

    def needs_passphrase(self) -> bool:
        """True for the file store while it is shut."""

    def exists(self) -> bool:
        """True when it holds something already (the sealed file is there); the keyring says True."""

    def names(self) -> frozenset[str] | None:
        """The items in an open store; None where it cannot tell (a keyring does not list, security.md §3.1)."""

    async def open(
        self,
        passphrase: Secret | None,
        *,
        create: bool = False,
        accept_rollback: bool = False,
        expected: bool = False,
        seen: int = 0,
    ) -> None:
        """Raises WrongPassphrase; `create` makes a new sealed file where none is.

        `expected`: the index lists items of this store, so its absence is StoreDamaged, whatever `create` says.
        `seen`: the highest generation that the index has seen; an older sealed file is StoreRolledBack.
        """

    async def load(self, item: str) -> Secret | None: ...

    async def save(self, item: str, value: Secret) -> None:
        """Write, read back and compare before it is believed."""

    async def drop(self, item: str) -> None: ...

    def close(self) -> None:
        """Forget every key and value held in memory."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """One key as it was read from a foreign store: the `key`, its identity being `name`, or what is `wrong` with it.

    `ends`: it is a temporary one, which nobody misses. `mark` is what it looked like: it is deleted only while it
    still does.
    """

    name: str
    key: IdentityKey | None = None
    wrong: str = ""
    mark: str = field(default="", repr=False)
    ends: bool = False


class ForeignKeys(Protocol):
    """What reads the stores of other programs; raises as `Importer`."""

    async def read(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[ForeignKey, ...]:
        """By name; of `names` those that are there, of none all."""

    async def drop(self, source: ForeignStore, found: ForeignKey) -> None:
        """Delete one that was read; absent is fine. Raises NotImported for one that has changed since, Unwritable."""


class SealedLog(Protocol):
    """An append-only log under the data key; the last record per key wins (architecture.md §5)."""

    def open(self, data_key: Secret) -> dict[str, bytes]:
        """Replay: the living records by key. A damaged log is set aside as `….damaged` with one warning."""

    def append(self, key: str, value: bytes | None) -> None:
        """Write and fsync one record; None drops the key. Raises Unwritable."""

    def compact(self) -> None:
        """Rewrite with living records only, so that dropped ones leave the disk."""

    def close(self) -> None:
        """Forget the data key."""

    @property
    def damaged(self) -> bool:
        """True when `open` set a damaged log aside."""
