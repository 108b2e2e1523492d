"""The keeper in a process of its own: hardened first, no listener, one socketpair, no aiohttp.

Rules (architecture.md §3, security.md §2.2 items 18 to 20, 29)
- Everything it needs comes as the first frame; nothing is on argv or in environ, which the daemon cut for it.
- The end of the socketpair is the end of the process, at once: nobody is left to serve. SIGINT and SIGTERM are for the
  daemon, which closes the keeper last (architecture.md §6.7); so is SIGUSR1, by which the daemon locks: a keeper that
  it ended would be opened again.
- No store is opened while an older keeper of this home still lives (`keeper.lock`): one writer of the sealed log.
- Calls run side by side; each reply is sent after the `State` that it changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, Protocol

from vaultd import __version__, logs
from vaultd.engine.seams import Console, Custody, Importer, Keeper, Outlook
from vaultd.errors import VaultdError
from vaultd.files import Files
from vaultd.flock import Lock
from vaultd.host import hardening
from vaultd.keeper import wire
from vaultd.keeper.line import Line
from vaultd.layout import Layout

#: How long an older keeper may take to end; the daemon has killed it by then.
LOCK_SECONDS = 10.0
_BROKE = "vaultd's keeper made an error: type `vaultd logs` for the traceback."

log = logging.getLogger(__name__)


class Whole(Keeper, Custody, Importer, Protocol):
    """DaemonKeeper, as far as it is served here."""

    @property
    def expects(self) -> Any:
        """The kind of store that `open` tries first."""


class Outside(Outlook, Console, Protocol):
    """`lifecycle.keeping.Here`, as far as it is served here: the rest of what a keeper asks AWS."""


def main(descriptor: int) -> None:
    """The whole process; never returns."""
    hardened = hardening.harden()
    hardening.die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    asyncio.run(_life(sock, hardened))


async def _life(sock: socket.socket, hardened: hardening.Hardened) -> NoReturn:
    """Left from within: asyncio.run waits for its threads, and one may hang in a keyring or in a call to AWS."""
    try:
        await _serve(sock, _setup(sock), hardened)
    except Exception as exc:  # noqa: BLE001 - there is no stderr: its last words go up, or nowhere
        _last_words(sock, exc)
        os._exit(1)
    os._exit(0)


def _last_words(sock: socket.socket, exc: Exception) -> None:
    said = wire.Said(logging.CRITICAL, __name__, "die keeper", "\n" + logs.frames(exc))
    with contextlib.suppress(OSError):
        sock.setblocking(True)
        sock.sendall(wire.framed({"said": wire.packed(said)}))


def _setup(sock: socket.socket) -> wire.Setup:
    """The first frame; raises Malformed where there is none."""
    frames = wire.Frames()
    while part := sock.recv(1):  # byte by byte: what comes behind it is the loop's
        for message in frames.feed(part):
            setup: wire.Setup = wire.unpacked(wire.Setup, message.get("setup"))
            return setup
    raise wire.Malformed


async def _serve(sock: socket.socket, setup: wire.Setup, hardened: hardening.Hardened) -> None:
    """Until the other end is gone."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    told = Telling(loop)
    logs.configure(level=setup.log_level, elsewhere=told)
    logs.hook_loop(loop)
    files, layout = Files(), Layout(*map(Path, setup.directories))
    served = _served(setup, files, layout)
    line = Line(sock, take=served.take, gone=lambda _: over.set_result(None))
    told.line = served.line = line
    refused, lock = _refusal(setup, files, layout)
    hello = wire.Hello(os.getpid(), hardening.dumpable(), hardened.warnings, refused)
    line.send({"hello": wire.packed(hello)})
    if lock is not None:
        await over
        lock.release()


