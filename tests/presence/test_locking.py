"""A whole daemon that locks by itself: nobody used it, the machine sleeps, the screen is locked, SIGUSR1."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock, FakeStore
from tests.presence.logind import Logind, PrivateBus
from tests.web.control import House, Started, soon
from vaultd.engine.seams import Head
from vaultd.files import Files
from vaultd.keeper.keeper import DaemonKeeper

IDLE = '[store]\nlock_after_idle = "20m"\n'
BOTH = "[store]\nlock_on_suspend = true\nlock_on_screen_lock = true\n"
LEASE = {"profile": "web-admin", "kind": "lease"}
MINUTE = 60.0


def clock_of(started: Started) -> FakeClock:
    assert isinstance(started.house.clock, FakeClock)
    return started.house.clock


async def status(started: Started) -> dict[str, Any]:
    found: dict[str, Any] = await started.ok("GET", "/v1/status")
    return found


async def granted(started: Started) -> dict[str, str]:
    """A token with a session behind it."""
    await started.with_session()
    found: dict[str, str] = (await started.ok("POST", "/v1/grants", LEASE))["set"]
    return found


async def get(started: Started, grant: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """What an SDK gets from the endpoint."""
    token, path = grant["AWS_CONTAINER_AUTHORIZATION_TOKEN"], grant["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    port = started.daemon.port
    status, body = await said(port, f"GET /v1/{path.partition('/v1/')[2]}", f"Authorization: {token}")
    return status, json.loads(body)


async def said(port: int, line: str, *fields: str) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{line} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", *fields, "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return int(head.split()[1]), body


async def locked(started: Started) -> dict[str, Any]:
    """Once it is; what status says then."""
    await soon(lambda: started.daemon.broker.locked)
    return await status(started)


def reasons(house: House) -> list[str | None]:
    return [each["reason"] for each in house.events("lock")]


# ---- idle ----


async def test_nobody_used_it_for_so_long(tmp_path: Path) -> None:
    """Locked at the limit, with the reason in status and audit line; a restart stays locked; unlock goes on."""
    house = House(tmp_path, settings=IDLE)
    async with house.run() as started:
        grant = await granted(started)
        assert (await get(started, grant))[0] == 200
        await clock_of(started).advance(20 * MINUTE - 1)
        assert not started.daemon.broker.locked
        await clock_of(started).advance(1)
        found = await locked(started)
        said = "locked since nobody used it for as long as [store] lock_after_idle says: type `vault-client unlock`"
        assert (found["locked"], found["locked_reason"], found["locked_by"]) == (True, said, "idle")
        assert said in found["trouble"]
        code, body = await get(started, grant)
        assert (code, body["Code"]) == (403, "Locked")
        assert reasons(house) == ["idle"]
        await clock_of(started).advance(25 * MINUTE)
        assert reasons(house) == ["idle"], "what is locked is not locked again"
    async with house.run() as started:
        assert started.told["locked"]
        await started.ok("POST", "/v1/unlock", {})
        assert (await status(started))["locked_by"] is None
        assert (await get(started, grant))[0] == 200, "no code was asked again"
        await clock_of(started).advance(20 * MINUTE)
        await locked(started)
    assert reasons(house) == ["idle", "idle"]


@pytest.mark.parametrize("by", ["sdk", "command", "imds"])
async def test_use_keeps_it_open(tmp_path: Path, by: str) -> None:
    """A request with a good token, and a command that does something, on either side."""
    house = House(tmp_path, settings=IDLE)
    async with house.run() as started:
        grant = await granted(started)
        door = (await started.ok("POST", "/v1/grants", {**LEASE, "imds": True}))["set"]
        for _ in range(5):
            await clock_of(started).advance(19 * MINUTE)
            if by == "sdk":
                await get(started, grant)
            elif by == "imds":
                await listed(door)
            else:
                await started.ok("GET", "/v1/profiles/web-admin/credentials")
        assert not started.daemon.broker.locked
        await clock_of(started).advance(20 * MINUTE)
        await locked(started)


async def listed(door: dict[str, str]) -> None:
    """The role list, by a metadata token."""
    port = int(door["AWS_EC2_METADATA_SERVICE_ENDPOINT"].rstrip("/").rpartition(":")[2])
    _, token = await said(port, "PUT /latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60")
    path = "/latest/meta-data/iam/security-credentials/"
    assert (await said(port, f"GET {path}", f"X-aws-ec2-metadata-token: {token.decode()}"))[0] == 200


@pytest.mark.parametrize(
    "path", ["status", "profiles", "profiles/web-admin/plan", "grants", "prompts", "audit", "checks"]
)
async def test_looking_does_not(tmp_path: Path, path: str) -> None:
    """`status --watch` in a forgotten terminal, `list`, `log`: nothing of that keeps keys in memory."""
    house = House(tmp_path, settings=IDLE)
    async with house.run() as started:
        await granted(started)
        for _ in range(4):
            await started.ok("GET", f"/v1/{path}")
            await clock_of(started).advance(5 * MINUTE)
        await locked(started)


async def test_neither_does_a_stranger(tmp_path: Path) -> None:
    """A wrong token, a bad Host, /healthz: who may not use it does not use it."""
    house = House(tmp_path, settings=IDLE)
    async with house.run() as started:
        grant = await granted(started)
        wrong = {**grant, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "x" * 43}
        for _ in range(4):
            assert (await get(started, wrong))[0] == 401
            await clock_of(started).advance(5 * MINUTE)
        await locked(started)


class Jump(FakeClock):
    """A clock whose boottime may be moved without waking anybody: what a sleep is for a loop's timers."""

    def jump_boot(self, seconds: float) -> None:
        self._step(seconds)


