"""What logind says, as Presence takes it: sleeps, screens, other people's sessions, and every way of losing logind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from jeepney import DBusAddress  # type: ignore[import-untyped]

from tests.fakes import FakeClock
from tests.presence.logind import MANAGER, SESSION, Logind, PrivateBus, Session, lie, raw_signal, shout
from tests.web.control import soon
from vaultd.host.logind import Why
from vaultd.host.presence import Presence

pytestmark = pytest.mark.needs("dbus-daemon")


@dataclass
class Watched:
    """A Presence at work. `locks`: why, each time it locked; `gate`: what its lock waits for; `slept`: one number."""

    presence: Presence
    clock: FakeClock
    gate: asyncio.Event
    slept: list[float]
    locks: list[Why] = field(default_factory=list)
    acknowledged: list[Why] = field(default_factory=list)

    @property
    def holding(self) -> bool:
        assert self.presence.logind is not None
        return self.presence.logind.holding

    @property
    def unique(self) -> str:
        """Its name on the bus."""
        assert self.presence.logind is not None
        return self.presence.logind._bus.name

    async def trouble(self) -> str:
        await soon(lambda: self.presence.trouble)
        (said,) = self.presence.trouble
        return said


@asynccontextmanager
async def watching(address: str, *, suspend: bool = True, screen: bool = True) -> AsyncIterator[Watched]:
    clock, gate, asleep = FakeClock(), asyncio.Event(), [0.0]
    gate.set()

    async def lock(why: Why) -> None:
        watched.locks.append(why)
        await gate.wait()
        watched.acknowledged.append(why)

    presence = Presence(
        lock=lock,
        sleep=clock.sleep,
        suspend=suspend,
        screen=screen,
        address=address,
        slept=lambda: asleep[0],
        platform="linux",
    )
    watched = Watched(presence, clock, gate, asleep)
    running = asyncio.ensure_future(presence.run())
    try:
        yield watched
        assert not running.done(), "it lives through everything"
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def settled(watched: Watched, logind: Logind, *, asked: int = 1) -> None:
    """It has asked for everything that it asks for at the start."""
    await soon(lambda: sum(method == "ListSessions" for method, _ in logind.asked) >= asked)
    await soon(lambda: watched.holding)
    await soon(lambda: watched.presence.logind is not None and watched.presence.logind._locked is not None)


async def back(watched: Watched, logind: Logind) -> None:
    """Let its clock go on until it has found a bus or a logind again, and asked it for everything."""
    async with asyncio.timeout(20):
        while watched.presence.trouble or not watched.holding:
            await watched.clock.advance(1)
            for _ in range(50):  # what it does meanwhile is real: a jump of the clock would end it
                await asyncio.sleep(0.001)
    await settled(watched, logind)


async def quiet(watched: Watched) -> None:
    """Whatever the bus still had for it was taken: a call goes there and back."""
    logind = watched.presence.logind
    assert logind is not None
    with contextlib.suppress(Exception):
        await logind._own_session()
    await watched.clock.settle()


# ---- sleep ----


async def test_a_sleep_waits_for_the_acknowledgement(bus: PrivateBus, logind: Logind) -> None:
    """Inhibit("sleep", …, "delay") at the start; let go after the lock is acknowledged, not before; then taken anew."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        what, who, why, mode = dict(logind.asked)["Inhibit"]
        assert (what, who, mode) == ("sleep", "vaultd", "delay")
        assert why
        assert not logind.released(), "control: it is held"
        watched.gate.clear()
        logind.sleeps(begins=True)
        await soon(lambda: watched.locks)
        await quiet(watched)
        assert not logind.released(), "the keeper has not said that all is forgotten"
        assert watched.acknowledged == []
        watched.gate.set()
        await soon(logind.released)
        assert watched.acknowledged == ["suspend"]
        logind.sleeps(begins=False)
        await soon(lambda: len(logind.inhibitors) == 2 and watched.holding)
        assert not logind.released()
        assert watched.locks == ["suspend"]
        logind.sleeps(begins=True)
        await soon(logind.released)
    assert watched.acknowledged == ["suspend", "suspend"]


