"""The readers of what lies on a disk: state that a crash, a backup or another program of the user may have changed.

Rule: a reader raises a VaultdError (whose exit status the contract has) or reads; whatever it read, it then goes on: a
line is appended, an item saved, a plan made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import UUID

from tests.fakes import START, FakeClock
from tests.fuzz.target import MARK, SPLIT, Finding, InMemory, Watch
from tests.web.control import KEY_ID, PROFILES, ROLE, SERIAL
from vaultd.catalog import CatalogWatch
from vaultd.config import Settings, load_for
from vaultd.engine.audit import Audit, verify
from vaultd.engine.grants import Grants, Kind
from vaultd.engine.seams import Head
from vaultd.errors import VaultdError
from vaultd.keeper import codec
from vaultd.keeper.codes import Codes
from vaultd.keeper.records import Records
from vaultd.layout import Layout
from vaultd.lifecycle.surroundings import read_settings
from vaultd.model import metadata_tokens
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret
from vaultd.store import sealed_file
from vaultd.store.identities import IdentityIndex, IndexEntry
from vaultd.store.sealed_file import SealedFile
from vaultd.store.sealed_format import HEADER_SIZE, Header, Kdf, render
from vaultd.store.sealed_log import SealedLogFile, _Seal

HOME: Final = Path("/home/somebody")
FRANKLIN: Final = Identity("franklin", "123456789012", "arn:aws:iam::123456789012:user/franklin", SERIAL, "0001", START)
CANARY: Final = "canary-0123456789abcdefghijklmnopqrstuv"
_KEY: Final = bytes(range(32))
_UUID: Final = "7e57ab1e-0000-4000-8000-000000000001"


class FileTarget:
    """One reader. `read` is what the product does with the bytes; its VaultdErrors are outcomes."""

    canaries: tuple[bytes, ...] = (CANARY.encode(),)

    def __init__(self) -> None:
        self._watch = Watch()
        self._watch.__enter__()

    def seeds(self) -> Iterable[bytes]:
        return ()

    def one(self, data: bytes) -> None:
        self._watch.clear()
        said = ""
        try:
            self.read(data)
        except VaultdError as exc:
            if exc.status >= 500 and not exc.retryable:
                raise Finding(f"{type(exc).__name__} is an internal error") from exc
            said = exc.message
        self._watch.check(said, self.canaries)

    def read(self, data: bytes) -> None:
        raise AssertionError(f"{type(self).__name__} reads nothing")

    def close(self) -> None:
        self._watch.__exit__()


def _fast_keys(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
    """In Argon2's place, which costs 19 MiB and 20 ms at its cheapest; what comes before it is the product's own."""
    kdf.check()
    return tuple(sha256(bytes([which]) + salt + passphrase.encode()).digest() for which in (0, 1))  # type: ignore[return-value]


class Store(FileTarget):
    """`secrets.sealed` and its `seen` file. The first byte: 0 as it is · 1 the header's checksum made right · 2 what
    the records hold, sealed by us · 3 the `seen` file · odd tens: a roll-back is accepted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._derive = vars(sealed_file)["derive"]
        vars(sealed_file)["derive"] = _fast_keys
        self._header = Header(Kdf(1, 19 * 1024, 1, 1), b"s" * 16, b"u" * 16, 7, 1_700_000_000)
        self._wrap, self._commit = _fast_keys(self._header.kdf, self._header.salt, "correct horse")
        self._good = self._sealed({"uuid-1": CANARY.encode(), "data-key": b"x" * 44})

    def _sealed(self, items: dict[str, bytes]) -> bytes:
        return render(self._header, items, wrap=self._wrap, commit=self._commit)

    def seeds(self) -> Iterable[bytes]:
        seen = {"file": self._header.uuid.hex(), "generation": 9}
        yield b"\x00" + self._good
        yield b"\x01" + self._good
        yield b"\x02" + SPLIT.join((b"name", b"value", b"other", b"{}"))
        yield b"\x03" + json.dumps(seen).encode()
        yield b"\x13" + json.dumps(seen).encode()
        yield b"\x13" + json.dumps({**seen, "generation": 2**64 - 1}).encode()

    def read(self, data: bytes) -> None:
        mode, body = (data[0] if data else 0), data[1:]
        files = InMemory()
        path, seen = HOME / "secrets.sealed", HOME / "seen.json"
        files.held[path] = self._content(mode % 4, body)
        if mode % 4 == 3:
            files.held[seen] = body
        store = SealedFile(files, path, seen=seen, clock=FakeClock())
        self._loop.run_until_complete(self._use(store, accept=mode // 16 % 2 == 1))

    def _content(self, mode: int, body: bytes) -> bytes:
        if mode == 1 and len(body) >= HEADER_SIZE + 32:
            return body[:HEADER_SIZE] + sha256(body[:HEADER_SIZE]).digest() + body[HEADER_SIZE + 32 :]
        if mode == 2:
            parts = body.split(SPLIT)
            return self._sealed({repr(name): value for name, value in zip(parts[::2], parts[1::2], strict=False)})
        return self._good if mode == 3 else body

    async def _use(self, store: SealedFile, *, accept: bool) -> None:
        try:
            await store.open(Secret("correct horse"), accept_rollback=accept, seen=3)
            await store.save("another", Secret("value"))
            await store.load("uuid-1")
            await store.drop("another")
        finally:
            store.close()

    def close(self) -> None:
        vars(sealed_file)["derive"] = self._derive
        self._loop.close()
        super().close()


class SessionLog(FileTarget):
    """`sessions.sealed`. The first byte: 0 the file · 1 the plain text of its records, sealed by us."""

    _HEAD = b"VAULTDL1" + b"i" * 16

    def seeds(self) -> Iterable[bytes]:
        seal = _Seal(Secret(_KEY), self._HEAD[8:])
        records = [seal.record(seq, f"mfa:{seq}", b"{}" if seq % 2 else None) for seq in range(4)]
        yield b"\x00" + self._HEAD + b"".join(records)
        yield b"\x00" + self._HEAD + b"".join(records)[:-9]
        yield b"\x00" + self._HEAD + b"".join(records) + bytes(40)
        yield b"\x01" + b"mfa:a" + SPLIT + b"{}" + SPLIT + b"cell:b" + SPLIT + b"{}"

    def read(self, data: bytes) -> None:
        files, path = InMemory(), HOME / "sessions.sealed"
        files.held[path] = self._content(data[:1], data[1:])
        log = SealedLogFile(files, path)
        log.open(Secret(_KEY))
        log.append("head", b"{}")
        log.append("head", None)
        log.compact()
        log.close()

    def _content(self, mode: bytes, body: bytes) -> bytes:
        if mode != b"\x01":
            return body
        seal, parts = _Seal(Secret(_KEY), self._HEAD[8:]), body.split(SPLIT)
        pairs = zip(parts[::2], parts[1::2], strict=False)
        return self._HEAD + b"".join(seal.record(seq, repr(name), value) for seq, (name, value) in enumerate(pairs))


class SessionRecords(FileTarget):
    """The values of the session log and the items of a keyring, in which another program may have planted its own."""

    def seeds(self) -> Iterable[bytes]:
        handle = MfaHandle("franklin", SERIAL, START, START + timedelta(hours=12))
        mfa = MfaSession(handle, "ASIAEXAMPLE", Secret(CANARY), Secret(CANARY))
        role = RoleSession(
            access_key_id="ASIAEXAMPLE",
            secret_access_key=Secret(CANARY),
            session_token=Secret(CANARY),
            issued=START,
            expiration=START + timedelta(hours=1),
            account_id="234567890123",
            role_arn=ROLE,
        )
        yield codec.mfa_record(mfa, region="us-east-1")
        yield codec.session_record(role)
        yield codec.seconds_record(3600)
        yield codec.head_record(Head(7, "0" * 64))
        yield codec.key_item(IdentityKey("franklin", KEY_ID, Secret(CANARY)), uuid=_UUID).reveal_bytes()
        yield codec.data_key_item(Secret(_KEY)).reveal_bytes()
        sent = [["0" * 64, START.isoformat(), True, 1]]
        yield json.dumps({"v": 1, "sent": sent}).encode()
        yield json.dumps({"v": 1, "sent": sent}).replace("1]", "1e999]").encode()

    def read(self, data: bytes) -> None:
        if (found := codec.mfa_of(data)) is not None:
            codec.mfa_record(found[0], region=found[1])
        if (session := codec.session_of(data)) is not None:
            codec.session_record(session)
        log = SealedLogFile(InMemory(), HOME / "sessions.sealed")
        log.open(Secret(_KEY))
        Codes(records=Records(log), clock=FakeClock()).open(Secret(_KEY), {f"codes:{SERIAL}": data}, expected=True)
        codec.seconds_of(data)
        codec.head_of(data)
        for read in (
            lambda: codec.key_of(Secret(data), identity=FRANKLIN, uuid=_UUID),
            lambda: codec.data_key_of(Secret(data)),
        ):
            with contextlib.suppress(VaultdError):
                read()


class GrantsFile(FileTarget):
    """`grants.json`, loaded as at a start, swept, and written anew."""

    def seeds(self) -> Iterable[bytes]:
        files = InMemory()
        grants = self._grants(files)
        grants.load()
        self._grant(grants, "lease", Overrides(), None)
        self._grant(grants, "shell", Overrides(duration=timedelta(hours=1), region="eu-west-1"), Peer(uid=0, pid=1))
        yield files.held[HOME / "grants.json"]

    def read(self, data: bytes) -> None:
        files = InMemory()
        files.held[HOME / "grants.json"] = data
        grants = self._grants(files)
        grants.load()
        for each in grants.list():
            grants.last_used(each.id)
            grants.find(each.digest)
        grants.sweep()
        grants.revoke_all(reason="fuzzed")

    def _grant(self, grants: Grants, kind: Kind, overrides: Overrides, peer: Peer | None) -> None:
        grants.create(
            profile="web-admin",
            slug="web-admin",
            kind=kind,
            ttl=None,
            overrides=overrides,
            role_arn=ROLE,
            bound=None,
            peer=peer,
        )

    def _grants(self, files: InMemory) -> Grants:
        return Grants(
            files=files,
            path=HOME / "grants.json",
            tokens=HOME / "no such folder",
            clock=FakeClock(),
            max_age=timedelta(days=7),
            idle_timeout=timedelta(days=1),
            boot_id="boot",
            alive=lambda bound: True,
            on_revoke=lambda grant, reason: None,
        )


class IdentitiesFile(FileTarget):
    """`identities.json`, and written back."""

    def seeds(self) -> Iterable[bytes]:
        files = InMemory()
        IdentityIndex(files, HOME / "identities.json").save(
            (IndexEntry(FRANKLIN, str(UUID(_UUID)), "file", "active", 3),)
        )
        yield files.held[HOME / "identities.json"]

    def read(self, data: bytes) -> None:
        files = InMemory()
        files.held[HOME / "identities.json"] = data
        index = IdentityIndex(files, HOME / "identities.json")
        index.save(index.load())


class AuditFile(FileTarget):
    """`audit.jsonl`: resumed, compared with a sealed head, written to, read and verified."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="vaultd-fuzz-"))

    def seeds(self) -> Iterable[bytes]:
        files = InMemory()
        audit = self._audit(files)
        audit.resume(None)
        audit.record("start")
        audit.record("lock", peer=Peer(uid=0, pid=1))
        audit.record("unlock", reason="x")
        whole = files.held[self._folder / "audit.jsonl"]
        yield whole
        yield whole[:-20]
        yield whole.replace(b'"seq":3', b'"seq":9')
        yield whole.replace(b'"seq":3', b'"seq":' + b"9" * 4300)  # one more could not be written

    def read(self, data: bytes) -> None:
        files, path = InMemory(), self._folder / "audit.jsonl"
        files.held[path] = data
        audit = self._audit(files)
        audit.resume(Head(2, "0" * 64))
        audit.record("lock")
        if audit.lost:
            raise Finding("a line was lost on a disk that takes everything")
        audit.tail(5)
        audit.tail(5, profile="web-admin")
        verify(files, path, head=audit.head)

    def _audit(self, files: InMemory) -> Audit:
        return Audit(
            files=files, path=self._folder / "audit.jsonl", clock=FakeClock(), max_bytes=1 << 20, keep=2, look=None
        )

    def close(self) -> None:
        shutil.rmtree(self._folder)
        super().close()


class AwsConfig(FileTarget):
    """`~/.aws/config`: read, and everything asked of it that a list, an explain and a grant ask."""

    canaries = (MARK,)

    def seeds(self) -> Iterable[bytes]:
        yield PROFILES.encode()
        yield b"[default]\nregion = eu-west-1\naws_secret_access_key = " + MARK + b"\n[profile a]\ns3 =\n  x = 1\n"
        yield (
            b'[profile "team prod"]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = identity\ninclude_profile = b\n'
            b"[profile b]\nmfa_serial = 123\nduration_seconds = 900\nsession_tags = a=b,c=d\nendpoint_url = http://x\n"
            b"[sso-session s]\nsso_region = x\n[services t]\nsts =\n  endpoint_url = https://x\n[DEFAULT]\nregion=x\n"
        )

    def read(self, data: bytes) -> None:
        files, path = InMemory(), HOME / "config"
        files.held[path] = data
        watch = CatalogWatch(
            files=files,
            settings=Settings(),
            environ={"HOME": str(HOME)},
            config_path=path,
            identities=lambda: (FRANKLIN,),
            clock=FakeClock(),
        )
        catalog = watch.current
        catalog.trouble()
        for name in catalog.names():
            catalog.summary(name)
            catalog.by_slug(catalog.slug(name))
            catalog.trouble_of(name)
            with contextlib.suppress(VaultdError):
                catalog.identity_ground(name)
            with contextlib.suppress(VaultdError):
                catalog.plan(name, Overrides(duration=timedelta(hours=1), region="eu-west-1"))


class ConfigToml(FileTarget):
    """`config.toml`, as a start reads it."""

    def seeds(self) -> Iterable[bytes]:
        yield (
            b'[listen]\nport = 9169\n[aws]\nendpoint_allow = ["localhost:1"]\n[sessions]\nmfa_duration = "12h"\n'
            b'role_session_name = "{iam_user}"\n[store]\nbackend = "file"\nlock_after_idle = "never"\n'
        )
        yield b'[prompt]\ndrivers = ["auto"]\ntimeout = "120s"\nhold = "auto"\n[grants]\nmax_age = "7d"\n'
        yield b'[identities.x]\nregion = "eu-west-1"\n[profiles."a b"]\nprotected = true\nrelays = ["x"]\n'
        yield b"a = [[[[[[[[[[{}]]]]]]]]]]\nb = 1979-05-27T07:32:00Z\nc = 0x10\nd = '''x'''\n"

    def read(self, data: bytes) -> None:
        files = InMemory()
        layout = Layout.find({"VAULTD_HOME": str(HOME)})
        files.held[layout.config_toml] = data
        settings = read_settings(files, layout, {}, port=None, config=None)
        load_for("", {}, path="config.toml")
        repr(settings)


class MetadataTokens(FileTarget):
    """Tokens of the metadata service: none but ours is good."""

    def seeds(self) -> Iterable[bytes]:
        yield metadata_tokens.make(_KEY, expiry=START - timedelta(hours=1), nonce=bytes(9))
        yield metadata_tokens.make(_KEY[::-1], expiry=START + timedelta(hours=1), nonce=bytes(9))

    def read(self, data: bytes) -> None:
        if metadata_tokens.check(_KEY, data, START):
            raise Finding("a metadata token was accepted that nobody made")


def parts_of(data: bytes, count: int) -> Iterator[bytes]:
    """So many parts, the last ones empty where there are fewer."""
    parts = data.split(SPLIT, count - 1)
    yield from (*parts, *[b""] * (count - len(parts)))


class ClientFiles(FileTarget):
    """What the client reads of its caller: two AWS files and the variables, walked as botocore walks them."""

    canaries = (MARK,)

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="vaultd-fuzz-"))

    def seeds(self) -> Iterable[bytes]:
        config = (
            PROFILES.encode() + b"[sso-session s]\nsso_region = x\n[profile p]\nsso_session = s\nsso_account_id = 1\n"
        )
        credentials = b"[default]\naws_access_key_id = AKIA\naws_secret_access_key = " + MARK + b"\n"
        yield SPLIT.join((config, credentials, b"AWS_PROFILE=web-admin"))
        yield SPLIT.join((config, b"", b"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1/\nX=1"))
        yield SPLIT.join((config, credentials, b"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://[::1]/"))
        yield SPLIT.join((b"[profile a]\nrole_arn=x\ncredential_source=Environment\n", b"", b"AWS_PROFILE=a"))

    def read(self, data: bytes) -> None:
        from vault_client.botochain import walk
        from vault_client.scene import Scene

        config, credentials, variables = parts_of(data, 3)
        paths = self._folder / "config", self._folder / "credentials"
        for path, content in zip(paths, (config, credentials), strict=True):
            path.write_bytes(content)
        given = (line.partition("=") for line in variables.decode("utf-8", "surrogateescape").splitlines())
        environ = {
            **{name: value for name, equals, value in given if equals and "\0" not in value and "FILE" not in name},
            "HOME": str(self._folder),
            "AWS_CONFIG_FILE": str(paths[0]),
            "AWS_SHARED_CREDENTIALS_FILE": str(paths[1]),
            "BOTO_CONFIG": "",
        }
        verdict = walk(Scene(environ))
        if MARK in verdict.where.encode("utf-8", "surrogateescape") and MARK not in variables:
            raise Finding("a value of a file is in the verdict")

    def close(self) -> None:
        shutil.rmtree(self._folder)
        super().close()
