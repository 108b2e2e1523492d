from __future__ import annotations

import asyncio
import errno
import json
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import START, FakeClock
from vaultd.engine.grants import Bound, Door, Grant, Grants
from vaultd.errors import BadRequest, FileRefused, Misconfigured, UnknownGrant, Unwritable
from vaultd.files import Files
from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret

BOOT = "boot-1"
PEER = Peer(uid=1000, pid=7, exe="/usr/bin/aws", argv0="aws", started=70)


@dataclass
class House:
    """A Grants with its world: which processes live, whether the disk takes writes, and what was told."""

    home: Path
    clock: FakeClock
    living: set[Bound] = field(default_factory=set)
    told: list[tuple[str, str]] = field(default_factory=list)
    disk: OSError | None = None
    refused: str = "write"
    writes: list[str] = field(default_factory=list)
    idle: timedelta = timedelta(hours=24)

    @property
    def path(self) -> Path:
        return self.home / "grants.json"

    @property
    def tokens(self) -> Path:
        return self.home / "grants"

    def fault(self, operation: str, path: Path) -> None:
        if operation == "write":
            self.writes.append(path.name.strip(".").split(".")[0])
        if operation == self.refused and self.disk is not None:
            raise self.disk

    def grants(self, *, boot_id: str = BOOT) -> Grants:
        made = Grants(
            files=Files(fault=self.fault),
            path=self.path,
            tokens=self.tokens,
            clock=self.clock,
            max_age=timedelta(days=7),
            idle_timeout=self.idle,
            boot_id=boot_id,
            alive=lambda bound: bound in self.living,
            on_revoke=lambda grant, reason: self.told.append((grant.id, reason)),
        )
        made.load()
        return made

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found


@pytest.fixture
def house(tmp_path: Path, clock: FakeClock) -> House:
    (tmp_path / "grants").mkdir(mode=0o700)
    return House(home=tmp_path, clock=clock)


def create(
    grants: Grants,
    *,
    profile: str = "web-admin",
    ttl: timedelta | None = None,
    bound: Bound | None = None,
    overrides: Overrides | None = None,
) -> tuple[Grant, Secret]:
    return grants.create(
        profile=profile,
        slug=profile,
        kind="exec" if bound else "shell",
        ttl=ttl,
        overrides=overrides or Overrides(),
        role_arn="arn:aws:iam::234567890123:role/WebAdmin",
        bound=bound,
        peer=PEER,
    )


# ---- tokens ----


def test_a_token_finds_its_grant_and_no_other(house: House) -> None:
    """A token is exactly one profile's; anything else finds nothing, bytes that are no text included (item 13)."""
    grants = house.grants()
    one, token = create(grants, profile="one")
    two, other = create(grants, profile="two")

    assert grants.find(token.reveal_bytes()) == one
    assert grants.find(other.reveal_bytes()) == two
    for wrong in (b"", b"\xff\xfe", token.reveal_bytes()[:-1], token.reveal_bytes() + b"\n", one.digest, b"x" * 10_000):
        assert grants.find(wrong) is None


def test_only_the_hash_of_a_token_is_kept(house: House) -> None:
    """32 random bytes go out; grants.json has the SHA-256 (architecture.md §7), no repr has either."""
    grants = house.grants()
    grant, token = create(grants)
    text = token.reveal()

    assert len(text) == 43
    assert grant.digest == sha256(text.encode()).digest()
    assert text not in house.path.read_text()
    assert grant.digest.hex() in house.path.read_text()
    assert text not in repr(grant) + repr(vars(grants))
    assert create(grants)[1] != token


def test_the_token_file_is_private_and_bare(house: House) -> None:
    """0600 and no trailing newline: botocore refuses one (item 14). It goes with the grant."""
    grants = house.grants()
    grant, token = create(grants)
    path = grants.token_path(grant.id)
    mode, content = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    grants.revoke(grant.id, reason="revoked")

    assert path == house.tokens / f"{grant.id}.token"
    assert mode == 0o600
    assert content == token.reveal_bytes()
    assert not path.exists()