async def test_the_inhibitor_goes_with_us(bus: PrivateBus, logind: Logind) -> None:
    """A daemon that ends holds no sleep up."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        assert not logind.released()
    await soon(logind.released)


async def test_a_sleep_that_was_not_announced_locks_after_it(bus: PrivateBus, logind: Logind) -> None:
    """Logind's end of a sleep without its beginning (we were not there), and the clocks alone, within 5 s of waking."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        logind.sleeps(begins=False)
        await soon(lambda: watched.locks == ["suspend"])
        await watched.clock.advance(60)
        assert watched.locks == ["suspend"], "control: nothing slept"
        watched.slept[0] += 3600
        await watched.clock.advance(5)
        assert watched.locks == ["suspend", "suspend"]


async def test_an_announced_sleep_locks_once(bus: PrivateBus, logind: Logind) -> None:
    """Who has unlocked after waking is not locked out again by the clocks."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        logind.sleeps(begins=True)
        await soon(logind.released)
        watched.slept[0] += 3600
        logind.sleeps(begins=False)
        await soon(lambda: watched.holding)
        await watched.clock.advance(60)
        assert watched.locks == ["suspend"]


# ---- screens ----


@pytest.mark.parametrize("say", [Logind.locks, Logind.hints], ids=["Lock", "LockedHint"])
async def test_a_screen_of_this_user_locks(bus: PrivateBus, logind: Logind, say: Callable[[Logind], None]) -> None:
    """In no session (a user service) each of this user's counts; Unlock and a hint taken back do nothing."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        say(logind)
        await soon(lambda: watched.locks)
        logind.locks(signal="Unlock")
        logind.hints(locked=False)
        await quiet(watched)
        assert watched.locks == ["screen"]
        say(logind)
        await soon(lambda: watched.locks == ["screen", "screen"])


@pytest.mark.parametrize("say", [Logind.locks, Logind.hints], ids=["Lock", "LockedHint"])
async def test_other_sessions_do_not_count(bus: PrivateBus, logind: Logind, say: Callable[[Logind, str], None]) -> None:
    """Another user's, and of this user's the ones that the daemon does not run in."""
    logind.sessions |= {"mine": Session(), "theirs": Session(uid=os.getuid() + 1)}
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        say(logind, "theirs")
        await quiet(watched)
        await quiet(watched)
        assert watched.locks == []
        say(logind, "mine")
        await soon(lambda: watched.locks == ["screen"])
    logind.own = "1"
    logind.asked.clear()
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        logind.hints("mine", locked=False)
        say(logind, "mine")
        await quiet(watched)
        assert watched.locks == []
        say(logind, "1")
        await soon(lambda: watched.locks == ["screen"])


async def test_once_our_session_has_ended_the_others_count(bus: PrivateBus, logind: Logind) -> None:
    """A daemon outlives the login that started it; no screen of that login is ever locked again."""
    logind.sessions["ssh"] = Session()
    logind.own = "ssh"
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        del logind.sessions["ssh"]
        logind.own = None
        logind.changes()
        await soon(lambda: sum(method == "ListSessions" for method, _ in logind.asked) >= 2)
        await quiet(watched)
        logind.locks("1")
        await soon(lambda: watched.locks == ["screen"])


async def test_a_new_session_is_known_by_its_user(bus: PrivateBus, logind: Logind) -> None:
    """Not in the list that we have: asked for. What cannot be judged, counts."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        logind.sessions |= {"new": Session(), "theirs": Session(uid=os.getuid() + 1)}
        logind.locks("theirs")
        await quiet(watched)
        await quiet(watched)
        assert watched.locks == []
        logind.locks("new")
        await soon(lambda: watched.locks == ["screen"])
        logind.locks("gone")
        await soon(lambda: watched.locks == ["screen", "screen"])


async def test_only_logind_says_so(bus: PrivateBus, logind: Logind) -> None:
    """A signal that another process sends to us alone passes every match rule; the sender's name does not."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        session = DBusAddress(Session().path("1"), interface=SESSION)
        lie(bus.address, watched.unique, MANAGER, "PrepareForSleep", "b", (True,))
        lie(bus.address, watched.unique, session, "Lock", "", ())
        owner = DBusAddress("/org/freedesktop/DBus", interface="org.freedesktop.DBus")
        lie(bus.address, watched.unique, owner, "NameOwnerChanged", "sss", ("org.freedesktop.login1", "", ":1.99"))
        await quiet(watched)
        assert (watched.locks, watched.holding) == ([], True)
        logind.locks()
        await soon(lambda: watched.locks == ["screen"])


#: An index of a descriptor that was not sent; half a million empty strings.
GARBLED = ("h", (9).to_bytes(4, "little"))
LARGE = ("as", (3_999_997).to_bytes(4, "little") + bytes(3_999_997))


