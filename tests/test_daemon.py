"""A daemon's life on one home: start, what keeps it from starting, a late keyring, rollback, death, stop (§1, §2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeStore
from tests.web.control import House, Started, soon
from vaultd.errors import Misconfigured, StoreDamaged, StoreRolledBack, StoreUnavailable, Unwritable
from vaultd.files import Files

LEASE = {"profile": "web-admin", "kind": "lease"}
FILE = '[store]\nbackend = "file"\n'
PHRASE = "correct horse"


class NoKeyring(FakeStore):
    """A machine without an OS keyring."""

    async def open(self, *args: Any, **options: Any) -> None:
        raise StoreUnavailable("there is no OS keyring here: type `VAULTD_STORE=file vaultd start`")


class SlowKeyring(FakeStore):
    """A keyring that does not answer before `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def open(self, *args: Any, **options: Any) -> None:
        await self.answers.wait()
        await super().open(*args, **options)


@contextlib.contextmanager
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What the service manager hears."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(sock.recv(4096))


def left(house: House) -> set[str]:
    """What lies in the run directory."""
    return {each.name for each in house.layout.run.iterdir()}


def passphrase(house: House, phrase: str = PHRASE) -> None:
    """A file store whose passphrase is on file."""
    path = house.root / "passphrase"
    path.write_text(phrase + "\n")
    path.chmod(0o600)
    house.settings = FILE
    house.environ["VAULTD_PASSPHRASE_FILE"] = str(path)


# ---- start and stop ----


async def test_what_a_start_leaves_and_a_stop_takes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """endpoint.json {port, pid} and control.sock, doors.sock live as long as the daemon; READY, STOPPING are told."""
    house = House(tmp_path)
    with notified(tmp_path, monkeypatch) as heard:
        async with house.run() as started:
            assert json.loads(house.layout.endpoint_json.read_text()) == {
                "port": started.daemon.port, "pid": os.getpid(),
            }  # fmt: skip
            assert left(house) == {"control.sock", "doors.sock", "endpoint.json", "grants"}
            assert house.layout.endpoint_json.stat().st_mode & 0o777 == 0o600
            told = started.told
        assert left(house) == {"grants"}
    assert heard == [b"READY=1", b"STOPPING=1"]
    assert (told["locked"], told["warnings"], told["new_store"], told["identities"]) == (False, [], True, 0)
    assert [each["event"] for each in house.audit()] == ["start", "stop"]


async def test_a_setting_that_does_nothing_yet_is_told(tmp_path: Path) -> None:
    """At the start and by status, so that nobody believes in it."""
    house = House(tmp_path)
    house.settings = '[prompt]\ndrivers = ["desktop"]\n'
    async with house.run() as started:
        notice = "[prompt] drivers is not there yet and changes nothing: remove the line"
        assert started.told["warnings"] == [notice]
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [notice]


async def test_a_table_for_no_profile_is_told(tmp_path: Path) -> None:
    """It protects nothing: at the start and by status, with the name that was meant; once by the checks."""
    house = House(tmp_path)
    house.settings = "[profiles.web-admn]\nprotected = true\n"
    async with house.run() as started:
        (told,) = started.told["warnings"]
        assert "[profiles.web-admn] names no profile of " in told
        assert told.endswith(": write `[profiles.web-admin]` or remove the table, then type `vaultd restart`")
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [told]


async def test_a_signal_is_an_orderly_end(tmp_path: Path) -> None:
    """SIGTERM: exit 0, as `stop`."""
    house = House(tmp_path)
    async with house.run() as started:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await started.running
    assert [each["event"] for each in house.audit()] == ["start", "stop"]


async def test_a_socket_left_by_a_kill_is_replaced(tmp_path: Path) -> None:
    """Kill -9 leaves control.sock and endpoint.json; the next start takes their place."""
    house = House(tmp_path)
    house.files.make_dirs(house.layout)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(house.layout.control_sock))
    dead.close()
    house.layout.endpoint_json.write_text('{"port": 1, "pid": 1}')
    house.layout.endpoint_json.chmod(0o600)
    async with house.run() as started:
        await started.ok("GET", "/v1/status")
        assert json.loads(house.layout.endpoint_json.read_text())["pid"] == os.getpid()


async def test_a_taken_port_leaves_nothing_behind(tmp_path: Path) -> None:
    """interface.md §2: a clear error naming the owner; no socket, no endpoint, no audit line."""
    house = House(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        house.port = other.getsockname()[1]
        with pytest.raises(Unwritable, match=rf"^Port {house.port} is taken by .*\(pid {os.getpid()}\): stop that"):
            async with house.run():
                pass
    assert left(house) == {"grants"}
    assert house.audit() == []
    async with house.run() as started:  # control: with the port free it serves
        assert started.daemon.port == house.port


async def test_unreadable_grants_refuse_the_start(tmp_path: Path) -> None:
    """interface.md §1: `grants.json` unreadable: start refuses, naming it, and leaves nothing behind."""
    house = House(tmp_path)
    house.files.make_dirs(house.layout)
    house.files.replace(house.layout.grants_json, b"{")
    with pytest.raises(Misconfigured, match=r"grants\.json cannot be understood \(line 1, column 2\)"):
        async with house.run():
            pass
    assert left(house) == {"grants"}


async def test_an_endpoint_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    """A full home: exit 1 and one sentence; what was opened until then is closed."""

    def fault(operation: str, path: Path) -> None:
        if operation == "write" and "endpoint.json" in path.name:
            raise OSError(28, "No space left on device")

    house = House(tmp_path, files=Files(fault=fault))
    with pytest.raises(Unwritable, match=r"endpoint\.json cannot be written"):
        async with house.run():
            pass
    assert left(house) == {"grants"}


@pytest.mark.parametrize("ends", ["raises", "returns"])
async def test_a_permanent_task_that_dies_ends_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """architecture.md §8.7: one dead, all dead; the head is sealed, sockets and files are gone, the error is raised."""
    house = House(tmp_path)
    daemon, told = house.daemon(), list[dict[str, Any]]()

    async def run() -> None:
        if ends == "raises":
            raise RuntimeError("broken")

    monkeypatch.setattr(daemon.refresher, "run", run)
    with pytest.raises(BaseExceptionGroup) as caught:
        await daemon.run(told.append)

    assert len(told) == 1
    assert [type(each) for each in caught.value.exceptions] == [RuntimeError if ends == "raises" else AssertionError]
    assert left(house) == {"grants"}
    [stop] = house.events("stop")
    assert stop["reason"] == "died of ExceptionGroup: see `vaultd logs`"


async def test_activation_keeps_the_managers_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LISTEN_FDS: TCP and unix sockets are served as they come; the manager's socket file stays at stop."""
    house = House(tmp_path)
    house.files.make_dirs(house.layout)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(house.layout.control_sock))
    unix.listen()
    tcp = socket.create_server(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    _pass_in(monkeypatch, tcp, unix)
    async with house.run() as started:
        assert (started.daemon.port, (await started.ok("GET", "/v1/status"))["port"]) == (port, port)
    assert left(house) == {"control.sock", "grants"}
    tcp.close()
    unix.close()


async def test_an_activated_socket_on_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 only, whoever bound it."""
    house = House(tmp_path)
    tcp = socket.create_server(("0.0.0.0", 0))
    _pass_in(monkeypatch, tcp)
    with pytest.raises(
        Misconfigured, match=r"passes a socket on 0\.0\.0\.0 in: write `ListenStream=127\.0\.0\.1:PORT`"
    ):
        async with house.run():
            pass
    tcp.close()


def _pass_in(monkeypatch: pytest.MonkeyPatch, *given: socket.socket) -> None:
    """As systemd does, at descriptors of their own (3 and up are the test runner's)."""
    first = 200
    for number, each in enumerate(given):
        os.dup2(each.fileno(), first + number)
    monkeypatch.setattr("vaultd.host.sockets._FIRST_ACTIVATED", first)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(len(given)))


# ---- the store at start ----


async def test_a_keyring_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    """READY after 3 s, locked with the reason, grants and lists served; it opens later by itself."""
    clock = FakeClock()
    store = SlowKeyring()
    house = House(tmp_path, clock=clock)
    async with house.run() as started:  # a home with an identity
        await started.with_session()
    assert isinstance(house.store, FakeStore)
    store.items, house.store = house.store.items, store
    daemon, told = house.daemon(), list[dict[str, Any]]()
    running = asyncio.ensure_future(daemon.run(told.append))
    await soon(lambda: clock.sleepers)
    await clock.advance(2.9)
    assert not told
    await clock.advance(0.2)
    await soon(lambda: told)
    assert (told[0]["locked"], told[0]["store"], told[0]["wants_passphrase"]) == (True, "keyring", False)
    assert told[0]["locked_reason"] == (
        "the store is still being opened: unlock your keyring, or type `vault-client unlock`"
    )
    assert (
        daemon.broker.state(daemon.catalog().plan("web-admin")).state == "locked"
    )  # planned: the identities are known though the store is shut
    store.answers.set()
    await soon(lambda: not daemon.broker.locked)
    daemon.stop()
    await running


async def test_damage_that_is_found_late_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error of an opening that ended after READY becomes the reason, and is not lost."""
    clock, store = FakeClock(), SlowKeyring()
    house = House(tmp_path, clock=clock, store=store)
    daemon, told = house.daemon(), list[dict[str, Any]]()
    running = asyncio.ensure_future(daemon.run(told.append))
    await soon(lambda: clock.sleepers)
    await clock.advance(3.1)
    await soon(lambda: told)
    store.broken = StoreDamaged("secrets.sealed is damaged: restore it from a backup.")
    store.answers.set()
    await soon(lambda: daemon.unlocking.reason.startswith("secrets.sealed"))
    assert daemon.commands.status()["trouble"] == ["secrets.sealed is damaged: restore it from a backup."]
    assert "open store failed error=StoreDamaged" in caplog.text
    daemon.stop()
    await running


async def test_a_stop_does_not_wait_for_the_keyring(tmp_path: Path) -> None:
    """The opening is given up; nothing of it runs on."""
    clock = FakeClock()
    house = House(tmp_path, clock=clock, store=SlowKeyring())
    daemon, told = house.daemon(), list[dict[str, Any]]()
    running = asyncio.ensure_future(daemon.run(told.append))
    await soon(lambda: clock.sleepers)
    await clock.advance(3.1)
    await soon(lambda: told)
    daemon.stop()
    await running
    assert {each for each in asyncio.all_tasks() if each is not asyncio.current_task()} == set()


async def test_nothing_runs_on_after_a_stop(tmp_path: Path) -> None:
    """No task is left, after grants, questions and sessions; warnings are errors, so no resource either."""
    house = House(tmp_path)
    warmed = []

    async def warm() -> None:
        warmed.append(True)
        await asyncio.Event().wait()

    house.warm = warm
    async with house.run() as started:
        await started.with_session()
        await started.ok("POST", "/v1/grants", LEASE)
        await started.call("POST", "/v1/grants", {"profile": "audit", "kind": "lease"})
    assert warmed == [True]
    assert {each for each in asyncio.all_tasks() if each is not asyncio.current_task()} == set()


async def test_without_keyring_and_person_it_starts_locked(tmp_path: Path) -> None:
    """interface.md §2: `unlock` creates the store; `start` on a terminal is told to ask, twice as it is new."""
    house = House(tmp_path, store=NoKeyring())
    async with house.run() as started:
        told = started.told
        assert (told["locked"], told["store"], told["wants_passphrase"], told["new_store"]) == (
            True,
            "file",
            True,
            True,
        )
        assert told["locked_reason"].endswith("set one with `vault-client unlock`")
        await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE})
        await started.with_session()
    async with house.run() as started:
        told = started.told
        assert (told["locked"], told["wants_passphrase"], told["new_store"], told["identities"]) == (
            True,
            True,
            False,
            1,
        )
        status, body = await started.refused("POST", "/v1/unlock", {})
        assert (status, body["code"]) == (403, "Locked")
        unlock = asyncio.ensure_future(started.refused("POST", "/v1/unlock", {"passphrase": "wrong"}))
        await soon(lambda: started.daemon.unlocking._wrong)
        assert isinstance(house.clock, FakeClock)
        await house.clock.advance(0.2)
        assert (await unlock)[1]["code"] == "WrongPassphrase"
        await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE})
        await started.ok("GET", "/v1/profiles/web-admin/credentials")
    assert house.sts.counts()["session_token"] == 1


@pytest.mark.parametrize("content", [b"wrong\n", b"\xff\xfe\n"])
async def test_a_wrong_passphrase_on_file_starts_locked(tmp_path: Path, content: bytes) -> None:
    """interface.md §2: starts locked, says so, exit 0; the right one opens it by itself."""
    house = House(tmp_path)
    passphrase(house)
    async with house.run() as started:
        assert not started.told["locked"]
    (house.root / "passphrase").write_bytes(content)
    async with house.run() as started:
        assert (started.told["locked"], started.told["store"]) == (True, "file")
        assert "`vault-client unlock`" in started.told["locked_reason"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
async def test_a_passphrase_that_others_may_read_is_not_taken(mode: int, tmp_path: Path) -> None:
    """It starts locked, names the file and the command, and opens once that was typed. Control: 0600 opens it."""
    house = House(tmp_path)
    passphrase(house)
    path = house.root / "passphrase"
    async with house.run() as started:
        assert not started.told["locked"]
    path.chmod(mode)
    async with house.run() as started:
        assert started.told["locked"]
        reason = started.told["locked_reason"]
        assert reason.startswith(f"{path} is refused because it may be ")
        assert f"run `chmod {'go-w' if mode & 0o022 else '600'} {path}`" in reason
        _, body = await started.refused("POST", "/v1/unlock", {})
        assert (body["code"], body["message"], body["exit"]) == ("FileRefused", reason, 78)
        path.chmod(0o600)
        await started.ok("POST", "/v1/unlock", {})
        assert not started.daemon.broker.locked


async def test_the_service_managers_passphrase_is_taken(tmp_path: Path) -> None:
    """CREDENTIALS_DIRECTORY as systemd makes it: read-only, and 0440 where the unit's user has an ACL."""
    house = House(tmp_path)
    house.settings = FILE
    (tmp_path / "credentials").mkdir(0o700)
    path = tmp_path / "credentials/vaultd-passphrase"
    path.write_text(PHRASE + "\n")
    house.environ["CREDENTIALS_DIRECTORY"] = str(path.parent)
    for mode, locked in (0o400, False), (0o440, False), (0o444, True):
        path.chmod(mode)
        async with house.run() as started:
            assert started.told["locked"] == locked, oct(mode)


async def test_unlock_without_passphrase_takes_the_one_on_file(tmp_path: Path) -> None:
    """A headless daemon that was locked opens again by `unlock` alone."""
    house = House(tmp_path)
    passphrase(house)
    async with house.run() as started:
        await started.ok("POST", "/v1/lock", {})
        await started.ok("POST", "/v1/unlock", {})
        assert not (await started.ok("GET", "/v1/status"))["locked"]


# ---- rollback and loss, and the remedy that the message names ----


async def _grown(house: House) -> bytes:
    """A file store with an identity; returns an older version of the file."""
    async with house.run() as started:
        await started.add()
        older = house.layout.secrets_sealed.read_bytes()
        await started.add("second")
        await started.add("third")
    return older


async def test_an_older_store_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    """StoreRolledBack names `vaultd start --accept-rollback`; typed, it starts, and so does every start after it."""
    house = House(tmp_path)
    passphrase(house)
    house.files.replace(house.layout.secrets_sealed, await _grown(house))
    with pytest.raises(StoreRolledBack, match=r"run `vaultd start --accept-rollback`\.$"):
        async with house.run():
            pass
    async with house.run(accept_rollback=True) as started:
        assert not started.told["locked"]
    async with house.run() as started:
        assert not started.told["locked"]


async def test_a_consent_counts_for_the_passphrase_that_comes_later(tmp_path: Path) -> None:
    """`start --accept-rollback` without passphrase starts locked; the `unlock` after it opens the older store."""
    house = House(tmp_path)
    passphrase(house)
    house.files.replace(house.layout.secrets_sealed, await _grown(house))
    house.environ.clear()
    async with house.run() as started:  # control: without the consent the unlock is refused, and says what to type
        status, body = await started.refused("POST", "/v1/unlock", {"passphrase": PHRASE})
        assert (status, body["code"], body["exit"]) == (422, "StoreRolledBack", 78)
        assert body["message"].endswith("run `vaultd start --accept-rollback`.")
        # and that, typed while it runs, is this call:
        assert (await started.refused("POST", "/v1/unlock", {"accept_rollback": True}))[1]["code"] == "Locked"
        await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE})
    house.files.replace(house.layout.secrets_sealed, house.layout.secrets_sealed.read_bytes())
    async with house.run(accept_rollback=True) as started:
        assert started.told["locked"]
        await started.ok("POST", "/v1/unlock", {"passphrase": PHRASE})


async def test_a_missing_store_is_damage_until_it_is_given_up(tmp_path: Path) -> None:
    """Never a new store in silence; given up, the identities are there without a key, and `add --replace` mends it."""
    house = House(tmp_path)
    passphrase(house)
    await _grown(house)
    house.layout.secrets_sealed.unlink()
    with pytest.raises(StoreDamaged, match=r"give its keys up with `vaultd start --accept-rollback`"):
        async with house.run():
            pass
    assert not house.layout.secrets_sealed.exists()
    assert isinstance(house.clock, FakeClock)
    async with house.run(accept_rollback=True) as started:
        await house.clock.advance(30)  # the sealed log went with its key: which codes were sent is not known
        _, body = await started.refused("POST", "/v1/grants", {**LEASE, "token_code": "123456"})
        assert (body["code"], body["message"]) == (
            "IdentityBroken",
            "the store holds no key for identity identity; run `vault-client add identity --replace`",
        )
        await started.add(replace=True)
        await started.ok("POST", "/v1/grants", {**LEASE, "token_code": "654321"})
    async with house.run() as started:
        assert not started.told["locked"]


async def test_whose_key_went_with_a_store_is_told_until_it_is_added(tmp_path: Path) -> None:
    """At the start, by status and by the checks, with what to type; of the log that only that store could open, nobody
    says that it was damaged. An identity whose key is there again, or that is removed, is told no more.
    """
    house = House(tmp_path)
    passphrase(house)
    older = await _grown(house)
    house.files.replace(house.layout.secrets_sealed, older)
    async with house.run(accept_rollback=True) as started:
        assert started.told["keyless"] == ["second", "third"], "control: the older store has identity's key"
    house.layout.secrets_sealed.unlink()
    async with house.run(accept_rollback=True) as started:
        wanted = [_wanted(name) for name in ("identity", "second", "third")]
        log = (
            "sessions.sealed was sealed with the store that is gone and is kept as sessions.sealed.damaged; see whose "
            "key is wanted with `vault-client status`"
        )
        assert started.told["warnings"][-4:] == [*wanted, log]
        assert (await started.ok("GET", "/v1/status"))["keyless"] == ["identity", "second", "third"]
        rows = [each for each in (await started.ok("GET", "/v1/checks"))["checks"] if each["name"] == "daemon"]
        assert [(each["ok"], each["message"], each["remedy"]) for each in rows[:1]] == [
            (False, "the store holds no key for identity identity", "run `vault-client add identity --replace`")
        ]
        assert isinstance(house.clock, FakeClock)
        await house.clock.advance(1)  # a key that came later
        await started.add(replace=True)
        await started.ok("DELETE", "/v1/identities/second")
        told = await started.ok("GET", "/v1/status")
        assert (told["keyless"], told["trouble"][-2:]) == (["third"], [_wanted("third"), log])
    async with house.run() as started:
        assert started.told["keyless"] == ["third"]


def _wanted(name: str) -> str:
    return f"the store holds no key for identity {name}; run `vault-client add {name} --replace`"


async def test_another_store_than_before_is_refused_without_a_key(tmp_path: Path) -> None:
    """A damaged file ends the start naming it and another start, as nobody is there to unlock; it is not written."""
    house = House(tmp_path)
    passphrase(house)
    await _grown(house)
    broken = house.layout.secrets_sealed.read_bytes()[:-1] + secrets.token_bytes(1)
    house.files.replace(house.layout.secrets_sealed, broken + b"x")
    with pytest.raises(StoreDamaged, match=r"secrets\.sealed is damaged") as refused:
        async with house.run():
            pass
    assert ": restore it from a backup and run `vaultd start`, or " in refused.value.message
    assert "unlock" not in refused.value.message
    assert house.layout.secrets_sealed.read_bytes() == broken + b"x"


# ---- the audit head ----


async def test_a_cut_audit_log_is_seen(tmp_path: Path) -> None:
    """The head is sealed each minute and at stop; a log that lost its tail since is told at the next open."""
    clock = FakeClock()
    house = House(tmp_path, clock=clock)
    async with house.run() as started:
        await started.add()
        before = house.layout.sessions_sealed.stat().st_size
        await clock.advance(61)
        await soon(lambda: house.layout.sessions_sealed.stat().st_size > before)
    whole = house.layout.audit_jsonl.read_bytes()
    async with house.run() as started:
        assert started.told["warnings"] == []
    house.layout.audit_jsonl.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    async with house.run() as started:
        [warning] = started.told["warnings"]
        assert warning.startswith(f"The audit log {house.layout.audit_jsonl} was cut: it ends with line 2, line ")
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [warning]
        assert house.events("start")[-1]["reason"] == warning
        check = await checked(started, "audit")
        assert check["message"] == warning.rpartition("; ")[0]
        assert check["ok"] is False
        assert "`vault-client log`; to accept it, type `vaultd restart`" in check["remedy"]
        assert (await checked(started, "daemon"))["ok"], "control: the cut is told once"
    async with house.run() as started:
        assert (await checked(started, "audit"))["message"] == "the chain is whole", "accepted by the restart"


async def checked(started: Started, name: str) -> dict[str, Any]:
    """One diagnosis of the running daemon."""
    found = (await started.ok("GET", "/v1/checks"))["checks"]
    return next(each for each in found if each["name"] == name)


async def test_a_cut_under_a_running_daemon_is_seen_by_check(tmp_path: Path) -> None:
    """It knows where the chain ends, whatever the file says; a locked one says what it cannot know."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.add()
        path = house.layout.audit_jsonl
        whole = path.read_bytes()
        assert (await checked(started, "audit"))["message"] == "the chain is whole"
        path.write_bytes(whole.splitlines(keepends=True)[0])
        cut = await checked(started, "audit")
        assert (cut["ok"], cut["message"].startswith(f"The audit log {path} was cut: it ends with line 1, ")) == (
            False, True,
        )  # fmt: skip
        path.write_bytes(whole)
        await started.ok("POST", "/v1/lock", {})
        assert (await checked(started, "audit"))["message"].startswith("the chain is whole as far as it goes; ")


async def test_a_sealed_log_that_was_taken_away_is_told(tmp_path: Path) -> None:
    """Lines without a sealed end cannot be attested: start line and status say so, once; a whole home says nothing."""
    house = House(tmp_path)
    for taken in (False, True):
        async with house.run() as started:
            assert started.told["warnings"] == [], "a new home, then a whole one"
            await started.add(replace=taken)
    house.layout.sessions_sealed.unlink()
    async with house.run() as started:
        audit, codes = started.told["warnings"]
        assert audit == (
            "The audit log had no sealed end when it was opened, so whether lines were cut is not known: see what is "
            "there with `vault-client log`."
        )
        assert codes.startswith("sessions.sealed was missing though keys are stored, so which codes were sent is not ")
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [audit, codes]
        assert house.events("start")[-1]["reason"].startswith(audit)
        assert isinstance(house.clock, FakeClock)
        await house.clock.advance(29)
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [audit, codes]
        await house.clock.advance(1)
        assert (await started.ok("GET", "/v1/status"))["trouble"] == [audit], "codes are taken again"
    async with house.run() as started:
        assert started.told["warnings"] == []


async def test_a_cut_that_is_seen_at_unlock_is_told_there(tmp_path: Path) -> None:
    """A daemon that starts locked knows the head only once it is open."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.add()
        for _ in range(4):
            await started.ok("POST", "/v1/grants", {**LEASE, "token_code": "123456"})
        await started.ok("POST", "/v1/lock", {})
    house.layout.audit_jsonl.write_bytes(house.layout.audit_jsonl.read_bytes().splitlines(keepends=True)[0])
    async with house.run() as started:
        assert started.told["warnings"] == []
        await started.ok("POST", "/v1/unlock", {})
        assert "was cut" in (await started.ok("GET", "/v1/status"))["trouble"][0]
    [line] = house.events("unlock")
    assert "was cut" in line["reason"]


# ---- what survives ----


async def test_a_restart_asks_no_second_code_and_keeps_grants(tmp_path: Path) -> None:
    """interface.md §3: after a restart sessions that live are served without a code; grants and tokens survive."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.with_session()
        made = await started.ok("POST", "/v1/grants", LEASE)
    async with house.run() as started:
        assert [each["id"] for each in (await started.ok("GET", "/v1/grants"))["grants"]] == [made["id"]]
        await started.ok("GET", "/v1/profiles/web-admin/credentials")
    assert house.sts.counts() == {"caller_identity": 1, "session_token": 1, "assume_role": 1}


async def test_only_grants_in_use_and_live_exec_are_kept_fresh(tmp_path: Path) -> None:
    """architecture.md §6.2: `grants.last_used` within 30 min and nothing else, or a live `exec`."""
    clock = FakeClock()
    house = House(tmp_path, clock=clock)
    async with house.run() as started:
        await started.with_session()
        lease = await started.ok("POST", "/v1/grants", LEASE)
        assert list(started.daemon.clients.active()) == []
        started.daemon.grants.find(lease["set"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"].encode())
        assert [each.profile for each in started.daemon.clients.active()] == ["web-admin"]
        await clock.advance(30 * 60 + 1)
        assert list(started.daemon.clients.active()) == []
        await started.ok("POST", "/v1/grants", {"profile": "web-admin", "kind": "exec"})
        assert [each.profile for each in started.daemon.clients.active()] == ["web-admin"]


async def test_config_changes_are_followed_and_a_broken_file_is_told(tmp_path: Path) -> None:
    """The last good profiles stay, and `status` says why they are the last."""
    clock = FakeClock()
    house = House(tmp_path, clock=clock)
    async with house.run() as started:
        house.profiles("[profile one]\nrole_arn\n  = x\n[profile")
        await clock.advance(6)
        status = await started.ok("GET", "/v1/status")
        assert len(status["trouble"]) >= 1
        assert (await started.call("GET", "/v1/profiles/web-admin/plan")).status in {200, 404}
    shutil.rmtree(house.layout.run)
