"""What a person or an SDK does, as pieces of work: each begins in a copy of a home, and tells what was acknowledged.

Rule: `tell` is called after the call of the product returned, never before: what was told must be true ever after.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.crash.house import ENDPOINT, HOUR, PASSPHRASE, House, Tell, key_of, with_code
from tests.store.aws_vault.craft import item, message
from vaultd.engine.seams import ForeignStore, Note
from vaultd.errors import CodeRefused, VaultdError
from vaultd.files import Files
from vaultd.model.credentials import RoleSession
from vaultd.model.secret import Secret

#: A file of this many bytes is full after two lines.
SMALL = 900
FOREIGN = Secret("of aws-vault's files")
FIRST_CODE, NEXT_CODE, WRONG_CODE = "111111", "222222", "333333"


@dataclass(frozen=True)
class Work:
    """`start` names the home it begins in; `opened`: the store is open before the first fault can come."""

    name: str
    start: str
    run: Callable[[House], Awaitable[None]]
    opened: bool = True
    audit_bytes: int = 1 << 20


async def _add(house: House) -> None:
    await house.keeper.add(key_of("eve", 1), endpoint=ENDPOINT)
    house.tell(f"key eve {key_of('eve', 1).access_key_id}")


async def _replace(house: House) -> None:
    key = key_of("ada", 2)
    house.tell(f"replacing ada {key.access_key_id}")
    await house.keeper.add(key, endpoint=ENDPOINT, replace=True)
    house.tell(f"key ada {key.access_key_id}")


async def _rotate(house: House) -> None:
    """All of a rotation, the old key's end too; each arrow is a write of `identities.json`, some of the store."""
    house.iam.table = {key_of("ada", 1).access_key_id: (True, house.clock.now())}
    did = ""
    while did != "deleted":
        rotated = await house.keeper.rotate("ada", endpoint=ENDPOINT, handle=None, wish="go", grace=timedelta())
        if (did := rotated.did) == "pending":
            house.tell(f"replacing ada {_new(house)}")
        elif did == "swapped":
            house.tell(f"key ada {_new(house)}")


async def _import(house: House) -> None:
    """A key of aws-vault's: what was deleted there is a key that was told before, and is there ever after."""
    source = ForeignStore("file", str(_foreign(house)))
    identity = await house.keeper.adopt(source, "eve", passphrase=FOREIGN, endpoint=ENDPOINT, mfa_serial=None)
    house.tell(f"key {identity.name} {key_of('eve', 1).access_key_id}")
    await house.keeper.discard(source, "eve", passphrase=FOREIGN)


def _foreign(house: House) -> Path:
    return house.layout.state / "awsvault"


def _new(house: House) -> str:
    return next(each for each in house.iam.table if each != key_of("ada", 1).access_key_id)


async def _remove(house: House) -> None:
    house.tell("removing bob")
    await house.keeper.remove("bob")
    house.tell("removed bob")


async def _create(house: House) -> None:
    house.tell("creating")
    await house.keeper.open(passphrase=PASSPHRASE, unlock=True)
    house.tell("opened")
    await _add(house)


async def _unlock(house: House) -> None:
    house.tell("unlocking")
    opened = await house.keeper.open(passphrase=PASSPHRASE, unlock=True)
    house.tell("opened" if not opened.warnings else "told")  # "unlocked now, but will start locked"
    house.audit.record("unlock", decision="allow")


async def _accept(house: House) -> None:
    house.tell("accepting")
    await house.keeper.open(passphrase=PASSPHRASE, accept_rollback=True)
    house.tell("accepted")


async def _lock(house: House) -> None:
    house.tell("locking")
    house.audit.record("lock", sync=True)
    await house.keeper.close(house.audit.head)
    house.tell("locked")


async def _stop(house: House) -> None:
    house.grants.flush()
    house.audit.record("stop", sync=True)
    await house.keeper.close(house.audit.head, lock=False)


async def _grant(house: House) -> None:
    for profile in ("one", "two"):
        grant, token = house.grant(profile)
        house.tell(f"granted {grant} {token}")


async def _revoke(house: House) -> None:
    each = next(grant for grant in house.grants.list() if grant.profile == "ended")
    house.tell(f"revoking {each.id}")
    house.grants.revoke(each.id, reason="revoked")
    house.tell(f"revoked {each.id}")


async def _revoke_all(house: House) -> None:
    for grant in house.grants.list():
        if grant.profile == "ended":
            house.tell(f"revoking {grant.id}")
    for each in house.grants.revoke_all(reason="revoked", profiles=["ended"]):
        house.tell(f"revoked {each.id}")