def test_litter_of_a_kill_is_removed_at_load(house: House) -> None:
    """A token file without a grant opens nothing and goes; one with a grant stays."""
    grant, _ = create(house.grants())
    litter = house.tokens / "0123456789.token"
    litter.write_text("x")
    litter.chmod(0o600)
    grants = house.grants()

    assert not litter.exists()
    assert grants.token_path(grant.id).exists()


# ---- life ----


def test_a_grant_survives_a_restart_with_everything(house: House) -> None:
    """Grants of open shells are good after kill -9 (interface.md §3): token, overrides, binding and peer."""
    bound = Bound(boot_id=BOOT, pid=7, started=70)
    house.living = {bound}
    overrides = Overrides(
        timedelta(seconds=900), "eu-west-1", '{"Version":"2012-10-17"}', ("arn:aws:iam::aws:policy/P",)
    )
    grant, token = create(house.grants(), bound=bound, overrides=overrides)
    again = house.grants()

    assert again.find(token.reveal_bytes()) == grant
    assert again.list() == (grant,)
    assert again.get(grant.id).overrides == overrides


def test_max_age_cuts_ttl(house: House) -> None:
    """ttl_seconds above max_age is cut to it, none means it (interface.md §6)."""
    grants = house.grants()

    for ttl, life in ((None, 7), (timedelta(days=30), 7), (timedelta(days=1), 1)):
        grant, _ = create(grants, ttl=ttl)
        assert grant.expires - grant.created == timedelta(days=life)


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_ttl_that_is_not_positive_is_refused(house: House, seconds: int) -> None:
    """400 naming the field; nothing is left behind."""
    with pytest.raises(BadRequest, match="ttl_seconds must be above 0"):
        create(house.grants(), ttl=timedelta(seconds=seconds))

    assert not house.path.exists()
    assert list(house.tokens.iterdir()) == []


async def test_an_expired_grant_is_no_longer_listed_nor_found(house: House) -> None:
    """At its end to the second, by boottime; the sweep then removes token and line, and tells why."""
    grants = house.grants()
    grant, token = create(grants, ttl=timedelta(hours=1))
    await house.clock.advance(3599)
    alive = grants.find(token.reveal_bytes())
    await house.clock.advance(1)

    assert alive == grant
    assert grants.find(token.reveal_bytes()) is None
    assert grants.list() == ()

    grants.sweep()

    assert house.told == [(grant.id, "expired")]
    assert house.stored()["grants"] == []
    assert not grants.token_path(grant.id).exists()


async def test_a_set_wall_clock_ends_nothing(house: House) -> None:
    """Deadlines are on boottime (architecture.md §8 item 9): a person who sets the date loses no shell."""
    grants = house.grants()
    grant, token = create(grants, ttl=timedelta(hours=1))
    house.clock.jump(30 * 86400)
    grants.sweep()

    assert grants.find(token.reveal_bytes()) == grant


async def test_an_idle_grant_ends(house: House) -> None:
    """idle_timeout without use ends it; a use begins it anew."""
    grants = house.grants()
    used, token = create(grants)
    idle, idle_token = create(grants)
    await house.clock.advance(23 * 3600)
    grants.find(token.reveal_bytes())
    await house.clock.advance(3600)
    grants.sweep()

    assert grants.list() == (used,)
    assert house.told == [(idle.id, "idle")]
    assert grants.find(idle_token.reveal_bytes()) is None


async def test_idleness_goes_on_over_a_restart(house: House) -> None:
    """A restart is not a use: last_used comes from the file, and the time the daemon was away counts."""
    grants = house.grants()
    grant, token = create(grants)
    await house.clock.advance(3600)
    grants.find(token.reveal_bytes())
    grants.flush()
    await house.clock.advance(23 * 3600)
    again = house.grants()
    kept = again.list()
    await house.clock.advance(3600)

    assert kept == (grant,)
    assert again.last_used(grant.id) == START + timedelta(hours=1)
    assert house.grants().list() == ()
    assert house.told == [(grant.id, "idle")]


