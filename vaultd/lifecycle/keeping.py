"""How a keeper is put together on real stores and on AWS: in the daemon's process, or in one of its own.

Rule: the same parts in both, from plain values; nothing of boto3, keyring or cryptography is imported before a call
needs it, so that a daemon whose keeper lives elsewhere never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vaultd.aws.calls import Calls
from vaultd.aws.clients import Clients, Network
from vaultd.aws.console import FederationConsole
from vaultd.aws.iam import BotoIam
from vaultd.aws.sts import BotoSts
from vaultd.aws.threads import Threads
from vaultd.engine.seams import Clock, Console, Iam, IdentityStore, Residence, SignedIn, SignIn, Sts
from vaultd.files import Files
from vaultd.host import hardening
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.opening import Stores
from vaultd.keeper.wire import Setup, framed, packed
from vaultd.layout import Layout
from vaultd.store.aws_vault import AwsVault
from vaultd.store.identities import IdentityIndex, IndexEntry
from vaultd.store.os_keyring import allowed, first_of
from vaultd.store.sealed_file import SealedFile
from vaultd.store.sealed_log import SealedLogFile

#: How long a keyring is looked for; below keeper.remote.DEADLINES["keyring"].
KEYRING_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amazon:
    """AWS as the keeper sees it, and what the daemon does with it before the first call."""

    sts: Sts
    iam: Iam
    console: Console
    warm: Callable[[], Any] | None = None


def amazon(network: Network, clock: Clock) -> Amazon:
    """boto3 behind threads of our own; nothing is imported before the first call."""
    calls = Calls(clients=Clients(network), threads=Threads(), clock=clock)
    return Amazon(
        sts=BotoSts(calls=calls, clock=clock),
        iam=BotoIam(calls=calls),
        console=FederationConsole(calls=calls),
        warm=calls.warm,
    )


def keeper(
    layout: Layout,
    files: Files,
    clock: Clock,
    *,
    outside: Amazon,
    keyring: IdentityStore,
    backend: Literal["auto", "keyring", "file"],
    persist: bool,
) -> DaemonKeeper:
    """The keeper with the real store, log and index of this home."""
    file = SealedFile(files, layout.secrets_sealed, seen=layout.secrets_seen, clock=clock)
    return DaemonKeeper(
        stores=Stores({"keyring": lambda: keyring, "file": lambda: file}, choice=backend),
        sealed_log=SealedLogFile(files, layout.sessions_sealed),
        index=IdentityIndex(files, layout.identities_json),
        make_entry=IndexEntry,
        sts=outside.sts,
        iam=outside.iam,
        foreign=AwsVault(files, clock=clock),
        clock=clock,
        files=files,
        locked_marker=layout.locked_marker,
        persist=persist,
    )


class Here:
    """The seams `Outlook` and `Console` of a keeper in this process."""

    def __init__(self, outside: Amazon, *, look: Callable[[], str | None] | None = None) -> None:
        self._outside = outside
        self._look = look or _keyring_here

    def residence(self) -> Residence:
        """Here."""
        return Residence(os.getpid(), apart=False, dumpable=hardening.dumpable())

    def skew(self) -> float | None:
        """`Sts.clock_skew`."""
        return self._outside.sts.clock_skew()

    async def warm(self) -> None:
        """A convenience: the first call does without, and tells what is wrong."""
        if self._outside.warm is None:
            return
        try:
            await self._outside.warm()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the first call meets it again
            log.warning("skip warm-up error=%s", type(exc).__name__)

    async def url(self, order: SignIn) -> SignedIn:
        """`Console.url`."""
        return await self._outside.console.url(order)

    async def keyring(self) -> str | None:
        """Looked for on a thread of its own, for 10 s: a D-Bus that hangs is as good as none. Whoever asks from another
        process takes a longer silence for a keeper that hangs, and ends it with the keys that it holds.
        """
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[str | None] = loop.create_future()

        def land(found: str | None) -> None:
            if not landed.done():
                landed.set_result(found)

        def look() -> None:
            found = self._look()
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(land, found)

        threading.Thread(target=look, name="vaultd-keyring-look", daemon=True).start()
        try:
            await asyncio.wait({landed}, timeout=KEYRING_SECONDS)
            return landed.result() if landed.done() else None
        finally:
            landed.cancel()


def _keyring_here() -> str | None:
    found = first_of(allowed())
    return None if found is None else found[0]


# ---- a process of its own ----


class Process:
    """`python -I -m vaultd.keeper`, its environment an allow-list, of our descriptors only its end of a socketpair."""

    def __init__(self, setup: Setup, environ: Mapping[str, str]) -> None:
        self.sock, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                    [sys.executable, "-I", "-m", "vaultd.keeper", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C at our terminal is not for it
                    cwd="/",
                    env=dict(environ),
                )
            except BaseException:
                self.sock.close()
                raise
        with contextlib.suppress(OSError):  # gone already: the end of the line says so
            self.sock.sendall(framed({"setup": packed(setup)}))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def end(self, *, patience: float) -> str:
        """Wait so many seconds, then kill; how it ended."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        status = self._process.returncode
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
