from __future__ import annotations

import asyncio
import errno
import json
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import START, FakeClock
from vaultd.engine.audit import Audit, Sighting, verify
from vaultd.engine.audit_chain import FIELDS, FIRST
from vaultd.engine.grants import Grant
from vaultd.engine.seams import Head
from vaultd.errors import TooManyReaders
from vaultd.files import Files
from vaultd.model.credentials import RoleSession
from vaultd.model.peer import Peer
from vaultd.model.plan import Overrides
from vaultd.model.secret import Secret

ARN = "arn:aws:iam::234567890123:role/WebAdmin"
SESSION = RoleSession(
    access_key_id="ASIACANARYCANARY1234",
    secret_access_key=Secret("canary-secret"),
    session_token=Secret("canary-token"),
    issued=START,
    expiration=START + timedelta(hours=1),
    account_id="234567890123",
    role_arn=ARN,
    role_session_name="franklin",
    aws_request_id="11111111-2222",
)
RENEWED = RoleSession(
    access_key_id="ASIACANARYCANARY5678",
    secret_access_key=Secret("canary-secret"),
    session_token=Secret("canary-token"),
    issued=START,
    expiration=START + timedelta(hours=2),
    account_id="234567890123",
)


def grant(number: int = 1) -> Grant:
    return Grant(
        id=f"g{number}",
        profile="web-admin",
        slug="web-admin",
        kind="exec",
        imds=False,
        digest=b"d" * 32,
        role_arn=ARN,
        overrides=Overrides(),
        created=START,
        expires=START,
        bound=None,
        peer=None,
    )


@dataclass
class House:
    """An Audit with its world: who is found by which inode, and whether the disk takes writes."""

    home: Path
    clock: FakeClock
    processes: dict[int, Peer] = field(default_factory=dict)
    looked: list[Sighting] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    disk: OSError | None = None
    refused: str = "write"
    calls: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.home / "audit.jsonl"

    def fault(self, operation: str, path: Path) -> None:
        if path.name.startswith("audit"):
            self.calls.append(operation)
            if operation == self.refused and self.disk is not None:
                raise self.disk

    def look(self, sighting: Sighting) -> Peer | None:
        self.looked.append(sighting)
        self.threads.add(threading.get_ident())
        return None if sighting.inode is None else self.processes.get(sighting.inode)

    def audit(
        self,
        *,
        max_bytes: int = 1 << 20,
        keep: int = 3,
        head: Head | None = None,
        resume: bool = True,
        chunk: int = 1 << 20,
    ) -> Audit:
        made = Audit(
            files=Files(fault=self.fault, chunk=chunk),
            path=self.path,
            clock=self.clock,
            max_bytes=max_bytes,
            keep=keep,
            look=self.look,
        )
        if resume:
            made.resume(head)
        return made

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def problems(self, head: Head | None = None) -> tuple[str, ...]:
        return verify(Files(), self.path, head=head)


@pytest.fixture
def house(tmp_path: Path, clock: FakeClock) -> House:
    return House(home=tmp_path, clock=clock)


def seen(inode: int = 1, uid: int = 1000) -> Sighting:
    return Sighting(uid=uid, inode=inode, pid=None)


def process(pid: int) -> Peer:
    return Peer(uid=1000, pid=pid, exe="/usr/bin/aws", argv0="aws", started=pid * 10)


# ---- the line ----