async def test_a_grant_ends_with_its_process_within_five_seconds(house: House) -> None:
    """exec: however the process ended (interface.md §3); the running task sweeps often enough, unbound ones stay."""
    bound, other = Bound(BOOT, 7, 70), Bound(BOOT, 8, 80)
    house.living = {bound, other}
    grants = house.grants()
    grant, token = create(grants, bound=bound)
    stays, _ = create(grants, bound=other)
    free, _ = create(grants)
    task = asyncio.ensure_future(grants.run())
    await house.clock.advance(60)
    alive = grants.find(token.reveal_bytes())
    house.living = {other}
    await house.clock.advance(4.9)
    task.cancel()

    assert alive == grant
    assert grants.find(token.reveal_bytes()) is None
    assert grants.list() == (stays, free)
    assert house.told == [(grant.id, "process ended")]


@pytest.mark.parametrize(
    ("boot_id", "lives", "reason"), [("boot-2", True, "rebooted"), (BOOT, False, "process ended"), (BOOT, True, None)]
)
def test_a_bound_grant_of_another_boot_or_a_dead_pid_is_revoked_at_load(
    house: House, boot_id: str, lives: bool, reason: str | None
) -> None:
    """After a reboot the same pid and start time may be another process (architecture.md §7)."""
    bound = Bound(BOOT, 7, 70)
    house.living = {bound}
    grant, token = create(house.grants(), bound=bound)
    house.living = {bound} if lives else set()
    grants = house.grants(boot_id=boot_id)

    assert (grants.find(token.reveal_bytes()) is None) == (reason is not None)
    assert house.told == ([] if reason is None else [(grant.id, reason)])
    assert [each["id"] for each in house.stored()["grants"]] == ([] if reason else [grant.id])


# ---- revoke ----


def test_revoke_ends_one_at_once(house: House) -> None:
    """In memory, on disk and in the run directory; unknown afterwards (exit 1), with the command to type."""
    grants = house.grants()
    grant, token = create(grants)
    other, _ = create(grants)
    revoked = grants.revoke(grant.id, reason="revoked")

    assert revoked == grant
    assert grants.find(token.reveal_bytes()) is None
    assert [each["id"] for each in house.stored()["grants"]] == [other.id]
    assert house.told == [(grant.id, "revoked")]
    with pytest.raises(UnknownGrant, match=r"There is no grant '.*': list them with `vault-client grants`\."):
        grants.revoke(grant.id, reason="revoked")


def test_revoke_all_writes_once_and_may_be_of_some_profiles(house: House) -> None:
    """`remove IDENTITY` revokes the grants that need it, `revoke --all` every one."""
    grants = house.grants()
    one, _ = create(grants, profile="one")
    two, _ = create(grants, profile="two")
    three, _ = create(grants, profile="one")
    house.writes.clear()
    some = grants.revoke_all(reason="identity removed", profiles={"one"})
    writes = house.writes.count("grants")
    rest = grants.revoke_all(reason="revoked")

    assert some == (one, three)
    assert writes == 1
    assert rest == (two,)
    assert grants.list() == ()
    assert grants.revoke_all(reason="revoked") == ()


# ---- disk full ----


def test_create_on_a_full_disk_leaves_nothing(house: House) -> None:
    """Unwritable, and neither token, file nor grant: a caller never holds what a restart forgets."""
    grants = house.grants()
    kept, _ = create(grants)
    before = house.path.read_bytes()
    house.disk = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(Unwritable, match="no space left"):
        create(grants)

    assert grants.list() == (kept,)
    assert house.path.read_bytes() == before
    assert [path.name for path in house.tokens.iterdir()] == [f"{kept.id}.token"]


def test_a_revoke_holds_at_once_even_when_the_disk_is_full(house: House) -> None:
    """It is gone in memory, the error says that a restart would bring it back, and the same command mends that."""
    grants = house.grants()
    grant, token = create(grants)
    house.disk = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(
        Unwritable, match=r"is revoked, but .*grants\.json could not be written .*type the same"
    ) as caught:
        grants.revoke(grant.id, reason="revoked")

    assert caught.value.exit == 1
    assert grants.find(token.reveal_bytes()) is None
    assert not grants.token_path(grant.id).exists()
    assert house.told == [(grant.id, "revoked")]

    with pytest.raises(Unwritable):
        grants.revoke(grant.id, reason="revoked")
    house.disk = None
    assert grants.revoke(grant.id, reason="revoked") == grant
    assert house.grants().list() == ()
    assert house.told == [(grant.id, "revoked")]


