"""vaultd/store/os_keyring.py: choice of the backend, one call at a time, hung calls, read-back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from vaultd.engine.seams import IdentityStore
from vaultd.errors import KeyringBusy, StoreDamaged, StoreUnavailable
from vaultd.model.secret import Secret
from vaultd.store.os_keyring import KWALLET, MACOS, SECRET_SERVICE, SERVICE, Backend, OsKeyring, allowed, translated


class MemoryBackend:
    """A keyring in memory. `hold` blocks every call until it is set; `fail` is raised; `threads` made the calls."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], str] = {}
        self.threads: list[threading.Thread] = []
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Semaphore(0)
        self.fail: Exception | None = None
        self.running = self.most = 0

    def get_password(self, service: str, username: str) -> str | None:
        self._call()
        return self.items.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._call()
        self.items[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._call()
        del self.items[service, username]

    def _call(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.threads.append(threading.current_thread())
        self.entered.release()
        self.hold.wait(20)
        self.running -= 1
        if self.fail is not None:
            raise self.fail


def keyring(clock: FakeClock, backend: Backend) -> OsKeyring:
    return OsKeyring(clock=clock, choose=lambda: ("memory", backend))


async def hung(backend: MemoryBackend, call: Callable[[], asyncio.Task[object]]) -> asyncio.Task[object]:
    """Start a call and return once it hangs in the backend."""
    backend.hold.clear()
    backend.entered = threading.Semaphore(0)
    task = call()
    await asyncio.to_thread(backend.entered.acquire, timeout=10)
    return task


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.to_thread(threading.Event().wait, 0.005)
    raise AssertionError("never came true")


def test_it_is_an_identity_store(clock: FakeClock) -> None:
    """The seam that the keeper knows."""
    store: IdentityStore = keyring(clock, MemoryBackend())

    assert store.kind == "keyring"
    assert store.backend == "keyring"
    assert store.generation == 0
    assert store.exists()
    assert not store.needs_passphrase()


async def test_round_trip(clock: FakeClock) -> None:
    """Service `vaultd:identity`, user name = item; the id of the backend is known once open."""
    backend = MemoryBackend()
    store = keyring(clock, backend)
    await store.open(None)
    await store.save("uuid-1", Secret("KEYCANARY"))

    assert store.backend == "memory"
    assert backend.items == {(SERVICE, "uuid-1"): "KEYCANARY"}
    found = await store.load("uuid-1")
    assert found is not None
    assert found.reveal() == "KEYCANARY"
    assert await store.load("uuid-2") is None
    await store.drop("uuid-1")
    await store.drop("uuid-1")
    assert backend.items == {}
    assert "CANARY" not in repr(vars(store))
    store.close()
    assert store.backend == "keyring"


# ---- which backend ----


def test_the_allow_list() -> None:
    """security.md §3.1: these classes and no other; macOS has its own."""
    assert allowed("linux") == (SECRET_SERVICE, KWALLET)
    assert allowed("darwin") == (MACOS,)
    for each in (SECRET_SERVICE, KWALLET, MACOS):
        assert not {"null", "fail", "chainer", "libsecret", "alt"} & set(each.module.split("."))


@pytest.mark.parametrize("module", ["keyring.backends.SecretService", "keyring.backends.kwallet"])
def test_the_classes_are_where_the_list_says(module: str) -> None:
    """A rename in keyring would make every desktop look as if it had no keyring."""
    (candidate,) = [each for each in allowed("linux") if each.module == module]
    code = (
        f"import importlib; print(importlib.import_module({candidate.module!r}).{candidate.name}.__mro__[-2].__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr


async def test_without_a_session_bus_there_is_no_keyring(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real choice: StoreUnavailable names the other store and how to choose it."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(StoreUnavailable) as caught:
        await OsKeyring(clock=clock).open(None)

    assert "VAULTD_STORE=file vaultd start" in caught.value.message
    assert 'backend = "file"' in caught.value.message
    assert caught.value.exit == 78


async def test_the_environment_does_not_choose(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHON_KEYRING_BACKEND=null would swallow keys in silence (security.md §0.9): it is not looked at."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(StoreUnavailable):
        await OsKeyring(clock=clock).save("a", Secret("1"))


def test_keyring_is_not_imported_before_the_first_call() -> None:
    """performance.md row 8: 10 MB and 60 ms that a file store never needs; nor is cryptography."""
    code = (
        "import sys; import vaultd.store.os_keyring, vaultd.store.sealed_file, vaultd.store.sealed_log; "
        "print(sorted({'keyring', 'cryptography', 'secretstorage', 'pydantic'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    assert ran.stdout == "[]\n"


# ---- read-back ----


async def test_a_backend_that_keeps_nothing_is_noticed(clock: FakeClock) -> None:
    """The null backend: `set` returns None, the key is gone."""

    class Null(MemoryBackend):
        def set_password(self, service: str, username: str, password: str) -> None:
            self._call()

    with pytest.raises(StoreDamaged, match="VAULTD_STORE=file"):
        await keyring(clock, Null()).save("a", Secret("1"))


async def test_a_planted_item_is_noticed(clock: FakeClock) -> None:
    """An item of equal attributes shadows ours: what reads back is not what was written, and neither value is shown."""

    class Shadowed(MemoryBackend):
        def get_password(self, service: str, username: str) -> str | None:
            self._call()
            return "PLANTEDCANARY"

    with pytest.raises(StoreDamaged) as caught:
        await keyring(clock, Shadowed()).save("a", Secret("OURCANARY"))
    assert "CANARY" not in caught.value.message


# ---- errors ----


def _error(name: str) -> Exception:
    made: Exception = type(name, (Exception,), {})("D-Bus said CANARY")
    return made


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [
        ("KeyringLocked", KeyringBusy, "locked"),
        ("LockedException", KeyringBusy, "locked"),
        ("PromptDismissedException", KeyringBusy, "locked"),
        ("InitError", StoreUnavailable, "VAULTD_STORE=file"),
        ("NoKeyringError", StoreUnavailable, "VAULTD_STORE=file"),
        ("SecretServiceNotAvailableException", StoreUnavailable, "VAULTD_STORE=file"),
        ("DBusErrorResponse", KeyringBusy, "DBusErrorResponse"),
        ("PasswordSetError", KeyringBusy, "PasswordSetError"),
    ],
)
async def test_errors_are_translated(clock: FakeClock, name: str, expected: type[Exception], said: str) -> None:
    """architecture.md §9: errors of our tree, with a way out; the keyring's own text is not repeated."""
    backend = MemoryBackend()
    backend.fail = _error(name)
    with pytest.raises(expected, match=said) as caught:
        await keyring(clock, backend).load("a")

    assert "CANARY" not in str(caught.value)


def test_the_names_are_keyrings() -> None:
    """The table above holds names: these classes bear them."""
    from keyring.errors import InitError, KeyringLocked, NoKeyringError
    from secretstorage.exceptions import LockedException, SecretServiceNotAvailableException

    assert isinstance(translated(KeyringLocked()), KeyringBusy)
    assert isinstance(translated(LockedException()), KeyringBusy)
    for each in (InitError(), NoKeyringError(), SecretServiceNotAvailableException()):
        assert isinstance(translated(each), StoreUnavailable)


# ---- threads and deadlines ----


async def test_calls_run_one_at_a_time_each_on_a_fresh_daemon_thread(clock: FakeClock) -> None:
    """architecture.md §5: a hung thread of a pool would starve the next call and block exit."""
    backend = MemoryBackend()
    store = keyring(clock, backend)
    await asyncio.gather(*(store.load(str(each)) for each in range(20)))

    assert backend.most == 1
    assert len(set(backend.threads)) == 20
    assert all(each.daemon for each in backend.threads)
    assert threading.main_thread() not in backend.threads
    assert not store.abandoned


async def test_a_hung_call_is_abandoned_at_the_deadline(clock: FakeClock) -> None:
    """30 s, not 29, then KeyringBusy, while the loop goes on; who queued behind it hears the same at once."""
    backend = MemoryBackend()
    store = keyring(clock, backend)
    first = await hung(backend, lambda: asyncio.create_task(store.load("a")))
    second = asyncio.create_task(store.load("b"))
    await clock.advance(29)
    assert not first.done()
    assert not store._calls._threads
    await clock.advance(1)

    for each in (first, second):
        with pytest.raises(KeyringBusy, match="30 seconds"):
            await each
    assert store.abandoned
    assert len(backend.threads) == 1
    backend.hold.set()
    await until(lambda: not store.abandoned)


async def test_the_breaker_keeps_calls_away_for_a_minute(clock: FakeClock) -> None:
    """For 60 s every call is refused without a thread; then one is tried, and a success closes the breaker."""
    backend = MemoryBackend()
    store = keyring(clock, backend)
    task = await hung(backend, lambda: asyncio.create_task(store.load("a")))
    await clock.advance(30)
    with pytest.raises(KeyringBusy):
        await task
    backend.hold.set()
    await until(lambda: not store.abandoned)
    calls = len(backend.threads)
    await clock.advance(59)
    with pytest.raises(KeyringBusy):
        await store.load("a")
    assert len(backend.threads) == calls

    await clock.advance(1)
    assert await store.load("a") is None
    await store.save("a", Secret("1"))


async def test_nothing_is_written_while_an_abandoned_call_may_still_write(clock: FakeClock) -> None:
    """A late write would undo a newer one; once its thread has ended, the next write reads back what is true."""
    backend = MemoryBackend()
    store = keyring(clock, backend)
    late = await hung(backend, lambda: asyncio.create_task(store.save("a", Secret("late"))))
    await clock.advance(30)
    with pytest.raises(KeyringBusy):
        await late
    await clock.advance(60)
    with pytest.raises(KeyringBusy, match="earlier call"):
        await store.save("a", Secret("newer"))
    with pytest.raises(KeyringBusy, match="earlier call"):
        await store.drop("a")

    backend.hold.set()
    await until(lambda: not store.abandoned)
    assert backend.items == {(SERVICE, "a"): "late"}  # it did land: only a read tells
    await store.save("a", Secret("newer"))
    assert backend.items == {(SERVICE, "a"): "newer"}


async def test_a_caller_who_leaves_does_not_hurry_the_next_one_in(clock: FakeClock) -> None:
    """The cancelled call's thread is still at it: the next call waits its turn."""
    backend = MemoryBackend()
    store = keyring(clock, backend)
    leaving = await hung(backend, lambda: asyncio.create_task(store.load("a")))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    next_one = asyncio.create_task(store.load("b"))
    await clock.settle()
    assert len(backend.threads) == 1

    backend.hold.set()
    assert await next_one is None
    assert backend.most == 1
    assert not store.abandoned


async def test_the_deadline_counts_from_a_calls_own_start(clock: FakeClock) -> None:
    """Waiting for one's turn is not the keyring's fault."""
    backend = MemoryBackend()
    store = OsKeyring(clock=clock, choose=lambda: ("memory", backend), deadline=timedelta(seconds=10))
    first = await hung(backend, lambda: asyncio.create_task(store.load("a")))
    second = asyncio.create_task(store.load("b"))
    await clock.advance(9)
    backend.hold.set()

    assert await first is None
    assert await second is None


def test_a_loop_that_ends_leaves_the_thread_marked() -> None:
    """Stop while a call hangs: `abandoned` tells the daemon to leave by os._exit."""
    backend = MemoryBackend()
    store = keyring(FakeClock(), backend)

    async def main() -> None:
        await hung(backend, lambda: asyncio.create_task(store.load("a")))

    asyncio.run(main())
    assert store.abandoned
    backend.hold.set()
    backend.threads[0].join(10)
    assert not store.abandoned
