"""RemoteKeeper: calls over the wire, cancellation, deadlines, and what the end of the keeper's process means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.keeper.rooms import ENDPOINT, SERIAL, Home, add_franklin, from_handle, handle_of, session_of, with_code
from tests.keeper.wired import NoOutlook, Wired
from vaultd.engine.seams import Head, Note, Opened
from vaultd.errors import CodeSpent, KeeperEnded, Locked, Unwritable, VaultdError
from vaultd.keeper import life, remote
from vaultd.keeper.life import DEATHS
from vaultd.keeper.remote import RemoteKeeper
from vaultd.model.secret import Secret


@pytest.fixture
async def wired() -> AsyncIterator[Wired]:
    made = Wired()
    yield made
    await made.close()


@pytest.fixture
def home(tmp_path: Path, clock: FakeClock, wired: Wired) -> Home:
    clock.turns = 80
    return Home(tmp_path, clock, wired=wired)


async def franklins(home: Home) -> RemoteKeeper:
    keeper = await home.with_franklin()
    assert isinstance(keeper, RemoteKeeper)
    return keeper


async def turned(holds: Callable[[], object]) -> None:
    """Until it is so; only turns of the loop pass."""
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


class Watching:
    """The daemon's side: what it does after each death."""

    def __init__(self, keeper: RemoteKeeper, *, reopen: bool = True) -> None:
        self.told: list[str] = []
        self._keeper = keeper
        self._reopen = reopen
        self.gate: asyncio.Event | None = None
        self.task = asyncio.ensure_future(keeper.watch(self._again))

    async def _again(self, how: str) -> None:
        self.told.append(how)
        if self.gate is not None:
            await self.gate.wait()
        if self._reopen:
            await self._keeper.open()

    def heard(self, number: int) -> bool:
        return len(self.told) == number or self.task.done()

    async def over(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


def _asked(keeper: RemoteKeeper, wired: Wired, number: int) -> bool:
    """The keeper's process of that number is there, and was asked something."""
    return len(wired.children) == number and bool(keeper._calls)


async def failed(operation: Awaitable[object]) -> VaultdError:
    try:
        await operation
    except VaultdError as exc:
        return exc
    raise AssertionError("it did not fail")


# ---- while it lives ----


async def test_what_is_asked_without_waiting_is_known_when_the_call_returns(home: Home, wired: Wired) -> None:
    """`list`, `expects` and the skew are there in the turn in which the call that changed them returns."""
    keeper, _ = await home.opened()
    assert isinstance(keeper, RemoteKeeper)
    assert isinstance(wired.outlook, NoOutlook)
    assert (keeper.list(), keeper.skew()) == ((), None)

    wired.outlook.skewed = 3.0
    home.sts.hold()  # what was told when the call came is not what it changed
    adding = asyncio.ensure_future(add_franklin(keeper))
    await turned(lambda: home.sts.calls)
    home.sts.release()
    identity = await adding
    assert (keeper.list(), keeper.skew()) == ((identity,), 3.0)
    await keeper.remove("franklin")
    assert keeper.list() == ()


async def test_calls_run_side_by_side(home: Home) -> None:
    """A call that AWS lets wait holds no other one up."""
    keeper = await franklins(home)
    home.sts.hold()
    slow = asyncio.ensure_future(keeper.mint(with_code()))
    await turned(lambda: home.sts.calls)

    await keeper.note(Note("limit", "c" * 64, seconds=60))

    assert not slow.done()
    home.sts.release()
    assert handle_of(await slow).mfa_serial == SERIAL


async def test_a_cancelled_call_is_cancelled_below(home: Home, wired: Wired) -> None:
    """Who gives up up here stops the work down there; nothing is left of the call on either side."""
    keeper = await franklins(home)
    home.sts.hold()
    slow = asyncio.ensure_future(keeper.mint(from_handle(None)))
    await turned(lambda: home.sts.calls)
    assert len(wired.child._served._tasks) == 1

    slow.cancel()
    await asyncio.wait({slow})

    await turned(lambda: not wired.child._served._tasks)
    assert len(keeper._calls) == 0
    assert slow.cancelled()


async def test_an_error_that_is_not_ours_is_told_without_detail(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """A bug below is VaultdError above, with the traceback in the log and its text nowhere else."""
    keeper = await franklins(home)
    home.sts.fail("assume_role", ValueError("canary-in-a-bug"))  # type: ignore[arg-type]

    error = await failed(keeper.mint(from_handle(None)))

    assert type(error) is VaultdError
    assert error.message == "vaultd's keeper made an error: type `vaultd logs` for the traceback."
    assert "fail call name=mint" in caplog.text


async def test_nothing_lands_after_a_lock(home: Home) -> None:
    """A mint and an open that the keeper had finished, but whose replies come after `close`, are Locked up here."""
    keeper = await franklins(home)
    home.sts.hold()
    minting = asyncio.ensure_future(keeper.mint(from_handle(None)))
    opening = asyncio.ensure_future(keeper.open())
    await turned(lambda: home.sts.calls)
    home.sts.release()

    closing = asyncio.ensure_future(keeper.close(Head(1, "a" * 64)))
    await closing

    assert isinstance(await failed(minting), Locked)
    assert (await opening).locked
    again = asyncio.ensure_future(keeper.open(unlock=True))
    await asyncio.sleep(0)
    await keeper.close(None)
    assert (await again).locked


async def test_epochs_grow_with_every_close_over_every_process(home: Home, wired: Wired) -> None:
    """`Opened.epoch` is this side's own count: a new process begins at nought."""
    keeper = await franklins(home)
    assert await keeper.close(None) == 1
    wired.die()
    await turned(lambda: len(wired.children) == 2)

    assert (await keeper.open(unlock=True)).epoch == 1
    assert await keeper.close(None, lock=False) == 2


async def test_a_lock_is_done_though_its_caller_gives_up(home: Home) -> None:
    """Said is said: who locked may leave (an interrupted command), and neither keys nor marker depend on him."""
    keeper = await franklins(home)
    lock = asyncio.ensure_future(keeper.close(None))
    await asyncio.sleep(0)
    lock.cancel()
    await turned(home.marker.exists)

    assert home.within(keeper)._store is None
    assert (await keeper.open()).locked


async def test_an_unlock_is_not_said_again_after_a_lock(home: Home, wired: Wired) -> None:
    """The keeper dies of an unlock that a lock has overtaken: the next one keeps the marker, and opens nothing."""
    keeper = await franklins(home)
    await keeper.close(None)
    assert home.keyring is not None
    opens = home.keyring.open
    held = asyncio.Event()

    async def slow(*args: object, **options: object) -> None:
        held.set()
        await asyncio.Event().wait()

    home.keyring.open = slow  # type: ignore[method-assign]
    unlock = asyncio.ensure_future(keeper.open(unlock=True))
    await held.wait()
    await keeper.close(None)
    home.keyring.open = opens  # type: ignore[method-assign]
    wired.die()
    opened = await unlock

    assert opened.locked
    assert home.marker.exists()
    assert home.within(keeper)._store is None
    assert not (await keeper.open(unlock=True)).locked, "control: a person's next one opens it"
    assert not home.marker.exists()


# ---- death ----


async def test_what_is_under_way_ends_typed_and_its_code_counts_as_sent(home: Home, wired: Wired) -> None:
    """In-flight calls are KeeperEnded, with code_sent for those that carried one; the next one works."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    home.sts.hold()
    coded = asyncio.ensure_future(keeper.mint(with_code()))
    plain = asyncio.ensure_future(keeper.mint(from_handle(None)))
    await turned(lambda: len(home.sts.calls) == 2)

    wired.die()
    errors = [await failed(coded), await failed(plain)]

    assert [type(each) for each in errors] == [KeeperEnded, KeeperEnded]
    assert [each.details["code_sent"] for each in errors] == [True, False]
    assert "was killed by SIGKILL, and another one has been started" in errors[0].message
    home.sts.release()
    assert isinstance(await failed(keeper.mint(with_code())), CodeSpent)
    assert session_of(await keeper.mint(from_handle(None))).servable(home.clock.now())
    assert watching.told == ["killed by SIGKILL"]
    await watching.over()


async def test_an_mfa_session_survives(home: Home, wired: Wired) -> None:
    """It was sealed before anyone used it, so the next process has it: no code is asked for again."""
    keeper = await franklins(home)
    handle = handle_of(await keeper.mint(with_code()))
    watching = Watching(keeper)
    wired.die()
    await turned(lambda: watching.told)

    session_of(await keeper.mint(from_handle(handle)))
    await watching.over()


async def test_notes_and_opens_are_said_again(home: Home, wired: Wired) -> None:
    """What does no harm twice is said to the next process by itself: nothing is lost."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    noting = asyncio.ensure_future(keeper.note(Note("limit", "c" * 64, seconds=7200)))
    await asyncio.sleep(0)
    wired.die()
    await noting
    await watching.over()

    await keeper.close(None, lock=False)
    opening = asyncio.ensure_future(keeper.open())
    await asyncio.sleep(0)
    wired.die()
    opened = await opening

    assert [each.seconds for each in opened.notes if each.kind == "limit"] == [7200]


async def test_calls_wait_until_the_next_one_is_open(home: Home, wired: Wired) -> None:
    """Between a death and the reopening nobody is told Locked for what will work in a moment."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    watching.gate = asyncio.Event()
    wired.die()
    await turned(lambda: watching.told)

    minting = asyncio.ensure_future(keeper.mint(from_handle(None)))
    await home.clock.settle()
    assert not minting.done()

    watching.gate.set()
    session_of(await minting)
    await watching.over()


async def test_nobody_waits_for_ever(home: Home, wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not open again holds a call for its patience, and then it is told so; retryable."""
    monkeypatch.setattr(life, "REOPEN_SECONDS", 0.0)
    keeper = await franklins(home)
    watching = Watching(keeper)
    watching.gate = asyncio.Event()
    wired.die()
    await turned(lambda: watching.told)

    error = await failed(keeper.mint(from_handle(None)))

    assert isinstance(error, KeeperEnded)
    assert "its store is not open yet: try again" in error.message
    await watching.over()


async def test_an_index_that_was_known_stays_known(home: Home, wired: Wired) -> None:
    """Until the next process has read it, the identities are what the last one told: no plan breaks meanwhile."""
    keeper = await franklins(home)
    before = keeper.list()
    wired.die()
    await turned(lambda: len(wired.children) == 2)
    await home.clock.settle()

    assert keeper.list() == before != ()


async def test_a_lock_that_the_keeper_dies_of_is_written_by_the_next(home: Home, wired: Wired) -> None:
    """The marker is there when `close` returns: secrets are gone with the process, a restart stays locked."""
    keeper = await franklins(home)
    closing = asyncio.ensure_future(keeper.close(None))
    await asyncio.sleep(0)
    wired.die()

    await closing

    assert home.marker.exists()
    assert (await keeper.open()).locked


async def test_a_stop_that_the_keeper_dies_of_is_a_stop(home: Home, wired: Wired) -> None:
    """Without a marker to write, nothing is left to do; no process is started at the end of `end`."""
    keeper = await franklins(home)
    closing = asyncio.ensure_future(keeper.close(None, lock=False))
    await asyncio.sleep(0)
    wired.die()
    await closing

    await keeper.end()
    started = len(wired.children)
    assert isinstance(await failed(keeper.mint(from_handle(None))), KeeperEnded)
    await home.clock.settle()
    assert (len(wired.children), keeper.residence().pid) == (started, None)
    assert not home.marker.exists()


async def test_one_that_does_not_answer_is_killed(home: Home, wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call past its deadline means a hung process: it is killed, the call is told, and another one takes over."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    monkeypatch.setitem(remote.DEADLINES, "mint", 0.01)
    home.sts.hold()

    error = await failed(keeper.mint(with_code()))

    assert isinstance(error, KeeperEnded)
    assert error.details["code_sent"]
    assert wired.children[0].kills
    await turned(lambda: watching.told)
    home.sts.release()
    monkeypatch.undo()
    session_of(await keeper.mint(from_handle(None)))
    await watching.over()


@pytest.mark.parametrize("deaf", [True, False], ids=["hung", "control-alive"])
async def test_one_that_hangs_is_found_though_its_callers_give_up(
    home: Home, wired: Wired, monkeypatch: pytest.MonkeyPatch, *, deaf: bool
) -> None:
    """The engine gives up after 10 s, before any deadline here: a process that then says nothing is killed. One that
    waits for AWS only says that it is there, and lives.
    """
    if deaf:
        monkeypatch.setattr(life, "HUNG_SECONDS", 0.0)
    keeper = await franklins(home)
    home.sts.hold()
    first = wired.child
    first.deaf = deaf
    minting = asyncio.ensure_future(keeper.mint(from_handle(None)))
    await home.clock.settle()
    minting.cancel()
    await asyncio.wait({minting})
    await turned(lambda: not keeper._life._proving)
    await home.clock.settle()

    assert bool(first.kills) == deaf
    assert len(wired.children) == (2 if deaf else 1)


async def test_one_that_talks_nonsense_is_replaced(home: Home, wired: Wired) -> None:
    """Bytes that are no frame, and replies that are none of the declared: killed, and another one started."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    wired.child.nonsense()
    await turned(lambda: len(wired.children) == 2)
    assert watching.told == [] or "nonsense" in watching.told[0]
    await turned(lambda: watching.told)

    wired.child._served._keeper.mint = _odd  # type: ignore[method-assign, assignment]
    error = await failed(keeper.mint(from_handle(None)))

    assert "talked nonsense" in error.message
    await turned(lambda: len(wired.children) == 3)
    await watching.over()


async def _odd(*, order: object) -> object:
    return None if order is None else "surprise"


async def test_five_deaths_in_a_minute_end_it(home: Home, wired: Wired) -> None:
    """It is lost then: every call says so, `watch` raises the sentence that names the reason, nothing is started."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    for number in range(1, DEATHS + 1):
        await keeper.open()
        wired.die("killed by SIGSEGV")
        await turned(partial(watching.heard, number))

    await asyncio.wait({watching.task}, timeout=5)
    error = watching.task.exception()
    assert isinstance(error, VaultdError)
    assert error.message == (
        "vaultd's keeper process ended 5 times within a minute, at last killed by SIGSEGV: type `vaultd logs`, then "
        "`vaultd start`"
    )
    assert (await failed(keeper.mint(from_handle(None)))).message == error.message
    assert len(wired.children) == DEATHS


async def test_deaths_that_are_far_between_do_not_add_up(
    home: Home, wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: five deaths, but not within a minute, are survived."""
    monkeypatch.setattr(life, "DEATHS_SECONDS", 0.0)
    keeper = await franklins(home)
    watching = Watching(keeper)
    for number in range(1, DEATHS + 3):
        wired.die()
        await turned(partial(watching.heard, number))

    session_of(await keeper.mint(from_handle(None)))
    await watching.over()


async def test_one_that_cannot_be_started_again_ends_it(home: Home, wired: Wired) -> None:
    """No memory for another process: lost at once, with the reason."""
    keeper = await franklins(home)
    watching = Watching(keeper)
    wired.fails = OSError(12, "Cannot allocate memory")
    wired.die()

    await asyncio.wait({watching.task}, timeout=5)
    error = watching.task.exception()
    assert isinstance(error, VaultdError)
    assert error.message.endswith("and none can be started (Cannot allocate memory): type `vaultd restart`")


async def test_the_keeper_tells_what_it_logs(home: Home, wired: Wired) -> None:
    """A record of the keeper's process is handed to the daemon's one log: level, name, text, frames."""
    await franklins(home)
    said = {"level": 30, "name": "vaultd.keeper", "text": "skip it", "trace": "", "!": "Said"}
    wired.child.say({"said": said})
    await turned(lambda: wired.said)
    assert (wired.said[0].level, wired.said[0].text) == (30, "skip it")


async def test_a_passphrase_is_given_again_to_the_process_that_comes_next(home: Home, wired: Wired) -> None:
    """`unlock` with a typed passphrase while the keeper dies: the same call opens the next one."""
    home.keyring = None
    keeper = home.keeper()
    unlocking: asyncio.Future[Opened] = asyncio.ensure_future(
        keeper.open(passphrase=Secret("correct horse"), unlock=True)
    )
    await asyncio.sleep(0)
    wired.die()
    assert not (await unlocking).locked
    assert len(wired.children) == 2


async def test_a_lock_that_nobody_can_write_says_so(home: Home, wired: Wired) -> None:
    """Every keeper dies of it: it is locked, but a restart would open the store, so Unwritable."""
    keeper = await franklins(home)
    closing = asyncio.ensure_future(keeper.close(None))
    for number in range(1, DEATHS + 1):
        await turned(partial(_asked, keeper, wired, number))
        wired.die()

    assert isinstance(await failed(closing), Unwritable)
    assert not home.marker.exists()


async def test_control_the_probe_and_detect_travel(home: Home) -> None:
    """Custody's other calls reach AWS and bring their answers."""
    keeper = await franklins(home)
    assert await keeper.probe("franklin", endpoint=ENDPOINT) == "arn:aws:iam::123456789012:user/franklin"
    assert list(await keeper.detect("franklin", endpoint=ENDPOINT)) == [SERIAL]
    assert await keeper.keyring() == "secret-service"
    await keeper.warm()