async def test_the_sweep_survives_a_full_disk_and_writes_later(house: House) -> None:
    """A permanent task must not die of a disk (one dead, all dead); what it owes is written when there is room."""
    grants = house.grants()
    grant, _ = create(grants, ttl=timedelta(seconds=60))
    task = asyncio.ensure_future(grants.run())
    house.disk = OSError(errno.ENOSPC, "No space left on device")
    await house.clock.advance(70)
    on_disk = [each["id"] for each in house.stored()["grants"]]
    house.disk = None
    await house.clock.advance(5)
    running = not task.done()
    task.cancel()

    assert running
    assert on_disk == [grant.id]
    assert house.stored()["grants"] == []
    assert house.told == [(grant.id, "expired")]


def test_a_token_file_that_cannot_be_removed_stays_useless(house: House) -> None:
    """Its token opens nothing any more; the revoke itself holds and is written."""
    grants = house.grants()
    grant, token = create(grants)
    house.disk, house.refused = OSError(errno.EIO, "Input/output error"), "unlink"
    grants.revoke(grant.id, reason="revoked")

    assert grants.token_path(grant.id).exists()
    assert grants.find(token.reveal_bytes()) is None
    assert house.stored()["grants"] == []


# ---- last use ----


async def test_last_used_is_in_memory_at_once_and_on_disk_each_minute(house: House) -> None:
    """No file is written while an SDK waits (architecture.md §7)."""
    grants = house.grants()
    grant, token = create(grants)
    task = asyncio.ensure_future(grants.run())
    await house.clock.advance(10)
    house.writes.clear()
    for _ in range(100):
        grants.find(token.reveal_bytes())
    at_once, writes_at_once = grants.last_used(grant.id), list(house.writes)
    await house.clock.advance(49)
    writes_early = list(house.writes)
    await house.clock.advance(3)
    writes_late = list(house.writes)
    await house.clock.advance(120)
    task.cancel()

    assert at_once == START + timedelta(seconds=10)
    assert writes_at_once == writes_early == []
    assert writes_late == house.writes == ["grants"], "written once, and not again without a use"
    assert datetime.fromisoformat(house.stored()["grants"][0]["last_used"]) == at_once


# ---- the file ----


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _twice(text: str) -> str:
    """Of two grants with one id only one could be revoked, and the other's token would open for ever."""
    stored = json.loads(text)
    stored["grants"].append({**stored["grants"][0], "digest": "00" * 32})
    return json.dumps(stored)


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda _: "",
        lambda _: "[]",
        lambda _: '{"version": 1}',
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"kind": "shell"', '"kind": "root"'),
        lambda text: text.replace('"digest": "', '"digest": "zz'),
        lambda text: text.replace('"digest": "', '"digest": "00'),
        lambda text: text.replace("+00:00", ""),
        lambda text: text.replace('"profile": "web-admin"', '"profile": 7'),
        lambda text: text.replace('"uid": 1000', '"uid": "0"'),
        lambda text: text.replace('"id": "', '"id": "../'),
        lambda text: text.replace('"role_arn"', '"role"'),
        lambda text: text.replace('"duration": null', '"duration": 1e308'),
        lambda _: "[" * 100_000,
        _twice,
    ],
)
def test_an_unreadable_grants_json_refuses_the_start(house: House, damage: Callable[[str], str]) -> None:
    """78, naming the file and the way out; it is never replaced by an empty one, and stays as it is."""
    create(house.grants())
    damaged = damage(house.path.read_text())
    assert damaged != house.path.read_text(), "positive control: it is damaged"
    house.path.write_text(damaged)
    with pytest.raises(Misconfigured, match=r"grants\.json cannot be understood .* then type `vaultd start`") as caught:
        house.grants()

    assert caught.value.exit == 78
    assert house.path.read_text() == damaged