@pytest.mark.parametrize(("signature", "body"), [GARBLED, LARGE], ids=["garbled", "large"])
async def test_strangers_take_neither_bus_nor_memory(
    bus: PrivateBus, logind: Logind, signature: str, body: bytes
) -> None:
    """Any user may send us what he likes. It is not read, so it costs neither the connection (and with it the
    inhibitor) nor memory nor the loop's time. Control: of logind's own the garbled one does cost the connection.
    """
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        message = raw_signal(watched.unique, signature, body)
        tracemalloc.start()
        try:
            shout(bus.address, message)
            await quiet(watched)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
        assert (watched.presence.trouble, watched.holding, watched.locks) == ((), True, [])
        logind.locks()
        await soon(lambda: watched.locks == ["screen"])
        if (signature, body) == GARBLED:
            logind.shouts(message)
            assert "it sent what cannot be read" in await watched.trouble()


async def test_descriptors_of_strangers_are_closed(bus: PrivateBus, logind: Logind) -> None:
    """Sent to be used up: they are given back at once."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(20):
            lie(bus.address, watched.unique, MANAGER, "PrepareForSleep", "ah", ([0] * 8,))
        await quiet(watched)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        assert watched.holding


async def test_what_is_not_asked_for_is_not_heard(bus: PrivateBus, logind: Logind) -> None:
    """Each setting alone: no inhibitor for a screen, no lock of a screen for a sleep."""
    async with watching(bus.address, screen=False) as watched:
        await soon(lambda: watched.holding)
        logind.locks()
        logind.hints()
        await quiet(watched)
        assert watched.locks == []
    logind.inhibitors.clear()
    async with watching(bus.address, suspend=False) as watched:
        await soon(lambda: watched.presence.logind is not None and watched.presence.logind._locked is not None)
        logind.sleeps(begins=True)
        await quiet(watched)
        assert (watched.locks, logind.inhibitors) == ([], [])


# ---- losing it ----


async def test_no_bus_is_told_and_tried_again(place: Path) -> None:
    """A container, a WSL without systemd: a notice that ends in what to type; it is there once a bus is."""
    bus = PrivateBus(place)
    async with watching(bus.address) as watched:
        said = await watched.trouble()
        assert said == (
            "the system bus cannot be used: No such file or directory, so keys are forgotten only after the machine "
            "woke and a locked screen locks nothing: type `loginctl` to see what it says, or `vault-client lock` "
            "before you leave"
        )
        bus.start()
        logind = Logind(bus.address)
        logind.start()
        try:
            await back(watched, logind)
            logind.sleeps(begins=True)
            await soon(lambda: watched.locks)
        finally:
            logind.stop()
            bus.kill()


async def test_a_bus_that_ends_is_told_and_found_again(bus: PrivateBus, logind: Logind) -> None:
    """A screen that was locked meanwhile counts when it is back."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        bus.kill()  # first: the bus would tell that logind has ended
        logind.stop()
        assert (await watched.trouble()).startswith("the system bus cannot be used: it closed the connection, so ")
        assert not watched.holding
        bus.start()
        again = Logind(bus.address, sessions={"1": Session(hint=True)})
        again.start()
        try:
            await back(watched, again)
            assert watched.locks == ["screen"]
        finally:
            again.stop()


async def test_a_screen_that_is_locked_at_the_start_is_left(bus: PrivateBus, logind: Logind) -> None:
    """Somebody started it all the same: over ssh, for one."""
    logind.sessions["1"].hint = True
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        await watched.clock.advance(60)
        assert watched.locks == []


async def test_a_logind_that_starts_anew_is_asked_anew(bus: PrivateBus, logind: Logind) -> None:
    """The name on the bus has a new owner: its inhibitor is taken, and its word counts."""
    async with watching(bus.address) as watched:
        await settled(watched, logind)
        logind.stop()
        assert (await watched.trouble()).startswith("systemd-logind has ended, so ")
        another = Logind(bus.address)
        another.start()
        try:
            await settled(watched, another)
            await soon(lambda: not watched.presence.trouble)
            another.sleeps(begins=True)
            await soon(another.released)
            assert watched.acknowledged == ["suspend"]
        finally:
            another.stop()