async def test_the_first_request_after_a_long_sleep_is_refused(tmp_path: Path) -> None:
    """Boottime counts the sleep, the loop's timers do not: the request comes before the timer, and gets nothing."""
    house = House(tmp_path, settings=IDLE, clock=Jump())
    async with house.run() as started:
        grant = await granted(started)
        clock = started.house.clock
        assert isinstance(clock, Jump)
        clock.jump_boot(10 * MINUTE)
        assert (await get(started, grant))[0] == 200, "control: within the limit"
        clock.jump_boot(20 * MINUTE)
        code, body = await get(started, grant)
        assert (code, body["Code"]) == (403, "Locked")
        assert (await status(started))["locked_by"] == "idle"
        assert house.layout.locked_marker.exists()


async def test_a_command_that_comes_too_late_is_refused(tmp_path: Path) -> None:
    """The same for a person's; and nothing is asked of AWS."""
    house = House(tmp_path, settings=IDLE, clock=Jump())
    async with house.run() as started:
        await granted(started)
        assert isinstance(started.house.clock, Jump)
        started.house.clock.jump_boot(20 * MINUTE)
        calls = len(house.sts.calls)
        _, body = await started.refused("POST", "/v1/profiles/web-admin/refresh", {})
        assert (body["code"], len(house.sts.calls)) == ("Locked", calls)


async def test_never_is_never(tmp_path: Path) -> None:
    """The default."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.with_session()
        await clock_of(started).advance(60 * MINUTE)
        assert not started.daemon.broker.locked
        assert started.daemon.presence is None, "and no bus is touched"


# ---- SIGUSR1 ----


async def test_sigusr1_drops_all(tmp_path: Path) -> None:
    """As ssh-agent (security.md §2.2 item 27): locked, and so after a restart."""
    house = House(tmp_path)
    async with house.run() as started:
        grant = await granted(started)
        os.kill(os.getpid(), signal.SIGUSR1)
        found = await locked(started)
        assert (found["locked_by"], found["locked_reason"]) == (
            "signal", "locked by SIGUSR1: type `vault-client unlock`",
        )  # fmt: skip
        assert (await get(started, grant))[0] == 403
        assert nothing_held(started)
    assert reasons(house) == ["signal"]
    async with house.run() as started:
        assert started.told["locked"]


def nothing_held(started: Started) -> bool:
    """The keeper's side: no key, no session, no store."""
    keeper = started.daemon._keeper
    assert isinstance(keeper, DaemonKeeper)
    return keeper._store is None and not keeper._sessions.handles


# ---- suspend and screen ----


@asynccontextmanager
async def listening(house: House, logind: Logind) -> AsyncIterator[Started]:
    """A daemon that holds an inhibitor on the test's bus."""
    house.environ["DBUS_SYSTEM_BUS_ADDRESS"] = logind.address
    house.settings = BOTH
    async with house.run() as started:
        presence = started.daemon.presence
        assert presence is not None
        watched = presence.logind
        assert watched is not None
        await soon(lambda: watched.holding and watched._locked is not None)
        yield started