def _served(setup: wire.Setup, files: Files, layout: Layout) -> Served:
    # after hardening: they bring much along
    from vaultd.aws.clients import Network
    from vaultd.host.clock import SystemClock
    from vaultd.lifecycle.keeping import Here, amazon, keeper
    from vaultd.store.os_keyring import OsKeyring

    clock = SystemClock()
    network = Network(
        https_proxy=setup.https_proxy,
        no_proxy=setup.no_proxy,
        ca_bundle=setup.ca_bundle,
        endpoint_allow=setup.endpoint_allow,
    )
    outside = amazon(network, clock)
    made = keeper(
        layout,
        files,
        clock,
        outside=outside,
        keyring=OsKeyring(clock=clock),
        backend=setup.backend,
        persist=setup.persist,
    )
    return Served(made, Here(outside))


def _refusal(setup: wire.Setup, files: Files, layout: Layout) -> tuple[str, Lock | None]:
    """Why this process does not serve, or the lock of this home."""
    if setup.version != __version__:
        return f"vaultd was upgraded to {__version__} while {setup.version} runs: type `vaultd restart`", None
    end = time.monotonic() + LOCK_SECONDS
    try:
        while (lock := files.lock(layout.keeper_lock)) is None and time.monotonic() < end:
            time.sleep(0.01)
    except VaultdError as exc:
        return exc.message, None
    if lock is None:
        return f"another keeper holds {layout.keeper_lock}: type `vaultd stop`, then `vaultd start`", None
    return "", lock


class Telling(logging.Handler):
    """Every record goes up; from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._thread = threading.get_ident()
        self.line: Line | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send it; with the other end gone there is nobody to tell."""
        message = {"said": wire.packed(wire.Said(record.levelno, record.name, *logs.carried(record)))}
        if threading.get_ident() == self._thread:
            self._send(message)  # in order with the replies
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._send, message)

    def _send(self, message: wire.Message) -> None:
        if self.line is not None:
            self.line.send(message)


class Served:
    """A keeper behind a line: each call a task, which a cancellation ends; but a close never: who locked may leave."""

    def __init__(self, keeper: Whole, outlook: Outside) -> None:
        self._keeper = keeper
        self._outlook = outlook
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._state: wire.State | None = None
        self._opened = False
        self.line: Line | None = None

    def take(self, message: wire.Message) -> None:
        """One frame from above; raises Malformed."""
        if "cancel" in message:
            self._give_up(message["cancel"])
            return
        if "ping" in message:
            self._send({"pong": True})
            return
        number, name, given = wire.called(message)
        if number in self._tasks:
            raise wire.Malformed
        self._opened = self._opened or name == "open"
        task = asyncio.get_running_loop().create_task(self._answer(number, name, given), name=f"call {name}")
        if name == "close":
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        else:
            self._tasks[number] = task
            task.add_done_callback(lambda _: self._tasks.pop(number, None))
        asyncio.get_running_loop().call_soon(self._tell)  # an open that takes long has read the index by then

    def _give_up(self, number: object) -> None:
        if type(number) is not int:
            raise wire.Malformed
        if (task := self._tasks.get(number)) is not None:
            task.cancel()

    async def _answer(self, number: int, name: str, given: dict[str, Any]) -> None:
        try:
            reply: wire.Message = {"result": wire.packed(await self._work(name, given))}
        except VaultdError as exc:
            reply = {"error": wire.packed_error(exc)}
        except Exception:
            log.exception("fail call name=%s", name)
            reply = {"error": wire.packed_error(VaultdError(_BROKE))}
        self._tell()
        self._send({"id": number, **reply})

    def _send(self, message: wire.Message) -> None:
        if self.line is not None:
            self.line.send(message)

    def _work(self, name: str, given: dict[str, Any]) -> Coroutine[Any, Any, object]:
        owner = self._outlook if wire.CALLS[name] in {Outlook, Console} else self._keeper
        work: Coroutine[Any, Any, object] = getattr(owner, name)(**given)
        return work

    def _tell(self) -> None:
        """What changed. Before the first open nothing was read yet, and what was told by an older keeper holds."""
        if not self._opened:
            return
        state = wire.State(self._keeper.list(), self._keeper.expects, self._outlook.skew())
        if state != self._state:
            self._state = state
            self._send({"state": wire.packed(state)})
