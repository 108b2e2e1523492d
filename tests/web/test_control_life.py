"""Grants and their processes, lock and unlock, events, other users: the control API over time (interface.md §3, §6)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeStore
from tests.web.control import ROLE, House, Line, Started, soon
from vaultd.errors import KeyringBusy, WrongPassphrase
from vaultd.files import Files
from vaultd.host import processes
from vaultd.logs import Rarely
from vaultd.model.dialects import stamp
from vaultd.web.routes import daemon as daemon_routes

OTHER_UID = 54321
LEASE = {"profile": "web-admin", "kind": "lease"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def started(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Started]:
    async with House(tmp_path, clock=clock).run() as started:
        await started.with_session()
        yield started


# ---- who may talk ----


def _bytes_as(uid: int, path: Path) -> bytes:
    """What a process of `uid` reads after it asked for the status."""
    code = (
        "import os, socket, sys\n"
        f"os.setgid({uid}); os.setuid({uid})\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])\n"
        "out = b''\n"
        "try:\n"
        "    s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: v\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "    while part := s.recv(65536): out += part\n"
        "except ConnectionError: pass\n"
        "sys.stdout.buffer.write(out)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(path)], capture_output=True, check=True, timeout=30)
    return done.stdout


@pytest.mark.needs("root")
async def test_another_user_is_closed_before_any_byte(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """SO_PEERCRED: even where the modes would let him in, another uid reads nothing, and fills no log. Control: our own
    reads all.
    """
    house = House(tmp_path, clock=clock)
    async with house.run() as started:
        sock = house.layout.control_sock
        assert (sock.stat().st_mode & 0o777, sock.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        opened = [each for each in (sock, *sock.parents) if each.stat().st_mode & 0o001 == 0]
        before = {each: each.stat().st_mode & 0o777 for each in opened}
        for each in opened:
            each.chmod(0o777)
        try:
            for _ in range(3):
                assert await asyncio.to_thread(_bytes_as, OTHER_UID, sock) == b""
            refusals = [each for each in caplog.records if each.msg.startswith("refuse control-peer")]
            assert len(refusals) == 3
            assert sum(map(Rarely().filter, refusals)) == 1
            assert (await asyncio.to_thread(_bytes_as, 0, sock)).startswith(b"HTTP/1.1 200 OK\r\n")
            assert (await started.call("GET", "/v1/status")).status == 200
        finally:
            for each, mode in before.items():
                each.chmod(mode)


# ---- grants ----


async def test_exec_binds_the_caller(started: Started) -> None:
    """Kind exec: the process at the other end of the socket, with its start time; it is told in the list."""
    made = await started.ok("POST", "/v1/grants", {"profile": "web-admin", "kind": "exec", "pid": 1})
    [grant] = started.daemon.grants.list()

    assert grant.bound is not None
    assert (grant.bound.pid, grant.bound.started) == (os.getpid(), processes.start_time(os.getpid()))
    assert grant.role_arn == ROLE
    [row] = (await started.ok("GET", "/v1/grants"))["grants"]
    assert (row["id"], row["kind"], row["peer"]["pid"], row["last_used"]) == (made["id"], "exec", os.getpid(), None)


async def test_what_aws_made_of_the_plan_is_warned_of_once(started: Started) -> None:
    """201's `warnings`: the plan's, the session's and the config file's, none of them twice."""
    made = await started.ok("POST", "/v1/grants", LEASE)
    assert made["warnings"] == [], "positive control"
    short = f"[profile short]\nsource_profile = identity\nrole_arn = {ROLE}\nduration_seconds = 900\n"
    started.house.profiles(started.house.aws_config.read_text() + short)
    await started.house.clock.advance(2)  # type: ignore[attr-defined]  # a FakeClock: the file is looked at once a second
    made = await started.ok("POST", "/v1/grants", {"profile": "short", "kind": "lease"})
    said = "Sessions of short under 1800 s make SDKs fetch each time: raise its duration_seconds."
    assert made["warnings"].count(said) == 1
    assert len(set(made["warnings"])) == len(made["warnings"])


async def test_a_short_session_by_imds_is_warned_of(started: Started) -> None:
    """A session under 20 minutes: botocore keeps metadata keys for up to 10 minutes whatever is left of them."""
    told = "add `--duration 1h`, or leave out `--imds`."
    for seconds, imds, warned in ((900, True, 1), (1199, True, 1), (1200, True, 0), (3600, True, 0), (900, False, 0)):
        body = {**LEASE, "imds": imds, "duration_seconds": seconds}
        made = await started.ok("POST", "/v1/grants", body)
        found = [each for each in made["warnings"] if each.endswith(told)]
        assert len(found) == warned, body
        assert all(f"Sessions of web-admin live {seconds / 60:.0f} min" in each for each in found)


async def test_a_session_that_was_long_idle_is_made_anew(started: Started, clock: FakeClock) -> None:
    """`use`, `export` and `credential-process` have as much of a session as an SDK: 25 minutes or more."""
    await started.ok("GET", "/v1/profiles/web-admin/credentials")
    for path, body in (("/v1/grants", LEASE), ("/v1/profiles/web-admin/credentials", None)):
        await clock.advance(50 * 60)
        made = await started.ok("GET" if body is None else "POST", path, body)
        assert made["expiration" if body else "Expiration"] == stamp(clock.now() + timedelta(hours=1)), path


async def test_shell_binds_an_ancestor_only(started: Started, tmp_path: Path) -> None:
    """`pid` must be the caller or one of its parents; a process beside it is none."""
    for pid in (os.getpid(), os.getppid()):
        await started.ok("POST", "/v1/grants", {"profile": "web-admin", "kind": "shell", "pid": pid})
    assert [each.bound and each.bound.pid for each in started.daemon.grants.list()] == [os.getpid(), os.getppid()]
    child = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        status, body = await started.refused(
            "POST", "/v1/grants", {"profile": "web-admin", "kind": "shell", "pid": child.pid}
        )
    finally:
        child.kill()
        await child.wait()
    assert (status, body["field"]) == (400, "pid")
    assert body["message"] == "field pid: it is no parent of the caller and his; leave it out"


async def test_a_shell_without_pid_and_a_lease_are_bound_to_nothing(started: Started, clock: FakeClock) -> None:
    """Plain eval ends by unuse, revoke or idleness; a lease by its ttl, which is cut to max_age."""
    await started.ok("POST", "/v1/grants", {"profile": "web-admin", "kind": "shell"})
    lease = await started.ok("POST", "/v1/grants", {**LEASE, "ttl_seconds": 60})
    await started.ok("POST", "/v1/grants", {**LEASE, "ttl_seconds": 10**30})
    shell, short, long = started.daemon.grants.list()
    assert (shell.bound, short.bound) == (None, None)
    assert (short.expires - clock.now(), long.expires - clock.now()) == (timedelta(seconds=60), timedelta(days=7))
    await clock.advance(61)
    ids = [each["id"] for each in (await started.ok("GET", "/v1/grants"))["grants"]]
    assert (lease["id"] in ids, len(ids)) == (False, 2)


async def test_grants_leave_their_lines(started: Started) -> None:
    """grant.create and grant.revoke name profile, role, grant and peer; revoking twice is 404."""
    made = await started.ok("POST", "/v1/grants", LEASE)
    await started.ok("DELETE", f"/v1/grants/{made['id']}")
    assert (await started.refused("DELETE", f"/v1/grants/{made['id']}"))[0] == 404
    await started.ok("POST", "/v1/grants", LEASE)
    assert await started.ok("DELETE", "/v1/grants") == {}
    lines = [each for each in started.house.audit() if each["event"].startswith("grant.")]

    assert [(each["event"], each["reason"]) for each in lines] == [
        ("grant.create", None), ("grant.revoke", "revoked"), ("grant.create", None), ("grant.revoke", "revoked"),
    ]  # fmt: skip
    assert {(each["profile"], each["role_arn"], each["peer"]["pid"]) for each in lines} == {
        ("web-admin", ROLE, os.getpid())
    }
    assert (lines[0]["grant"], lines[0]["identity"], lines[0]["account_id"]) == (made["id"], "identity", "234567890123")
    assert not list(started.house.layout.grant_tokens.iterdir())


async def test_one_grant_and_why_it_is_refused(started: Started) -> None:
    """A shell asks for its own: as listed, with what the endpoint says of the config file; 404 when it ended."""
    made = await started.ok("POST", "/v1/grants", LEASE)
    path, written = f"/v1/grants/{made['id']}", started.house.aws_config.read_text()
    (row,) = (await started.ok("GET", "/v1/grants"))["grants"]
    assert await started.ok("GET", path) == {**row, "refused": None}

    async def refused(text: str) -> Any:
        started.house.profiles(text)
        await started.house.clock.advance(2)  # type: ignore[attr-defined]  # a FakeClock
        await started.ok("GET", "/v1/profiles")
        return (await started.ok("GET", path))["refused"]

    other = await refused(written.replace(ROLE, ROLE + "2"))
    assert other["code"] == "ProfileMismatch"
    assert "means another role than when this token was made" in other["message"]
    assert (await refused(written.replace("[profile web-admin]", "[profile gone]")))["code"] == "UnknownProfile"
    assert await refused(written) is None
    await started.ok("DELETE", path)
    assert (await started.refused("GET", path))[1]["code"] == "UnknownGrant"


async def test_removing_an_identity_revokes_the_grants_that_need_it(started: Started) -> None:
    """interface.md §3: remove also drops its sessions and revokes its grants, and no others."""
    started.house.profiles(
        started.house.aws_config.read_text() + f"[profile other]\nsource_profile = second\nrole_arn = {ROLE}\n"
    )
    await started.add("second")
    await started.ok("POST", "/v1/grants", LEASE)
    other = await started.ok("POST", "/v1/grants", {"profile": "other", "kind": "lease", "token_code": "777777"})
    assert await started.ok("DELETE", "/v1/identities/identity") == {}

    assert [each["id"] for each in (await started.ok("GET", "/v1/grants"))["grants"]] == [other["id"]]
    status, body = await started.refused("POST", "/v1/grants", LEASE)
    assert (status, body["code"]) == (404, "UnknownIdentity")
    assert body["message"].rstrip(".`").endswith("vault-client add identity")


async def test_who_leaves_while_a_session_is_made_gets_no_grant(started: Started) -> None:
    """A token that nobody holds would live until it idles out."""
    started.house.sts.hold()
    async with Line(started) as line:
        line.send("POST", "/v1/grants", json.dumps(LEASE).encode())
        await soon(lambda: started.house.sts.counts()["assume_role"] == 1)
    await asyncio.sleep(0.05)
    started.house.sts.release()
    await soon(lambda: started.daemon.broker.peek(started.daemon.catalog().plan("web-admin")) is not None)
    await asyncio.sleep(0.05)

    assert started.daemon.grants.list() == ()


async def test_the_callers_files_are_his_clients_to_look_at(started: Started) -> None:
    """A [default] in the daemon's own files says nothing of the caller's shell (vault_client/shadows.py)."""
    credentials = started.house.root / "credentials"
    credentials.write_text("[default]\naws_access_key_id = AKIAX\n")
    credentials.chmod(0o600)
    await started.daemon._around.clock.advance(2)  # type: ignore[attr-defined]
    made = await started.ok("POST", "/v1/grants", LEASE)

    assert made["warnings"] == []


# ---- lock and unlock ----


async def test_locked_serves_nothing_and_unlock_brings_sessions_back(started: Started) -> None:
    """lock: 403 Locked for whatever needs a key; unlock: no code is asked again (architecture.md §7)."""
    await started.ok("POST", "/v1/grants", LEASE)
    assert await started.ok("POST", "/v1/lock", {}) == {}
    status = await started.ok("GET", "/v1/status")
    assert (status["locked"], status["locked_reason"], status["trouble"]) == (
        True, "locked by `vault-client lock`: type `vault-client unlock`",
        ["locked by `vault-client lock`: type `vault-client unlock`"],
    )  # fmt: skip
    for method, path, body in (
        ("POST", "/v1/grants", LEASE),
        ("POST", "/v1/prompts", {}),
        ("GET", "/v1/profiles/web-admin/credentials", None),
        ("POST", "/v1/profiles/web-admin/refresh", {}),
        ("DELETE", "/v1/identities/identity", None),
        ("POST", "/v1/identities", {"name": "x", "AccessKeyId": "A" * 20, "SecretAccessKey": "s"}),
    ):
        code, told = await started.refused(method, path, body)
        assert (code, told["code"], told["exit"]) == (403, "Locked", 1), path
        assert "`vault-client unlock`" in told["message"]
    assert [each["state"] for each in (await started.ok("GET", "/v1/profiles"))["profiles"]][:2] == ["locked", "locked"]
    assert len((await started.ok("GET", "/v1/grants"))["grants"]) == 1
    assert len((await started.ok("GET", "/v1/identities"))["identities"]) == 1

    assert await started.ok("POST", "/v1/unlock", {}) == {}
    await started.ok("GET", "/v1/profiles/web-admin/credentials")
    assert started.house.sts.counts() == {"caller_identity": 1, "session_token": 1, "assume_role": 1}
    lines = [each for each in started.house.audit() if each["event"] in {"lock", "unlock"}]
    assert [(each["event"], each["decision"], each["peer"]["pid"]) for each in lines] == [
        ("lock", None, os.getpid()), ("unlock", "allow", os.getpid()),
    ]  # fmt: skip


async def test_a_lock_ends_questions_and_flights(started: Started) -> None:
    """Flow 6: who waits for a person hears `cancelled`, who waits for AWS hears Locked; nothing is kept of it."""
    await started.ok("DELETE", "/v1/sessions")
    question = (await started.call("POST", "/v1/grants", LEASE)).body["prompt"]["id"]
    async with Line(started) as terminal, Line(started) as command:
        terminal.send("GET", f"/v1/prompts/{question}?wait&attend")
        await soon(lambda: [each.askers for each in started.daemon.desk._open.values()] == [1])
        await started.ok("POST", "/v1/lock", {})
        assert (await terminal.answer()).body == {"outcome": "cancelled", "reason": "locked"}
        await started.ok("POST", "/v1/unlock", {})
        await started.ok("POST", "/v1/prompts", {"token_code": "222222"})
        started.house.sts.hold()
        command.send("POST", "/v1/grants", json.dumps(LEASE).encode())
        await soon(lambda: started.house.sts.counts()["assume_role"] == 1)
        await started.ok("POST", "/v1/lock", {})
        started.house.sts.release()
        answer = await command.answer()
        assert (answer.status, answer.body["code"]) == (403, "Locked")
    assert started.daemon.grants.list() == ()


async def test_locked_survives_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    """The marker: the next daemon starts locked, keyring or not, and `start` does not ask for a passphrase."""
    house = House(tmp_path, clock=clock)
    async with house.run() as started:
        await started.with_session()
        await started.ok("POST", "/v1/lock", {})
    async with house.run() as started:
        assert (started.told["locked"], started.told["wants_passphrase"], started.told["identities"]) == (
            True,
            False,
            1,
        )
        assert started.told["store"] == "keyring"
        assert started.told["locked_reason"].endswith("run `vault-client unlock`")
        await started.ok("POST", "/v1/unlock", {})
        await started.ok("GET", "/v1/profiles/web-admin/credentials")
    assert house.sts.counts()["session_token"] == 1
    async with house.run() as started:
        assert not started.told["locked"]


async def test_unlock_of_an_open_store_changes_nothing(started: Started) -> None:
    """Whatever passphrase comes: it is open, and that is all that is said of it; no line is written."""
    assert await started.ok("POST", "/v1/unlock", {"passphrase": "whatever"}) == {"open": True}
    assert started.house.events("unlock") == []


async def test_a_wrong_passphrase_costs_more_each_time(started: Started, clock: FakeClock) -> None:
    """security.md §3.3: 0.1 s × n, up to 10 s, one attempt at a time; the rest of the API goes on meanwhile."""
    await started.ok("POST", "/v1/lock", {})
    store, unlocking = started.house.store, started.daemon.unlocking
    assert isinstance(store, FakeStore)
    store.broken = WrongPassphrase("That passphrase does not open the store: run `vault-client unlock` again.")
    for number, seconds in ((1, 0.1), (2, 0.2), (3, 0.3)):
        attempt = asyncio.ensure_future(started.call("POST", "/v1/unlock", {"passphrase": "wrong"}))
        await soon(lambda number=number: unlocking._wrong == number)  # type: ignore[misc]
        await clock.advance(seconds - 0.01)
        assert (await started.ok("GET", "/v1/status"))["locked"]
        assert not attempt.done()
        await clock.advance(0.02)
        answer = await attempt
        assert (answer.status, answer.body["code"], answer.body["exit"]) == (403, "WrongPassphrase", 1)
    unlocking._wrong = 5000
    slow = asyncio.ensure_future(started.call("POST", "/v1/unlock", {"passphrase": "wrong"}))
    await soon(lambda: unlocking._wrong == 5001)
    store.broken = None
    right = asyncio.ensure_future(started.call("POST", "/v1/unlock", {"passphrase": "right"}))
    await clock.advance(9.9)
    await started.ok("GET", "/v1/status")
    assert not slow.done()
    assert not right.done()
    await clock.advance(0.2)
    assert ((await slow).status, (await right).status) == (403, 200)
    refusals = [each for each in started.house.events("unlock") if each["decision"] == "deny"]
    assert [each["reason"] for each in refusals] == ["WrongPassphrase"] * 4


async def test_a_busy_keyring_is_temporary(tmp_path: Path, clock: FakeClock) -> None:
    """503 KeyringBusy, exit 75, and the reason is what `status` says."""
    store = FakeStore()
    store.broken = KeyringBusy("The keyring does not answer: unlock it, then type `vault-client unlock`.")
    async with House(tmp_path, clock=clock, store=store).run() as started:
        status, body = await started.refused("POST", "/v1/unlock", {})
        assert (status, body["code"], body["exit"]) == (503, "KeyringBusy", 75)
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [store.broken.message]
        store.broken = None
        await started.ok("POST", "/v1/unlock", {})


# ---- audit and events ----


async def test_events_are_streamed_until_the_caller_leaves(started: Started) -> None:
    """NDJSON of §8's events from now on; a reader that goes leaves nothing behind."""
    async with Line(started) as line:
        line.send("GET", "/v1/events")
        status, headers = await line.head()
        assert (status, headers["content-type"]) == (200, "application/x-ndjson")
        await started.ok("POST", "/v1/grants", LEASE)
        assert [(await line.event())["event"] for _ in range(2)] == ["session.renew", "grant.create"]
        assert len(started.daemon.audit._subscribers) == 1
    await soon(lambda: not started.daemon.audit._subscribers)