@pytest.mark.needs("dbus-daemon")
async def test_a_suspend_finds_nothing(tmp_path: Path, bus: PrivateBus, logind: Logind) -> None:
    """Audit line, then nothing served, keys gone and the marker written, and only then is the machine let sleep."""
    house = House(tmp_path)
    async with listening(house, logind) as started:
        grant = await granted(started)
        order = watched_close(started, logind)
        logind.sleeps(begins=True)
        await soon(logind.released)
        assert order == ["locked, asked of the keeper: held", "acknowledged: held, forgotten, marked"]
        assert (await get(started, grant))[1]["Code"] == "Locked"
        found = await status(started)
        assert (found["locked_by"], found["locked_reason"]) == (
            "suspend", "locked because the machine slept ([store] lock_on_suspend): type `vault-client unlock`",
        )  # fmt: skip
        logind.sleeps(begins=False)
        await soon(lambda: len(logind.inhibitors) == 2)
        assert (await status(started))["locked"], "waking opens nothing"
        await started.ok("POST", "/v1/unlock", {})
        assert (await get(started, grant))[0] == 200
    assert reasons(house) == ["suspend"]
    assert house.events("lock")[0]["peer"] is None
    async with house.run() as started:
        assert not started.told["locked"], "control: it was unlocked"


def watched_close(started: Started, logind: Logind) -> list[str]:
    """What holds before and after the keeper's close."""
    keeper, order = started.daemon._keeper, list[str]()
    close: Callable[..., Any] = keeper.close

    def held() -> str:
        return "let go" if logind.released() else "held"

    async def watched(head: Head | None, *, lock: bool = True) -> int:
        order.append(f"{'locked' if started.daemon.broker.locked else 'open'}, asked of the keeper: {held()}")
        epoch: int = await close(head, lock=lock)
        await asyncio.sleep(0)
        kept = "forgotten" if nothing_held(started) else "kept"
        marked = "marked" if started.house.layout.locked_marker.exists() else "unmarked"
        order.append(f"acknowledged: {held()}, {kept}, {marked}")
        return epoch

    started.daemon._keeper.close = watched  # type: ignore[method-assign]
    return order


@pytest.mark.needs("dbus-daemon")
@pytest.mark.parametrize("first", ["screen", "command"])
async def test_a_suspend_waits_for_a_lock_that_is_under_way(
    tmp_path: Path, bus: PrivateBus, logind: Logind, first: str
) -> None:
    """A lid that is shut locks the screen a moment before: the machine sleeps only once the keeper has forgotten."""
    house = House(tmp_path)
    async with listening(house, logind) as started:
        await granted(started)
        keeper, gate = started.daemon._keeper, asyncio.Event()
        close: Callable[..., Any] = keeper.close

        async def slow(head: Head | None, *, lock: bool = True) -> int:
            await gate.wait()
            epoch: int = await close(head, lock=lock)
            return epoch

        keeper.close = slow  # type: ignore[method-assign]
        command = asyncio.ensure_future(started.call("POST", "/v1/lock", {})) if first == "command" else None
        if command is None:
            logind.locks()
        await soon(lambda: started.daemon.broker.locked)
        watched = started.daemon.presence.logind if started.daemon.presence is not None else None
        assert watched is not None
        logind.sleeps(begins=True)
        await soon(lambda: watched._asleep)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (logind.released(), nothing_held(started)) == (False, False)
        gate.set()
        await soon(logind.released)
        assert nothing_held(started)
        assert house.layout.locked_marker.exists()
        if command is not None:
            assert (await command).status == 200
    assert reasons(house) == [first]


@pytest.mark.needs("dbus-daemon")
async def test_a_suspend_without_the_setting_finds_all(tmp_path: Path, bus: PrivateBus, logind: Logind) -> None:
    """Control: it is the setting that locks."""
    house = House(tmp_path)
    house.environ["DBUS_SYSTEM_BUS_ADDRESS"] = logind.address
    async with house.run() as started:
        grant = await granted(started)
        logind.sleeps(begins=True)
        assert (await get(started, grant))[0] == 200
        assert logind.asked == []


