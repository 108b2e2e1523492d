"""COMPOSITION ROOT: builds every object once, and runs until a signal.

Order of start: harden → settings → lock file → keeper (before loop, threads and the aiohttp import) → sockets → store
opened, sessions and grants back → READY. Order of stop: architecture.md §6.7. `build` takes what a test replaces.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from vaultd import logs
from vaultd.catalog import Catalog
from vaultd.engine.attestation import Attestation
from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.desk import Desk
from vaultd.engine.grant_records import Bound, Grant
from vaultd.engine.grants import Grants
from vaultd.engine.refresher import Refresher
from vaultd.engine.rotations import Rotations
from vaultd.engine.seams import IdentityStore
from vaultd.engine.signins import SignIns
from vaultd.host import processes, sockets
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.process import Outside
from vaultd.keeper.remote import RemoteKeeper
from vaultd.lifecycle import keeping, permanent
from vaultd.lifecycle.clients import Clients, policies_of
from vaultd.lifecycle.commands import Commands
from vaultd.lifecycle.keeping import Amazon
from vaultd.lifecycle.listening import Listening
from vaultd.lifecycle.locking import Locking, presence_of
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.lifecycle.reporting import Reporting
from vaultd.lifecycle.surroundings import Surroundings, make_keeper, real_amazon
from vaultd.lifecycle.unlocking import Unlocking
from vaultd.lifecycle.watchdog import Watchdog, allowed_seconds
from vaultd.lifecycle.watching import Watching
from vaultd.model.peer import Peer
from vaultd.store.os_keyring import OsKeyring

if TYPE_CHECKING:
    from vaultd.lifecycle.sides import Sides

HEAD_SECONDS = 60.0
#: A stop that is not done by then is one anyway.
STOP_SECONDS = 15.0

log = logging.getLogger(__name__)


def build(
    around: Surroundings,
    *,
    amazon: Amazon | None = None,
    keyring: IdentityStore | None = None,
    keeper: RemoteKeeper | None = None,
    jitter: Callable[[], float] | None = None,
) -> Daemon:
    """Every object once. A test gives its own clock in `around`, and its own AWS or keyring. `keeper`: the one in a
    process of its own; without, it lives in this process.
    """
    if keeper is not None:
        return Daemon(around, keeper, keeper, abandoned=lambda: False, jitter=jitter)
    chosen = OsKeyring(clock=around.clock) if keyring is None else keyring
    aws = amazon or real_amazon(around)
    return Daemon(
        around,
        make_keeper(around, aws, chosen),
        keeping.Here(aws),
        abandoned=lambda: bool(getattr(chosen, "abandoned", False)),
        jitter=jitter,
    )


class Daemon:
    """The running whole."""

    def __init__(
        self,
        around: Surroundings,
        keeper: DaemonKeeper | RemoteKeeper,
        outlook: Outside,
        *,
        abandoned: Callable[[], bool],
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._around = around
        self._keeper = keeper
        self._abandoned = abandoned
        self._profiles = Watching(around, identities=keeper.list)
        self.boot_id = processes.boot_id()
        settings, layout, files, clock = around.settings, around.layout, around.files, around.clock
        self.clients = Clients(grants=lambda: self.grants, catalog=self.catalog, clock=clock)
        self.audit = Audit(
            files=files,
            path=layout.audit_jsonl,
            clock=clock,
            max_bytes=settings.audit.max_bytes,
            keep=settings.audit.keep,
            look=self.clients.look_up,
            redact=logs.redacted,
        )
        self.desk = Desk(clock=clock, timeout=settings.prompt.timeout, cancel_cooldown=settings.prompt.cancel_cooldown)
        self.broker = Broker(
            keeper=keeper,
            custody=keeper,
            clock=clock,
            desk=self.desk,
            audit=self.audit,
            mfa_duration=settings.sessions.mfa_duration,
            jitter=jitter or secrets.SystemRandom().random,
        )
        self.grants = Grants(
            files=files,
            path=layout.grants_json,
            tokens=layout.grant_tokens,
            clock=clock,
            max_age=settings.grants.max_age,
            idle_timeout=settings.grants.idle_timeout,
            boot_id=self.boot_id,
            alive=self._alive,
            on_revoke=self._revoked,
            on_use=None if settings.store.lock_after_idle is None else lambda: self.locking.used(),  # noqa: PLW0108 (made below)
        )
        self.attestation = Attestation(
            programs=self.clients,
            policies=policies_of(settings),
            desk=self.desk,
            clock=clock,
            audit=self.audit,
            met=self.grants.met,
        )
        self.refresher = Refresher(broker=self.broker, clock=clock, active=self.clients.active)
        self.rotations = Rotations(
            broker=self.broker,
            custody=keeper,
            clock=clock,
            audit=self.audit,
            ground=lambda name: self.catalog().identity_ground(name),
            changed=self._profiles.reload,
        )
        self.signins = SignIns(
            broker=self.broker,
            console=outlook,
            clock=clock,
            federation_url=around.environ.get("VAULTD_FEDERATION_URL"),
            allow=settings.aws.endpoint_allow,
        )
        self.watchdog = Watchdog(
            seconds=allowed_seconds(around.environ),
            clock=clock,
            overdue=lambda: self.refresher.overdue,
            notify=sockets.notify,
        )
        self.unlocking = Unlocking(
            keeper=keeper,
            broker=self.broker,
            audit=self.audit,
            clock=clock,
            passphrase=PassphraseFile(files, around.environ),
            marked=lambda: files.read(layout.locked_marker) is not None,
            new_store=lambda: not layout.secrets_sealed.exists(),
            changed=self._changed,
        )
        self.locking = Locking(unlocking=self.unlocking, clock=clock, after=settings.store.lock_after_idle)
        self.presence = presence_of(around, lock=self.locking.lock)
        self.port = 0
        self._reporting = Reporting(
            around=around,
            outlook=outlook,
            broker=self.broker,
            audit=self.audit,
            unlocking=self.unlocking,
            watch=lambda: self._profiles.watch,
            doors=lambda: () if self._sides is None else self._sides.doors.trouble,
            presence=lambda: () if self.presence is None else self.presence.trouble,
        )
        self.commands = Commands(
            reporting=self._reporting,
            unlocking=self.unlocking,
            locking=self.locking,
            profiles=self._profiles,
            refresher=self.refresher,
            outlook=outlook,
            port=lambda: self.port,
            end=self._stopped,
        )
        self._listening = Listening(files, layout)
        self._serving = False
        self._stopping: asyncio.Event | None = None
        self._stopped_by: Peer | None = None
        self._sides: Sides | None = None

    # ---- life ----

    def notice(self, notices: Iterable[str]) -> None:
        """What a person should know once, at the start; nothing that is broken."""
        self._reporting.notices += tuple(notices)

    async def run(self, ready: Callable[[dict[str, Any]], None], *, accept_rollback: bool = False) -> None:
        """Serve until a signal or `stop()`; `ready` is called once with the status, when everything is open.

        Raises what kept it from serving, or the group of what a permanent task died of; nothing is left behind.
        """
        self._stopping = stopping = asyncio.Event()
        logs.hook_loop(asyncio.get_running_loop())
        permanent.catch_signals(stop=stopping.set, lock=lambda: self.locking.begin("signal"))
        try:
            await self._begin(accept_rollback=accept_rollback)
            ready(self._reporting.introduction(self.port, identities=len(self._keeper.list())))
            sockets.notify("READY=1")
            await permanent.tend(stopping, self._work())
        except BaseException as exc:
            await self._end(permanent.why(exc))
            raise
        await self._end()

    async def _begin(self, *, accept_rollback: bool) -> None:
        tcp, unix = self._listen()
        self._resume()
        await self.unlocking.begin(accept_rollback=accept_rollback)
        await self._serve(tcp, unix)
        self.audit.record("start", reason="; ".join((*self._reporting.notices, *self._reporting.warnings)) or None)
        # A home with a key has a sealed end from its first minute on: one without it was lost.
        await self.unlocking.seal_head()
        self._serving = True

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        tcp, unix = self._listening.open(self._around.settings.listen.port)
        self.port = tcp.getsockname()[1]
        return tcp, unix

    def _resume(self) -> None:
        """What needs no key: grants, the audit chain, the profiles."""
        self._reporting.found += self.audit.resume(None)
        self.grants.load()
        self._profiles.begin()

    async def _serve(self, tcp: socket.socket, unix: socket.socket) -> None:
        from vaultd.lifecycle import sides  # late: see its rule

        self._sides = sides.build(
            sides.Behind(
                around=self._around,
                desk=self.desk,
                broker=self.broker,
                grants=self.grants,
                audit=self.audit,
                attestation=self.attestation,
                clients=self.clients,
                custody=self._keeper,
                importer=self._keeper,
                rotations=self.rotations,
                signins=self.signins,
                catalog=self.catalog,
                looked=self._profiles.looked,
                lifecycle=self.commands,
                boot_id=self.boot_id,
                port=lambda: self.port,
            )
        )
        await self._sides.start(tcp, unix, handed=self._listening.doors)
        self._listening.announce(self.port)

    def _work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """The permanent tasks: what locks by itself as far as the settings ask for it, the keeper's process where it
        has one.
        """
        yield self.refresher.run()
        yield self.rotations.run()
        yield self.watchdog.run()
        yield self.grants.run()
        yield self.audit.run()
        yield self._profiles.run(held=self.grants.list, changed=self.refresher.nudge)
        yield self._seal()
        if self.locking.watches:
            yield self.locking.run()
        if isinstance(self._keeper, RemoteKeeper):
            yield self._keeper.watch(self.unlocking.reopen)
        if self.presence is not None:
            yield self.presence.run()

    async def _seal(self) -> None:
        while True:
            await self._around.clock.sleep(HEAD_SECONDS)
            await self.unlocking.seal_head()

    async def _end(self, reason: str | None = None) -> None:
        """Flow 7, within its deadline; what is not done by then is left to the end of the process."""
        ending = asyncio.ensure_future(self._close(reason))
        await asyncio.wait({ending}, timeout=STOP_SECONDS)
        if not ending.done():
            log.error("stop daemon late seconds=%.0f", STOP_SECONDS)
            ending.cancel()
        elif not ending.cancelled() and (exc := ending.exception()) is not None:
            log.error("stop daemon failed error=%s", type(exc).__name__, exc_info=exc)
        self._leave_nothing()

    async def _close(self, reason: str | None) -> None:
        """No new connections, flights with a code land, the head is sealed; then those who wait are let go."""
        sockets.notify("STOPPING=1")
        if self._sides is not None:
            self._sides.control.refuse()
        await self.unlocking.stop()
        self.commands.close()
        self.desk.lock(why="stopped")
        if self._sides is not None:
            await self._sides.stop_serving()
        await asyncio.gather(self.broker.stop(), self.rotations.stop())
        self.grants.flush()
        self.audit.flush_now()
        if self._serving:
            self.audit.record("stop", sync=True, peer=self._stopped_by, reason=reason)
        await self._keeper.close(self.audit.head, lock=False)
        if self._sides is not None:
            await self._sides.control.close()
        if isinstance(self._keeper, RemoteKeeper):
            await self._keeper.end()

    def _leave_nothing(self) -> None:
        self._listening.leave_nothing()
        self.clients.close()
        permanent.let_signals_go()
        log.info("stop daemon pid=%d", os.getpid())

    @property
    def abandoned(self) -> bool:
        """A keyring call still hangs in its thread: the process must leave by os._exit."""
        return self._abandoned()

    def stop(self) -> None:
        """Begin the orderly end."""
        self._stopped(None)

    # ---- what the parts ask of the whole ----

    def _stopped(self, by: Peer | None) -> None:
        self._stopped_by = by
        if self._stopping is not None:
            self._stopping.set()

    def _changed(self) -> None:
        """The store was opened, or not: the identities are known now, and what they need may be made."""
        self._profiles.reload()
        self.refresher.nudge()

    def catalog(self) -> Catalog:
        """The snapshot; no I/O."""
        return self._profiles.current()

    def _alive(self, bound: Bound) -> bool:
        return bound.boot_id == self.boot_id and processes.alive(bound.pid, bound.started)

    def _revoked(self, grant: Grant, reason: str) -> None:
        if self._sides is not None:
            self._sides.ended(grant, reason)
        self.audit.record(
            "grant.revoke",
            profile=grant.profile,
            role_arn=grant.role_arn,
            grant=grant.id,
            peer=grant.peer,
            reason=reason,
        )
