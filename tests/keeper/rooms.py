"""A keeper on fakes for the outside and real files within, as the tests of this folder build it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.fakes import FakeClock, FakeIam, FakeStore, FakeSts
from tests.keeper.wired import Wired
from vaultd.engine.seams import Custody, ForeignKeys, IdentityStore, Minted, MintMfa, MintRole, Opened
from vaultd.errors import StoreUnavailable
from vaultd.files import Files
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.opening import Choice, Stores
from vaultd.keeper.remote import RemoteKeeper
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.secret import Secret
from vaultd.store.aws_vault import AwsVault
from vaultd.store.identities import IdentityIndex, IndexEntry
from vaultd.store.sealed_log import SealedLogFile

SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
ENDPOINT = Endpoint("eu-west-1")
ROLE = RoleParameters("arn:aws:iam::234567890123:role/WebAdmin", "franklin")
HOUR = timedelta(hours=1)
KEY_ID = "AKIAFRANKLIN00000001"
SECRET = "canary-identity-secret"


def franklin(*, key_id: str = KEY_ID, secret: str = SECRET) -> IdentityKey:
    return IdentityKey("franklin", key_id, Secret(secret))


@dataclass
class Full:
    """A disk that takes nothing while `full`."""

    full: bool = False
    faults: list[str] = field(default_factory=list)

    def __call__(self, operation: str, path: Path) -> None:
        if self.full and operation in {"write", "truncate", "unlink", "rename", "fsync"}:
            self.faults.append(operation)
            raise OSError(28, "No space left on device")


class Home:
    """One home directory; `keeper()` is a daemon's start in it."""

    def __init__(self, path: Path, clock: FakeClock, *, wired: Wired | None = None) -> None:
        self.wired = wired
        self._last: DaemonKeeper
        self.clock = clock
        self.disk = Full()
        self.files = Files(fault=self.disk)
        self.path = path
        path.chmod(0o700)
        self.keyring: FakeStore | None = FakeStore()
        self.file: IdentityStore = FakeStore(passphrase="correct horse", there=False)
        self.choice: Choice = "auto"
        self.persist = True
        self.sts = FakeSts(clock)
        self.iam = FakeIam(SERIAL)
        self.foreign: ForeignKeys = AwsVault(self.files, clock=clock)

    @property
    def index(self) -> IdentityIndex:
        return IdentityIndex(self.files, self.path / "identities.json")

    @property
    def marker(self) -> Path:
        return self.path / "locked"

    @property
    def sealed(self) -> Path:
        return self.path / "sessions.sealed"

    def keeper(self) -> DaemonKeeper | RemoteKeeper:
        return self.wired.remote(self.made) if self.wired is not None else self.made()

    def within(self, keeper: DaemonKeeper | RemoteKeeper) -> DaemonKeeper:
        """The one behind the wire, for a look at what it holds."""
        return self._last if isinstance(keeper, RemoteKeeper) else keeper

    def made(self) -> DaemonKeeper:
        self._last = self._made()
        return self._last

    def _made(self) -> DaemonKeeper:
        self.file.close()  # a new process
        return DaemonKeeper(
            stores=Stores({"keyring": self._keyring, "file": lambda: self.file}, choice=self.choice),
            sealed_log=SealedLogFile(self.files, self.sealed),
            index=self.index,
            make_entry=IndexEntry,
            sts=self.sts,
            iam=self.iam,
            foreign=self.foreign,
            clock=self.clock,
            files=self.files,
            locked_marker=self.marker,
            persist=self.persist,
        )

    async def opened(self) -> tuple[DaemonKeeper | RemoteKeeper, Opened]:
        keeper = self.keeper()
        return keeper, await keeper.open()

    async def with_franklin(self) -> DaemonKeeper | RemoteKeeper:
        """Open, with franklin's key added."""
        keeper, _ = await self.opened()
        await add_franklin(keeper)
        self.sts.calls.clear()
        return keeper

    def _keyring(self) -> IdentityStore:
        if self.keyring is None:
            raise StoreUnavailable("there is no OS keyring here; set `[store] backend` to file")
        return self.keyring


async def add_franklin(keeper: Custody, *, key_id: str = KEY_ID, replace: bool = False) -> Identity:
    return await keeper.add(franklin(key_id=key_id), endpoint=ENDPOINT, replace=replace)


def with_code(code: str = "123456", *, serial: str = SERIAL, duration: timedelta = 12 * HOUR) -> MintMfa:
    return MintMfa("franklin", ENDPOINT, duration, mfa_serial=serial, token_code=Secret(code))


def from_handle(handle: MfaHandle | RoleSession | None) -> MintRole:
    return MintRole("franklin", ENDPOINT, HOUR, ROLE, source=handle)


def handle_of(minted: Minted) -> MfaHandle:
    assert minted.handle is not None
    return minted.handle


def session_of(minted: Minted) -> RoleSession:
    assert minted.session is not None
    return minted.session