@pytest.mark.needs("dbus-daemon")
async def test_a_locked_screen_locks(tmp_path: Path, bus: PrivateBus, logind: Logind) -> None:
    """Questions end with it; unlocking the screen opens nothing; a second time is said again."""
    house = House(tmp_path)
    async with listening(house, logind) as started:
        await started.add()
        asked = (await started.refused("POST", "/v1/grants", LEASE))[1]["prompt"]["id"]
        waiting = asyncio.ensure_future(started.call("GET", f"/v1/prompts/{asked}?wait&attend"))
        await soon(lambda: any(each.askers for each in started.daemon.desk._open.values()))
        logind.hints(locked=True)
        assert (await locked(started))["locked_by"] == "screen"
        assert (await waiting).body["outcome"] in {"cancelled", "expired"}
        logind.hints(locked=False)
        await started.ok("POST", "/v1/unlock", {})
        logind.locks()
        await locked(started)
    assert reasons(house) == ["screen", "screen"]


@pytest.mark.needs("dbus-daemon")
async def test_a_machine_that_sleeps_while_the_store_is_being_opened(
    tmp_path: Path, bus: PrivateBus, logind: Logind
) -> None:
    """It is locked so far, but would be open after waking: so it is locked for good."""

    class Slow(FakeStore):
        answers = asyncio.Event()

        async def open(self, *args: Any, **options: Any) -> None:
            await self.answers.wait()
            await super().open(*args, **options)

    store = Slow()
    house = House(tmp_path, store=store, settings=BOTH)
    house.environ["DBUS_SYSTEM_BUS_ADDRESS"] = logind.address
    daemon, told = house.daemon(), list[dict[str, Any]]()
    running = asyncio.ensure_future(daemon.run(told.append))
    assert isinstance(house.clock, FakeClock)
    await soon(lambda: house.clock.sleepers)  # type: ignore[attr-defined]
    await house.clock.advance(3)
    await soon(lambda: told)
    await soon(lambda: daemon.presence is not None and daemon.presence.logind is not None)
    assert daemon.presence is not None
    assert daemon.presence.logind is not None
    watched = daemon.presence.logind
    await soon(lambda: watched.holding)
    logind.sleeps(begins=True)
    await soon(logind.released)
    store.answers.set()
    await house.clock.settle(100)
    assert daemon.broker.locked
    assert daemon.unlocking.locked_by == "suspend"
    assert daemon.unlocking.reason.startswith("locked because the machine slept")
    daemon.stop()
    await running
    assert reasons(house) == ["suspend"]


@pytest.mark.needs("dbus-daemon")
async def test_what_is_locked_is_not_locked_again(tmp_path: Path, bus: PrivateBus, logind: Logind) -> None:
    """A laptop that sleeps every night writes no line for it, and keeps the reason that it has."""
    house = House(tmp_path)
    async with listening(house, logind) as started:
        await started.ok("POST", "/v1/lock", {})
        for _ in range(3):
            logind.sleeps(begins=True)
            await soon(logind.released)
            logind.sleeps(begins=False)
            await soon(lambda: len(logind.inhibitors) > 1)
            logind.inhibitors[:-1] = []
        assert (await status(started))["locked_by"] == "command"
    assert reasons(house) == ["command"]


@pytest.mark.needs("dbus-daemon")
async def test_a_lock_that_cannot_be_written_lets_the_machine_sleep(
    tmp_path: Path, bus: PrivateBus, logind: Logind
) -> None:
    """It holds in memory, and status says that a restart would open it."""
    full = [False]

    def fault(operation: str, path: Path) -> None:
        if full[0] and "locked" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    house = House(tmp_path, files=Files(fault=fault))
    async with listening(house, logind) as started:
        await granted(started)
        full[0] = True
        logind.sleeps(begins=True)
        await soon(logind.released)
        await soon(lambda: "a restart would open the store again" in started.daemon.unlocking.reason)
        found = await status(started)
        assert found["locked"]
        assert "a restart would open the store again" in found["trouble"][0]


async def test_a_machine_without_a_bus_says_so(tmp_path: Path) -> None:
    """In status and in `vaultd check`; the daemon serves all the same."""
    house = House(tmp_path, settings=BOTH)
    house.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={tmp_path / 'none'}"
    async with house.run() as started:
        await soon(lambda: started.daemon.presence is not None and started.daemon.presence.trouble)
        trouble = (await status(started))["trouble"]
        assert [each.startswith("the system bus cannot be used: No such file") for each in trouble] == [True]
        assert trouble[0].endswith("or `vault-client lock` before you leave")
        checks = (await started.ok("GET", "/v1/checks"))["checks"]
        (found,) = (each for each in checks if each["name"] == "daemon")
        assert not found["ok"]
        assert f"{found['message']}: {found['remedy']}" == trouble[0]