async def _session(house: House) -> None:
    """An MFA session, a role session, a limit, a dropped session (which compacts), the head."""
    await house.keeper.mint(with_code("ada", NEXT_CODE))
    now = house.clock.now()
    session = RoleSession(
        "ASIAROLE", Secret("s" * 40), Secret("t" * 300), issued=now, expiration=now + HOUR, account_id="1" * 12
    )
    for note in (
        Note("session", "f" * 64, session=session),
        Note("limit", "e" * 64, seconds=3540),
        Note("drop", "d" * 64),
        Note("head", head=house.audit.head),
    ):
        await house.keeper.note(note)
    house.tell("session")


async def _code(house: House) -> None:
    """AWS refuses the code: nothing but the record of it is written."""
    house.sts.fail("session_token", CodeRefused("refused; type `vault-client mfa`"))
    try:
        await house.keeper.mint(with_code("ada", WRONG_CODE))
    except CodeRefused:
        house.tell("refused")


async def _append(house: House) -> None:
    for number in range(4):
        lost = house.audit.lost
        house.audit.record("start", reason=f"line {number}", sync=number == 2)
        if house.audit.lost == lost:
            house.tell(f"line {house.audit.head.seq} {house.audit.head.digest}")


WORKS = (
    Work("create store, add", "empty", _create, opened=False),
    Work("add", "used", _add),
    Work("add --replace", "used", _replace),
    Work("rotate", "used", _rotate),
    Work("import, delete source", "used", _import),
    Work("remove", "used", _remove),
    Work("unlock", "locked", _unlock, opened=False),
    Work("accept rollback", "rolled back", _accept, opened=False),
    Work("lock", "used", _lock),
    Work("stop", "used", _stop),
    Work("grant create", "used", _grant),
    Work("grant revoke", "used", _revoke),
    Work("grant revoke --all", "used", _revoke_all),
    Work("session save", "used", _session),
    Work("code sent", "used", _code),
    Work("audit append", "used", _append),
    Work("audit rotation", "used", _append, audit_bytes=SMALL),
)


async def make_homes(root: Path) -> dict[str, list[str]]:
    """`empty`, `used`, `locked` and `rolled back` under `root`: what was acknowledged in each."""
    told: dict[str, list[str]] = {name: [] for name in ("empty", "used", "locked", "rolled back")}
    houses = {name: House(root / name, Files(), tell=told[name].append) for name in told}
    houses["empty"].begin()
    for name in ("used", "locked", "rolled back"):
        await _use(houses[name], root / "older")
    houses["rolled back"].layout.secrets_sealed.write_bytes((root / "older").read_bytes())
    told["rolled back"].append("removing carl")  # its owner gives up what came later
    await houses["locked"].keeper.open(passphrase=PASSPHRASE)
    await _lock(houses["locked"])
    return told


async def _use(house: House, older: Path) -> None:
    house.begin()
    eve = key_of("eve", 1)
    fields = {"AccessKeyID": eve.access_key_id, "SecretAccessKey": eve.secret_access_key.reveal()}
    _foreign(house).mkdir(mode=0o700)
    (_foreign(house) / "eve").write_bytes(message(item("eve", **fields), passphrase=FOREIGN.reveal()))
    (_foreign(house) / "eve").chmod(0o600)
    await house.keeper.open(passphrase=PASSPHRASE, unlock=True)
    for name in ("ada", "bob"):
        await house.keeper.add(key_of(name, 1), endpoint=ENDPOINT)
        house.tell(f"key {name} {key_of(name, 1).access_key_id}")
        shutil.copyfile(house.layout.secrets_sealed, older)
    await house.keeper.add(key_of("carl", 1), endpoint=ENDPOINT)
    house.tell(f"key carl {key_of('carl', 1).access_key_id}")
    await house.keeper.mint(with_code("ada", FIRST_CODE))
    for profile in ("kept", "ended"):
        grant, token = house.grant(profile)
        house.tell(f"granted {grant} {token}")
    for number in range(3):
        house.audit.record("start", reason=str(number))
        house.tell(f"line {house.audit.head.seq} {house.audit.head.digest}")
    await house.keeper.note(Note("session", "d" * 64, session=_role(house)))
    await house.keeper.close(house.audit.head, lock=False)


def _role(house: House) -> RoleSession:
    now = house.clock.now()
    return RoleSession(
        "ASIAOLD", Secret("s" * 40), Secret("t" * 300), issued=now, expiration=now + 2 * HOUR, account_id="1" * 12
    )


async def prepared(work: Work, path: Path, files: Files, tell: Tell) -> House:
    """A life in `path`, up to where the work begins."""
    house = House(path, files, tell=tell, audit_bytes=work.audit_bytes)
    house.begin()
    if work.opened:
        opened = await house.keeper.open(passphrase=PASSPHRASE)
        assert not opened.locked, opened
    return house


async def done(work: Work, house: House) -> str:
    """Run it; the sentence with which it failed, or nothing. Anything but a VaultdError goes through."""
    try:
        await work.run(house)
    except VaultdError as exc:
        return exc.message
    return ""