def test_a_line_has_the_contracts_fields_in_its_order(house: House) -> None:
    """interface.md §8: these fields, this order, null where there is no value; times whole seconds and Z."""
    audit = house.audit()
    audit.record(
        "session.renew",
        profile="web-admin",
        identity="franklin",
        account_id="234567890123",
        role_arn=ARN,
        role_session_name="franklin",
        grant="g1",
        peer=process(7),
        access_key_id="ASIACANARYCANARY1234",
        expiration=START + timedelta(hours=1),
        decision="allow",
        reason="due",
        count=1,
        aws_request_id="r",
    )
    audit.record("stop")
    raw = house.path.read_bytes().splitlines()
    first, second = house.lines()

    assert tuple(first) == tuple(second) == FIELDS
    assert first == {
        "time": "2026-11-22T12:00:00Z",
        "event": "session.renew",
        "profile": "web-admin",
        "identity": "franklin",
        "account_id": "234567890123",
        "role_arn": ARN,
        "role_session_name": "franklin",
        "grant": "g1",
        "peer": {"pid": 7, "uid": 1000, "exe": "/usr/bin/aws", "argv0": "aws", "started": 70},
        "access_key_id": "1234",
        "expiration": "2026-11-22T13:00:00Z",
        "decision": "allow",
        "reason": "due",
        "count": 1,
        "aws_request_id": "r",
        "seq": 1,
        "prev": "0" * 64,
    }
    assert (second["seq"], second["prev"]) == (2, sha256(raw[0]).hexdigest())
    assert audit.head == Head(seq=2, digest=sha256(raw[1]).hexdigest())
    assert stat.S_IMODE(house.path.stat().st_mode) == 0o600


def test_nothing_secret_gets_into_a_line(house: House) -> None:
    """A Secret or a session that strays in is its type's name; of a key id 4 characters; control characters are `?`."""
    audit = house.audit()
    audit.record(
        "mfa.answer", reason=Secret("canary"), decision=SESSION, profile="a\x1b[2J\nb", access_key_id="AKIACANARY9999"
    )
    (line,) = house.lines()

    assert "canary" not in house.path.read_text().lower()
    assert (line["reason"], line["decision"]) == ("<Secret>", "<RoleSession>")
    assert (line["profile"], line["access_key_id"]) == ("a?[2J?b", "9999")


def test_free_text_goes_through_the_redaction(house: House) -> None:
    """`redact` is the daemon's net for text that AWS or a person composed."""
    audit = Audit(
        files=Files(), path=house.path, clock=house.clock, max_bytes=1 << 20, keep=1, look=None,
        redact=lambda text: text.replace("canary", "[redacted]"),
    )  # fmt: skip
    audit.record("session.fail", reason="token canary refused")

    assert house.lines()[0]["reason"] == "token [redacted] refused"