def test_a_grant_without_a_role_keeps_who_it_meant(house: House) -> None:
    """Identity and IAM user come back from the file; a role's grant keeps neither, since its role ARN decides."""
    grants = house.grants()
    user = "arn:aws:iam::123456789012:user/franklin"
    for role_arn in (None, "arn:aws:iam::234567890123:role/WebAdmin"):
        grants.create(
            profile="own", slug="own", kind="lease", ttl=None, overrides=Overrides(), role_arn=role_arn, bound=None,
            peer=None, identity="franklin", user_arn=user,
        )  # fmt: skip

    own, role = house.grants().list()
    assert (own.identity, own.user_arn) == ("franklin", user)
    assert (role.identity, role.user_arn) == (None, None)


def test_a_file_from_before_the_pins_still_loads(house: House) -> None:
    """Its grants stay; those without a role pin nobody, which agrees with no identity."""
    create(house.grants())
    stored = house.stored()
    for each in stored["grants"]:
        del each["identity"], each["user_arn"]
    house.path.write_text(json.dumps(stored))

    (grant,) = house.grants().list()
    assert (grant.identity, grant.user_arn) == (None, None)


def test_a_foreign_grants_json_refuses_the_start(house: House) -> None:
    """A file that others may write to decides nothing here."""
    create(house.grants())
    house.path.chmod(0o666)
    with pytest.raises(FileRefused, match=r"grants\.json is refused"):
        house.grants()


def test_no_file_is_no_grant(house: House) -> None:
    """An empty home starts."""
    assert house.grants().list() == ()


# ---- doors ----

DOOR = Door("127.0.0.1", 41_000)


def create_with_door(grants: Grants, *, door: Door = DOOR, **more: Any) -> tuple[Grant, Secret]:
    return grants.create(
        profile="web-admin", slug="web-admin", kind="shell", ttl=more.pop("ttl", None), overrides=Overrides(),
        role_arn="arn:aws:iam::234567890123:role/WebAdmin", bound=None, peer=PEER, door=door, **more,
    )  # fmt: skip


def test_the_wire_tells_where_a_door_is(house: House) -> None:
    """`door{address,port}`: `grants` shows it, and doctor believes no port without it. Of the key not a byte."""
    grants = house.grants()
    grant, _ = create_with_door(grants)
    assert grants.wire(grant)["door"] == {"address": "127.0.0.1", "port": 41_000}
    assert grant.metadata_key is not None
    assert grant.metadata_key.hex() not in str(grants.wire(grant))


def test_a_door_and_its_key_live_through_a_restart(house: House) -> None:
    """32 random bytes of its own and the address, written at once; the key is in no repr."""
    grants = house.grants()
    (one, _), (two, _) = create_with_door(grants), create_with_door(grants, door=Door("169.254.169.254", 80))

    assert one.imds
    assert one.metadata_key is not None
    assert two.metadata_key is not None
    assert len(one.metadata_key) == len(two.metadata_key) == 32
    assert one.metadata_key != two.metadata_key
    assert house.grants().list() == (one, two)
    assert one.metadata_key.hex() not in repr(one)
    assert repr(one.metadata_key) not in repr(one)
    assert grants.wire(one)["imds"] is True


def test_a_given_key_is_kept(house: House) -> None:
    """A successor at the same address goes on with the tokens that are out there."""
    key = b"k" * 32
    grant, _ = create_with_door(house.grants(), metadata_key=key)
    assert grant.metadata_key == key
    assert house.grants().list()[0].metadata_key == key


def test_a_grant_with_a_door_has_no_token_that_opens_anything(house: House) -> None:
    """No token file, and the one that was made finds nothing, before and after a restart."""
    grants = house.grants()
    _, token = create_with_door(grants)
    _, plain = create(grants)

    assert [path.stem for path in house.tokens.iterdir()] == [grants.list()[1].id]
    for each in (grants, house.grants()):
        assert each.find(token.reveal_bytes()) is None
        assert each.find(plain.reveal_bytes()) is not None, "positive control"