async def test_a_logind_that_never_answers_holds_nobody_up(bus: PrivateBus, logind: Logind) -> None:
    """A notice after 5 s; its signals are taken all the same, and it is asked again until it answers."""
    logind.deaf = True
    async with watching(bus.address) as watched:
        await soon(lambda: logind.asked)
        assert watched.presence.trouble == ()
        await watched.clock.advance(5)
        assert (await watched.trouble()).startswith("systemd-logind cannot be used: it does not answer, so ")
        logind.sleeps(begins=True)
        await soon(lambda: watched.locks == ["suspend"])
        logind.locks()
        await soon(lambda: logind.asked[-1][0] == "Get")  # whose session it is: not answered, so it counts
        await watched.clock.advance(5)
        await soon(lambda: watched.locks == ["suspend", "screen"])
        logind.deaf = False
        logind.sleeps(begins=False)
        await settled(watched, logind)
        await soon(lambda: not watched.presence.trouble)


async def test_an_inhibitor_that_comes_too_late_is_let_go(bus: PrivateBus, logind: Logind) -> None:
    """Nobody waits for that answer any more: were it kept, every sleep would be held up for as long as logind bears."""
    logind.deaf = True
    async with watching(bus.address, screen=False) as watched:
        await soon(lambda: logind.unanswered)
        await watched.clock.advance(5)
        assert (await watched.trouble()).startswith("systemd-logind cannot be used: it does not answer, so ")
        logind.catches_up()
        await soon(lambda: logind.inhibitors and logind.released(0))
        assert not watched.holding
        await watched.clock.advance(30)
        await soon(lambda: watched.holding and not watched.presence.trouble)
        assert not logind.released(), "the one that it was asked for anew is held"


async def test_a_refused_inhibitor_is_told(bus: PrivateBus, logind: Logind) -> None:
    """Without one the machine does not wait for us; its signal locks all the same."""
    logind.refuses.add("Inhibit")
    async with watching(bus.address) as watched:
        assert (await watched.trouble()).startswith("systemd-logind cannot be used: it refused, so ")
        logind.sleeps(begins=True)
        await soon(lambda: watched.acknowledged == ["suspend"])


NONSENSE = b"OK 1234\r\nAGREE_UNIX_FD\r\nl\x02" + bytes(4000)


@pytest.mark.parametrize("says", [b"", b"REJECTED\r\n", NONSENSE, b"l" * 9000])
async def test_what_is_no_bus_holds_nobody_up(place: Path, says: bytes) -> None:
    """A socket that takes us and is silent, refuses, or talks nonsense: a notice, and another try."""
    tries = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        with contextlib.suppress(ConnectionError):
            await reader.read(100)
            for line in says.splitlines(keepends=True):
                writer.write(line)
                await writer.drain()
                await reader.read(100)
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, place / "system_bus")
    async with server, watching(f"unix:path={place / 'system_bus'}") as watched:
        await soon(lambda: tries)
        await watched.clock.advance(5)
        assert (await watched.trouble()).startswith("the system bus cannot be used: ")
        await watched.clock.advance(30)
        await soon(lambda: tries > 1)
    assert watched.locks == []


async def test_an_address_of_another_kind_is_told() -> None:
    """tcp: is none for us."""
    async with watching("tcp:host=127.0.0.1,port=1") as watched:
        assert "its address is not that of a unix socket" in await watched.trouble()


async def test_no_descriptor_is_left(bus: PrivateBus, logind: Logind) -> None:
    """Twenty sleeps and a lost bus: as many descriptors as before."""

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    async with watching(bus.address) as watched:
        await settled(watched, logind)
        before = count() - len(logind.inhibitors)
        for turn in range(20):
            logind.sleeps(begins=True)
            await soon(logind.released)
            logind.sleeps(begins=False)
            await soon(lambda turn=turn: len(logind.inhibitors) == turn + 2 and watched.holding)  # type: ignore[misc]
        assert count() - len(logind.inhibitors) == before


# ---- macOS, as far as it runs here ----


async def test_macos_polls_the_screen() -> None:
    """Every 2 s, in a thread; from open to locked counts, once. The look itself was never run on a Mac."""
    clock, locks, locked = FakeClock(), list[Why](), [True]

    async def lock(why: Why) -> None:
        locks.append(why)

    presence = Presence(
        lock=lock, sleep=clock.sleep, suspend=False, screen=True, platform="darwin", screen_locked=lambda: locked[0]
    )
    running = asyncio.ensure_future(presence.run())
    await soon(lambda: clock.sleepers)
    for now in (False, True, True):
        locked[0] = now
        await clock.advance(2)
        await soon(lambda: clock.sleepers)
    assert (locks, presence.trouble, presence.logind) == (["screen"], (), None)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