def test_an_unknown_field_costs_only_itself(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It never raises; a misspelt field is logged by name, its value is not."""
    house.audit().record("start", profle="canary")

    assert house.lines()[0]["event"] == "start"
    assert "profle" in caplog.text
    assert "canary" not in caplog.text


def test_only_consents_unlock_and_add_are_synced(house: House) -> None:
    """A sync costs 0.2 ms on the loop (security.md item 28): not for a serve."""
    audit = house.audit()
    synced = {}
    for event, sync in (("session.renew", False), ("unlock", False), ("identity.add", False), ("mfa.answer", True)):
        house.calls.clear()
        audit.record(event, sync=sync)
        synced[event] = "fsync" in house.calls

    assert synced == {"session.renew": False, "unlock": True, "identity.add": True, "mfa.answer": True}


# ---- the chain ----


def test_the_chain_goes_on_over_restart_and_rotation(house: House) -> None:
    """Numbers and hashes go on; the oldest kept file begins anywhere; verify finds nothing wrong."""
    audit = house.audit(max_bytes=1500, keep=2)
    for number in range(30):
        audit.record("start", reason=str(number))
        if number % 7 == 0:
            audit = house.audit(max_bytes=1500, keep=2)
    names = sorted(path.name for path in house.home.iterdir())
    kept = [line["seq"] for line in audit.tail(100)]

    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= 1500 for path in house.home.iterdir())
    assert audit.head.seq == 30
    assert kept == list(range(kept[0], 31))
    assert kept[0] > 1
    assert house.problems(audit.head) == ()


def test_keep_none_drops_the_old_file(house: House) -> None:
    """With 0 it keeps the current file only, and the chain still goes on."""
    audit = house.audit(max_bytes=600, keep=0)
    for _ in range(5):
        audit.record("start")

    assert [path.name for path in house.home.iterdir()] == ["audit.jsonl"]
    assert audit.head.seq == 5
    assert house.problems() == ()


def _edit(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"reason":"1"', b'"reason":"x"'), *lines[2:]]


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_edit, r"jsonl:2 \(line 2 of the log\) is not the one that was written"),
        (lambda lines: [lines[0], *lines[2:]], r"jsonl:2 \(line 3 of the log\) follows on 1: line 2 is missing"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], r"jsonl:2 \(line 1 of the log\) stands after 2"),
        (lambda lines: lines[1:], r"agrees"),
        (lambda lines: [lines[0], b"garbage", *lines[2:]], r"jsonl:2 \(line 2 of the log\) is no line of an audit log"),
        (
            lambda lines: [lines[0].replace(b"0" * 64, b"1" * 64), *lines[1:]],
            r"jsonl:1 .* does not begin the chain",
        ),
        (lambda lines: lines[:-1], r"was cut: it ends with line 4, line 5 had been written"),
        (
            lambda lines: [*lines[:-1], lines[-1].replace(b"start", b"stop!")],
            r"jsonl:5 .* is not the one that was sealed",
        ),
    ],
    ids=["edit", "delete", "reorder", "delete-first", "garbage", "first-prev", "cut-tail", "rewrite-last"],
)
def test_verify_sees_every_tampering(house: House, tamper: Callable[[list[bytes]], list[bytes]], said: str) -> None:
    """Edit, deletion and reordering by the chain, a cut or rewritten tail by the head (item 28)."""
    audit = house.audit()
    for number in range(5):
        audit.record("start", reason=str(number))
    untouched = house.problems(audit.head)
    lines = house.path.read_bytes().splitlines()
    house.path.write_bytes(b"".join(line + b"\n" for line in tamper(lines)))
    found = house.problems(audit.head)

    assert untouched == (), "positive control"
    if said == "agrees":  # the oldest lines may have been rotated away: that alone is no proof
        assert found == ()
    else:
        assert any(_matches(said, each) for each in found), found


def _matches(pattern: str, text: str) -> bool:
    return pytest.RaisesExc(Exception, match=pattern).matches(Exception(text))


def test_a_tail_cut_while_the_daemon_was_down_is_seen_at_resume(house: House) -> None:
    """The sealed head outlives the file's tail; without a head (locked) `confirm` says so later."""
    audit = house.audit()
    for _ in range(5):
        audit.record("start")
    sealed = audit.head
    house.path.write_bytes(b"".join(line + b"\n" for line in house.path.read_bytes().splitlines()[:3]))

    assert _matches(
        "was cut: it ends with line 3, line 5 had been written", house.audit(resume=False).resume(sealed)[0]
    )

    locked = house.audit()
    for _ in range(4):
        locked.record("lock")

    assert locked.head.seq == 7
    assert _matches("was rewritten at line 5", locked.confirm(sealed)[0])
    assert house.problems(locked.head) == (), "the chain itself goes on from what was there"


def test_lines_after_the_sealed_head_are_fine(house: House) -> None:
    """The head is sealed each minute: a kill -9 leaves more lines than it knows, also over a rotation."""
    audit = house.audit(max_bytes=1000)
    audit.record("start")
    sealed = audit.head
    for _ in range(6):
        audit.record("start")

    assert (house.home / "audit.jsonl.2").exists()
    assert house.audit(resume=False).resume(sealed) == ()
    assert house.audit(resume=False).resume(Head(seq=0, digest=FIRST)) == ()


def test_a_head_that_was_rotated_away_is_no_alarm(house: House) -> None:
    """Nothing can be said of a line that rotation has dropped."""
    audit = house.audit(max_bytes=600, keep=1)
    audit.record("start")
    sealed = audit.head
    for _ in range(6):
        audit.record("start")

    assert house.audit(resume=False).resume(sealed) == ()


@pytest.mark.parametrize("torn", [b'{"time":"2026', b"\x00" * 30])
def test_a_torn_last_line_is_cut_and_said(house: House, torn: bytes) -> None:
    """What a kill or a crash left of a line goes, and the chain goes on after the last whole one."""
    audit = house.audit()
    audit.record("start")
    whole = house.path.read_bytes()
    house.path.write_bytes(whole + torn)
    again = house.audit(resume=False)
    (warning,) = again.resume(audit.head)
    cut = house.path.read_bytes()
    again.record("stop")

    assert "was torn and has been cut" in warning
    assert cut == whole
    assert again.head.seq == 2
    assert house.problems(again.head) == ()


def test_a_torn_line_on_a_disk_that_takes_nothing_never_joins_the_next(house: House) -> None:
    """Read-only home: it starts and says so, lines are lost, and the first one with room again stands by itself."""
    house.audit().record("start")
    with house.path.open("ab") as stream:
        stream.write(b'{"time"')
    house.disk, house.refused = OSError(errno.EROFS, "Read-only file system"), "truncate"
    audit = house.audit(resume=False)
    (warning,) = audit.resume(None)
    torn = house.problems()
    audit.record("lock")
    lost = audit.lost
    house.disk = None
    audit.record("stop")

    assert "read-only file system" in warning
    assert _matches("is torn", torn[0])
    assert lost == 1
    assert [line["event"] for line in house.lines()] == ["start", "stop"]
    assert house.problems(audit.head) == ()


def test_a_sealed_line_that_is_missing_is_seen(house: House) -> None:
    """Lines cut out around the head: the file goes on past it, the line itself is gone."""
    audit = house.audit()
    for number in range(5):
        audit.record("start", reason=str(number))
        if number == 2:
            sealed = audit.head
    lines = house.path.read_bytes().splitlines(keepends=True)
    house.path.write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[3:]]))

    assert _matches("was rewritten at line 3", house.audit(resume=False).resume(sealed)[0])