async def test_entering_a_door_is_a_use_until_it_ends(house: House) -> None:
    """Stamped and written with the minute's flush, as a token's use is; after the end None, before any sweep."""
    grants = house.grants()
    grant, _ = create_with_door(grants, ttl=timedelta(hours=30))
    await house.clock.advance(23 * 3600)
    assert grants.entered(grant.id) == grant
    assert grants.last_used(grant.id) == house.clock.now()
    await house.clock.advance(6 * 3600)
    assert grants.entered(grant.id) == grant, "it did not idle out"
    await house.clock.advance(3600)
    assert grants.entered(grant.id) is None, "expired"
    assert grants.entered("unknown") is None


async def test_an_idle_door_is_not_entered(house: House) -> None:
    """After idle_timeout without use it serves nothing, swept or not."""
    grants = house.grants()
    grant, _ = create_with_door(grants)
    await house.clock.advance(24 * 3600)
    assert grants.entered(grant.id) is None
    grants.sweep()
    assert house.told == [(grant.id, "idle")]


def test_a_revoked_door_is_not_entered(house: House) -> None:
    """From the turn of the revoke on."""
    grants = house.grants()
    grant, _ = create_with_door(grants)
    assert grants.entered(grant.id) == grant
    grants.revoke(grant.id, reason="a test")
    assert grants.entered(grant.id) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"metadata_key": None},
        {"door": None},
        {"imds": False},
        {"imds": "yes"},
        {"metadata_key": "00" * 31},
        {"metadata_key": "zz" * 32},
        {"metadata_key": 7},
        {"door": {"address": "0.0.0.0", "port": 41_000}},
        {"door": {"address": "127.0.0.1", "port": 0}},
        {"door": {"address": "127.0.0.1", "port": 65_536}},
        {"door": {"address": "127.0.0.1", "port": "41000"}},
        {"door": {"address": "127.0.0.1"}},
        {"door": []},
    ],
    ids=repr,
)
def test_a_malformed_door_is_an_error_of_the_whole_file(house: House, changed: dict[str, Any]) -> None:
    """As every other field: the start is refused, naming the file."""
    create_with_door(house.grants())
    stored = house.stored()
    house.path.write_text(json.dumps(stored))
    assert len(house.grants().list()) == 1, "positive control: it loads before it is damaged"
    stored["grants"][0].update(changed)
    house.path.write_text(json.dumps(stored))
    with pytest.raises(Misconfigured, match=r"grants\.json cannot be understood"):
        house.grants()


def test_a_file_from_before_the_doors_still_loads(house: House) -> None:
    """It has nulls in their place."""
    grants = house.grants()
    _, token = create(grants)
    (stored,) = house.stored()["grants"]
    assert (stored["imds"], stored["metadata_key"], stored["door"]) == (False, None, None)
    assert house.grants().find(token.reveal_bytes()) is not None


# ---- the wire ----


def test_wire_is_the_contracts_object(house: House) -> None:
    """interface.md §6: exactly these fields, whole seconds and Z, no control characters in what a terminal may show."""
    grants = house.grants()
    grant, token = grants.create(
        profile="team\x1b[31m",
        slug="team",
        kind="lease",
        ttl=timedelta(hours=1),
        overrides=Overrides(),
        role_arn=None,
        bound=None,
        peer=Peer(uid=1, pid=2, exe="/bin/\u202eexe", argv0="a\nb", started=3),
    )
    before = grants.wire(grant)["last_used"]
    grants.find(token.reveal_bytes())

    assert before is None
    assert grants.wire(grant) == {
        "id": grant.id,
        "profile": "team?[31m",
        "kind": "lease",
        "imds": False,
        "created": "2026-11-22T12:00:00Z",
        "last_used": "2026-11-22T12:00:00Z",
        "expires": "2026-11-22T13:00:00Z",
        "peer": {"pid": 2, "uid": 1, "exe": "/bin/?exe", "argv0": "a?b", "started": 3},
        "door": None,
    }