async def test_a_reader_that_is_too_slow_is_told_so(started: Started) -> None:
    """A thousand events are kept for it, then one last line that is no event of the log, and the stream ends whole."""
    async with Line(started) as line:
        line.send("GET", "/v1/events")
        await line.head()
        for _ in range(1001):
            started.daemon.audit.record("start")
        seen = [await line.event() for _ in range(1001)]
        assert await line.event() is None
    assert [each.get("seq") for each in seen[:2]] == [seen[0]["seq"], seen[0]["seq"] + 1]
    assert (seen[-1]["event"], "seq" in seen[-1]) == ("stream.cut", False)


async def test_a_reader_that_reads_nothing_is_let_go(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for him is not kept for ever: he is cut off without a last line, and his place is free."""
    monkeypatch.setattr(daemon_routes, "SLOW_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(started.house.layout.control_sock))
        idle.setblocking(False)
        idle.sendall(b"GET /v1/events HTTP/1.1\r\nHost: vaultd\r\n\r\n")
        await soon(lambda: started.daemon.audit._subscribers)
        for _ in range(20):
            for _ in range(200):
                started.daemon.audit.record("start", reason="x" * 200)
            await asyncio.sleep(0)
        await soon(lambda: not started.daemon.audit._subscribers)
        loop, taken = asyncio.get_running_loop(), b""
        async with asyncio.timeout(10):
            while piece := await loop.sock_recv(idle, 1 << 20):
                taken += piece
    assert taken.count(b"x" * 200) > 10, "positive control: it was a stream"
    assert b"stream.cut" not in taken


async def test_readers_leave_room_for_commands(started: Started) -> None:
    """Sixteen may follow; the next is refused with what to type, and a command still gets in."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(16):
            line = await stack.enter_async_context(Line(started))
            line.send("GET", "/v1/events")
            await line.head()
        status, body = await started.refused("GET", "/v1/events")
        assert (status, body["code"], body["exit"]) == (503, "TooManyReaders", 75)
        assert "type it again" in body["message"]
        await started.ok("GET", "/v1/status")


async def test_the_audit_is_read_back(started: Started) -> None:
    """{"events": […]}, the oldest first, of one profile where asked, at most n."""
    await started.ok("POST", "/v1/grants", LEASE)
    await started.ok("POST", "/v1/grants", LEASE)
    events = (await started.ok("GET", "/v1/audit?n=2&profile=web-admin"))["events"]

    assert [each["event"] for each in events] == ["grant.create", "grant.create"]
    assert events == [each for each in started.house.audit() if each["event"] == "grant.create"]
    assert len((await started.ok("GET", "/v1/audit?n=1"))["events"]) == 1


class Watched(Files):
    """Notes which thread reads which file."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, bool]] = []

    def read(self, path: Path, **how: Any) -> bytes | None:
        self.reads.append((path.name, threading.current_thread() is threading.main_thread()))
        return super().read(path, **how)


async def test_the_audit_is_read_beside_the_loop(tmp_path: Path, clock: FakeClock) -> None:
    """100,000 lines are a second of reading: never in the loop's thread. A start reads its tail there."""
    files = Watched()
    async with House(tmp_path, clock=clock, files=files).run() as started:
        assert ("audit.jsonl", True) in files.reads, "positive control: who reads is seen"
        files.reads.clear()
        assert len((await started.ok("GET", "/v1/audit"))["events"]) == 1
        assert [each for each in files.reads if each[0] == "audit.jsonl"] == [("audit.jsonl", False)]


async def test_lost_lines_are_told(tmp_path: Path, clock: FakeClock) -> None:
    """interface.md §1: on a full disk valid sessions are served, the line is counted as lost, `status` says so."""
    house = House(tmp_path, clock=clock)
    full = False

    def fault(operation: str, path: Path) -> None:
        if full and operation == "write" and path.name == "audit.jsonl":
            raise OSError(28, "No space left on device")

    house.files = type(house.files)(fault=fault)
    async with house.run() as started:
        await started.with_session()
        await started.ok("GET", "/v1/profiles/web-admin/credentials")
        full = True
        await started.ok("GET", "/v1/profiles/web-admin/credentials")
        status = await started.ok("GET", "/v1/status")
        checks = (await started.ok("GET", "/v1/checks"))["checks"]
        full = False
    assert status["lost_audit_lines"] == 1
    assert status["trouble"] == ["1 audit line could not be written: make room, then type `vaultd check`"]
    [audit] = [each for each in checks if each["name"] == "audit"]
    assert (audit["ok"], audit["message"]) == (False, "1 line could not be written")


# ---- stop ----


async def test_stop_lets_go_of_whoever_waits(tmp_path: Path, clock: FakeClock) -> None:
    """POST /v1/stop answers; streams end whole, waits hear `cancelled`; nobody holds the stop up."""
    house = House(tmp_path, clock=clock)
    async with house.run() as started:
        await started.add()
        question = (await started.call("POST", "/v1/grants", LEASE)).body["prompt"]["id"]
        async with Line(started) as stream, Line(started) as terminal:
            stream.send("GET", "/v1/events")
            await stream.head()
            terminal.send("GET", f"/v1/prompts/{question}?wait&attend")
            await soon(lambda: [each.askers for each in started.daemon.desk._open.values()] == [1])
            assert await started.ok("POST", "/v1/stop", {}) == {}
            assert (await terminal.answer()).body == {"outcome": "cancelled", "reason": "stopped"}
            assert (await stream.event())["event"] == "stop"
            assert await stream.event() is None
        await started.running
    [line] = house.events("stop")
    assert line["peer"]["pid"] == os.getpid()