async def test_thousands_of_new_connections_leave_the_loop_its_turns(house: House) -> None:
    """A thousand waiting serves are taken in pieces: another task runs in between."""
    audit = house.audit()
    for number in range(1000):
        audit.served(grant=grant(), session=SESSION, sighting=Sighting(number, None, None))
    flushing = asyncio.ensure_future(audit.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    between = flushing.done()
    await flushing

    assert not between
    assert len(house.lines()) == 1000


def test_a_damaged_end_is_said_and_the_numbers_go_on(house: House) -> None:
    """A line that is no JSON counts as one: later numbers do not repeat earlier ones."""
    audit = house.audit()
    audit.record("start")
    with house.path.open("ab") as stream:
        stream.write(b"garbage\nmore\n")
    again = house.audit(resume=False)
    (warning,) = again.resume(None)
    again.record("stop")

    assert "is damaged and the chain goes on after it" in warning
    assert again.head.seq == 4
    assert [each.split(":", 1)[1].split(" ")[0] for each in house.problems()] == ["2", "3"]


def test_an_empty_home_begins_the_chain(house: House) -> None:
    """No file, no warning."""
    assert house.audit(resume=False).resume(None) == ()
    assert house.problems() == ()


def test_after_rotation_a_missing_current_file_goes_on_from_the_old_one(house: House) -> None:
    """A kill between the rename and the next line leaves only the rotated file."""
    audit = house.audit()
    audit.record("start")
    house.path.rename(house.home / "audit.jsonl.1")
    again = house.audit()
    again.record("stop")

    assert again.head.seq == 2
    assert house.problems(again.head) == ()


# ---- disk ----


def test_a_full_disk_costs_lines_and_nothing_else(house: House) -> None:
    """interface.md §1: counted as lost; the chain goes on without them when there is room again."""
    audit = house.audit()
    audit.record("start")
    house.disk = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(3):
        audit.record("session.renew")
    lost, head = audit.lost, audit.head
    house.disk = None
    audit.record("stop")

    assert (lost, head.seq) == (3, 1)
    assert [line["event"] for line in house.lines()] == ["start", "stop"]
    assert house.problems(audit.head) == ()


def test_a_line_torn_by_a_failing_disk_is_mended_before_the_next(house: House) -> None:
    """Where even the cutting back failed, the torn part goes before another line joins it."""
    audit = house.audit()
    audit.record("start")
    house.disk = OSError(errno.EIO, "Input/output error")
    audit.record("session.renew")
    with house.path.open("ab") as stream:
        stream.write(b'{"time":"20')
    house.disk = None
    audit.record("stop")

    assert [line["event"] for line in house.lines()] == ["start", "stop"]
    assert house.problems(audit.head) == ()


def test_a_rotation_that_fails_loses_no_line(house: House) -> None:
    """Rather a file that is too long."""
    audit = house.audit(max_bytes=600)
    house.disk, house.refused = OSError(errno.EACCES, "Permission denied"), "rename"
    for _ in range(4):
        audit.record("start")

    assert audit.lost == 0
    assert len(house.lines()) == 4
    assert house.problems(audit.head) == ()


# ---- serves ----


async def test_serves_to_one_process_within_ten_seconds_are_one_line(house: House) -> None:
    """One line with `count`, whatever number of connections (interface.md §8); it is written when they are over."""
    house.processes = {1: process(7), 2: process(7), 3: process(8)}
    audit = house.audit()
    running = asyncio.ensure_future(audit.run())
    for inode in (1, 1, 2, 3):
        audit.served(grant=grant(), session=SESSION, sighting=seen(inode), identity="franklin")
    await _until(house, lambda: len(house.looked) == 3)
    await house.clock.advance(9)
    early = house.path.exists()
    audit.served(grant=grant(), session=SESSION, sighting=seen(1))
    await house.clock.advance(2)
    await house.clock.advance(5)
    lines = house.lines()
    running.cancel()

    assert not early
    assert [(line["event"], line["peer"]["pid"], line["count"], line["time"]) for line in lines] == [
        ("credentials.serve", 7, 4, "2026-11-22T12:00:00Z"),
        ("credentials.serve", 8, 1, "2026-11-22T12:00:00Z"),
    ]
    assert lines[0] | {"seq": 0, "prev": ""} == {
        "time": "2026-11-22T12:00:00Z",
        "event": "credentials.serve",
        "profile": "web-admin",
        "identity": "franklin",
        "account_id": "234567890123",
        "role_arn": ARN,
        "role_session_name": "franklin",
        "grant": "g1",
        "peer": {"pid": 7, "uid": 1000, "exe": "/usr/bin/aws", "argv0": "aws", "started": 70},
        "access_key_id": "1234",
        "expiration": "2026-11-22T13:00:00Z",
        "decision": "allow",
        "reason": None,
        "count": 4,
        "aws_request_id": "11111111-2222",
        "seq": 0,
        "prev": "",
    }


async def test_another_grant_another_key_and_the_next_window_are_lines_of_their_own(house: House) -> None:
    """What differs is not summed up."""
    house.processes = {1: process(7)}
    audit = house.audit()
    audit.served(grant=grant(1), session=SESSION, sighting=seen())
    audit.served(grant=grant(2), session=SESSION, sighting=seen())
    audit.served(grant=grant(1), session=RENEWED, sighting=seen())
    await audit.flush()
    await house.clock.advance(11)
    audit.served(grant=grant(1), session=SESSION, sighting=seen())
    await audit.flush()

    assert [(line["grant"], line["access_key_id"], line["count"]) for line in house.lines()] == [
        ("g1", "1234", 1),
        ("g2", "1234", 1),
        ("g1", "5678", 1),
        ("g1", "1234", 1),
    ]


async def test_at_most_five_look_ups_a_second(house: House) -> None:
    """Past that `peer.pid` is null (interface.md §8): a flood of connections cannot make us scan /proc for ever."""
    house.processes = {inode: process(100 + inode) for inode in range(1, 30)}
    audit = house.audit()
    for inode in range(1, 21):
        audit.served(grant=grant(), session=SESSION, sighting=seen(inode))
    await audit.flush()
    looked = len(house.looked)
    await house.clock.advance(1)
    audit.served(grant=grant(), session=SESSION, sighting=seen(25))
    await audit.flush()
    pids = [(line["peer"]["pid"], line["count"]) for line in house.lines()]

    assert looked == 5
    assert pids == [(101, 1), (102, 1), (103, 1), (104, 1), (105, 1), (None, 15), (125, 1)]


async def test_a_socket_is_looked_up_once_and_off_the_loop(house: House) -> None:
    """A kept connection costs one look-up in 10 s, in a thread (architecture.md §5)."""
    house.processes = {1: process(7)}
    audit = house.audit()
    for _ in range(4):
        audit.served(grant=grant(), session=SESSION, sighting=seen())
        await audit.flush()
    before = len(house.looked)
    await house.clock.advance(10)
    audit.served(grant=grant(), session=SESSION, sighting=seen())
    await audit.flush()

    assert (before, len(house.looked)) == (1, 2)
    assert threading.get_ident() not in house.threads


@pytest.mark.parametrize("sighting", [Sighting(1000, 99, None), Sighting(1000, 0, None), Sighting(1000, None, None)])
async def test_a_client_that_is_gone_has_a_uid_only(house: House, sighting: Sighting) -> None:
    """pid, exe and the rest are null."""
    audit = house.audit()
    audit.served(grant=grant(), session=SESSION, sighting=sighting)
    await audit.flush()

    assert house.lines()[0]["peer"] == {"pid": None, "uid": 1000, "exe": None, "argv0": None, "started": None}


async def test_a_look_up_that_fails_costs_the_pid_only(house: House) -> None:
    """The line is written."""

    def fail(sighting: Sighting) -> Peer | None:
        raise RuntimeError("canary")

    audit = Audit(files=Files(), path=house.path, clock=house.clock, max_bytes=1 << 20, keep=1, look=fail)
    audit.served(grant=grant(), session=SESSION, sighting=seen())
    await audit.flush()

    assert house.lines()[0]["peer"]["pid"] is None


async def test_lock_and_stop_write_everything_without_an_await(house: House) -> None:
    """Flow 6: one turn. Who was not looked up yet has pid null; who was looked up meanwhile is not written twice."""
    release = threading.Event()

    def slow(sighting: Sighting) -> Peer | None:
        release.wait(10)
        return process(7)

    audit = Audit(files=Files(), path=house.path, clock=house.clock, max_bytes=1 << 20, keep=1, look=slow)
    audit.served(grant=grant(), session=SESSION, sighting=seen(1))
    flushing = asyncio.ensure_future(audit.flush())
    await house.clock.settle()
    audit.flush_now()
    audit.record("lock")
    release.set()
    await flushing

    assert [(line["event"], line["count"]) for line in house.lines()] == [("credentials.serve", 1), ("lock", None)]
    assert house.lines()[0]["peer"]["pid"] is None


async def test_a_serve_on_a_full_disk_is_lost_and_counted(house: House) -> None:
    """The permanent task goes on."""
    audit = house.audit()
    running = asyncio.ensure_future(audit.run())
    house.disk = OSError(errno.ENOSPC, "No space left on device")
    audit.served(grant=grant(), session=SESSION, sighting=Sighting(1000, None, None))
    await house.clock.advance(11)
    lost, running_still = audit.lost, not running.done()
    running.cancel()

    assert (lost, running_still) == (1, True)


# ---- denials ----


async def test_a_flood_of_denials_is_few_lines(house: House) -> None:
    """10,000 refused connections of ten users in one window are ten lines with their counts; the next window is new."""
    audit = house.audit()
    for number in range(10_000):
        audit.denied(reason="ForbiddenPeer", grant=None, sighting=Sighting(2000 + number % 10, None, None))
    await audit.flush()
    first = [
        (line["event"], line["reason"], line["decision"], line["peer"]["uid"], line["count"]) for line in house.lines()
    ]
    audit.denied(reason="ForbiddenPeer", grant=None, sighting=Sighting(2000, None, None))
    await audit.flush()

    assert first == [("credentials.deny", "ForbiddenPeer", "deny", 2000 + each, 1000) for each in range(10)]
    assert len(house.lines()) == 11


async def test_denials_of_very_many_kinds_share_lines(house: House) -> None:
    """The kinds are the attacker's choice: past 64 in a window they are summed up by reason, and none is lost."""
    audit = house.audit()
    for uid in range(1000):
        audit.denied(reason="ForbiddenPeer", grant=None, sighting=Sighting(uid, None, None))
    await audit.flush()
    lines = house.lines()

    assert len(lines) == 65
    assert sum(line["count"] for line in lines) == 1000


async def test_a_denial_names_grant_and_process(house: House) -> None:
    """Who used a token on the wrong path."""
    house.processes = {1: process(7)}
    audit = house.audit()
    running = asyncio.ensure_future(audit.run())
    for _ in range(3):
        audit.denied(reason="ProfileMismatch", grant=grant(), sighting=seen())
        await _until(house, lambda: bool(house.looked))
    await house.clock.advance(11)
    (line,) = house.lines()
    running.cancel()

    assert (line["grant"], line["profile"], line["peer"]["pid"], line["count"]) == ("g1", "web-admin", 7, 3)


# ---- reading ----


async def test_tail_gives_the_last_lines_of_a_profile(house: House) -> None:
    """Over rotation, the oldest first; what was counted so far is in it."""
    audit = house.audit(max_bytes=1500)
    for number in range(9):
        audit.record("session.renew", profile="odd" if number % 2 else "even", count=number)
    audit.served(grant=grant(), session=SESSION, sighting=Sighting(1000, None, None))
    await audit.flush()

    assert [line["count"] for line in audit.tail(3, profile="odd")] == [3, 5, 7]
    assert [line["event"] for line in audit.tail(2)] == ["session.renew", "credentials.serve"]
    assert [line["seq"] for line in audit.tail(100)] == list(range(1, 11))
    assert audit.tail(0) == []


async def test_subscribers_get_the_lines_from_now_on(house: House) -> None:
    """GET /v1/events carries the lines of the file, each to every reader, until he closes."""
    audit = house.audit()
    audit.record("start")
    one, other = audit.subscribe(), audit.subscribe()
    waiting = asyncio.ensure_future(anext(one))
    await house.clock.settle()
    audit.record("lock")
    other.close()
    audit.record("unlock")
    events = [await waiting, await anext(one)]
    left = [event["event"] async for event in other]
    one.close()
    audit.record("stop")

    assert events == house.lines()[1:3]
    assert left == ["lock"]
    assert [event["event"] async for event in one] == []


async def test_a_cancelled_reader_leaves_no_trace(house: House) -> None:
    """The caller went away while waiting; the next event goes to whoever asks next."""
    audit = house.audit()
    subscription = audit.subscribe()
    waiting = asyncio.ensure_future(anext(subscription))
    await house.clock.settle()
    waiting.cancel()
    await house.clock.settle()
    audit.record("start")

    assert (await anext(subscription))["event"] == "start"


async def test_a_slow_reader_is_cut_and_costs_no_memory(house: House) -> None:
    """A thousand events are kept for it, without a gap; the next one ends its stream, and it is told once. Control: a
    reader that keeps up goes on.
    """
    audit = house.audit(max_bytes=1 << 30)
    told: list[int] = []
    slow, quick = audit.subscribe(on_cut=lambda: told.append(1)), audit.subscribe()
    for _ in range(1005):
        audit.record("start")
        await anext(quick)

    assert [event["seq"] async for event in slow] == list(range(1, 1001))
    assert (slow.cut, quick.cut, told) == (True, False, [1])


async def test_readers_are_counted(house: House) -> None:
    """The seventeenth is refused in a sentence; one that leaves makes room."""
    audit = house.audit()
    readers = [audit.subscribe() for _ in range(16)]
    with pytest.raises(TooManyReaders, match="end a `vault-client log -f`"):
        audit.subscribe()
    readers[0].close()

    assert not audit.subscribe().cut


async def _until(house: House, true: Callable[[], bool]) -> None:
    """Let threads finish: turns of the loop, on real time, until it holds."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - a thread is waited for; it has no event of this loop
            await asyncio.sleep(0.001)
    await house.clock.settle()
