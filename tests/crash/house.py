"""A home with every file that vaultd writes, on the real stores: what the pieces of work of this folder are done in.

Rule: whatever touches the disk is the product's own; AWS and the clock are fakes. The key that a passphrase derives to
is remembered over the houses of one process, since a thousand of them are opened with the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tests.fakes import FakeClock, FakeIam, FakeStore, FakeSts, StsCall
from vaultd.engine.audit import Audit
from vaultd.engine.grants import Grants
from vaultd.engine.seams import MintMfa
from vaultd.files import Files
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.opening import Stores
from vaultd.layout import Layout
from vaultd.model.credentials import IdentityKey
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret
from vaultd.store.aws_vault import AwsVault
from vaultd.store.identities import IdentityIndex, IndexEntry
from vaultd.store.sealed_file import SealedFile, _Keys
from vaultd.store.sealed_format import ARGON2ID, Kdf
from vaultd.store.sealed_log import SealedLogFile

PASSPHRASE = Secret("correct horse")
#: The cheapest that the bounds allow.
KDF = Kdf(ARGON2ID, m=19 * 1024, t=1, p=1)
ENDPOINT = Endpoint("eu-west-1")
HOUR = timedelta(hours=1)
BOOT = "00000000-0000-0000-0000-000000000001"
_DERIVED: dict[bytes, _Keys] = {}

Tell = Callable[[str], None]


def key_of(identity: str, number: int) -> IdentityKey:
    """The `number`-th key of an identity; its id names both."""
    return IdentityKey(identity, f"AKIA{identity.upper():X<12}{number:04}", Secret(f"canary-{identity}-{number}"))


def serial_of(identity: str) -> str:
    return f"arn:aws:iam::123456789012:mfa/{identity}"


def with_code(identity: str, code: str) -> MintMfa:
    return MintMfa(identity, ENDPOINT, 12 * HOUR, mfa_serial=serial_of(identity), token_code=Secret(code))


def bare(identity: str) -> MintMfa:
    return MintMfa(identity, ENDPOINT, HOUR)


class _Store(SealedFile):
    async def _derived(self, kdf: Kdf, salt: bytes, passphrase: Secret) -> _Keys:
        made = b"here" if kdf == KDF else salt  # of the stores that are made here the salt changes nothing
        if made not in _DERIVED:
            _DERIVED[made] = _copy(await super()._derived(kdf, salt, passphrase))
        return _copy(_DERIVED[made])


def _copy(keys: _Keys) -> _Keys:
    return replace(keys, wrap=Secret(keys.wrap.reveal_bytes()), commit=Secret(keys.commit.reveal_bytes()))


class _Sts(FakeSts):
    """Tells of each code that reaches AWS, at the moment it does."""

    def __init__(self, clock: FakeClock, tell: Tell) -> None:
        super().__init__(clock)
        self._tell = tell

    async def _called(self, call: StsCall) -> int:
        if call.code is not None:
            self._tell(f"sent {call.serial} {call.code}")
        return await super()._called(call)


class _Iam(FakeIam):
    async def mfa_devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        return (serial_of(key.identity),)


class House:
    """One life of a daemon in `path`. `tell` hears what was acknowledged, and what was sent to AWS."""

    def __init__(
        self, path: Path, files: Files, *, tell: Tell, audit_bytes: int = 1 << 20, clock: FakeClock | None = None
    ) -> None:
        self.layout = layout = Layout.find({"VAULTD_HOME": str(path)})
        self.files = files
        self.tell = tell
        self.clock = clock = clock or FakeClock()
        self.sts = _Sts(clock, tell)
        self.iam = _Iam()
        self.store = _Store(files, layout.secrets_sealed, seen=layout.secrets_seen, clock=clock, kdf=KDF)
        self.index = IdentityIndex(files, layout.identities_json)
        self.keeper = DaemonKeeper(
            stores=Stores({"keyring": FakeStore, "file": lambda: self.store}, choice="file"),
            sealed_log=SealedLogFile(files, layout.sessions_sealed),
            index=self.index,
            make_entry=IndexEntry,
            sts=self.sts,
            foreign=AwsVault(files, clock=clock),
            iam=self.iam,
            clock=clock,
            files=files,
            locked_marker=layout.locked_marker,
        )
        self.grants = Grants(
            files=files,
            path=layout.grants_json,
            tokens=layout.grant_tokens,
            clock=clock,
            max_age=timedelta(days=7),
            idle_timeout=timedelta(days=1),
            boot_id=BOOT,
            alive=lambda bound: True,
            on_revoke=lambda grant, reason: None,
        )
        self.audit = Audit(
            files=files,
            path=layout.audit_jsonl,
            clock=clock,
            max_bytes=audit_bytes,
            keep=3,
            look=None,
        )

    def begin(self) -> None:
        """What needs no key: directories, grants, the chain."""
        self.files.make_dirs(self.layout)
        self.files.clear_leftovers(self.layout)
        self.audit.resume(None)
        self.grants.load()

    def grant(self, profile: str) -> tuple[str, str]:
        """A new grant's id and token."""
        grant, token = self.grants.create(
            profile=profile,
            slug=profile,
            kind="lease",
            ttl=HOUR,
            overrides=Overrides(),
            role_arn=f"arn:aws:iam::123456789012:role/{profile}",
            bound=None,
            peer=None,
        )
        return grant.id, token.reveal()
