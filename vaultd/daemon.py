"""COMPOSITION ROOT: builds every object once, and runs until a signal.

Order of start: harden → settings → lock file → keeper (before loop, threads and the aiohttp import) → sockets → store
opened, sessions and grants back → READY. Order of stop: architecture.md §6.7. `build` takes what a test replaces.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaultd import logs
from vaultd.catalog import Catalog, CatalogWatch
from vaultd.engine.attestation import Attestation
from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.desk import Desk
from vaultd.engine.grant_records import Bound, Grant
from vaultd.engine.grants import Grants
from vaultd.engine.refresher import Refresher
from vaultd.engine.seams import IdentityStore, Outlook
from vaultd.errors import VaultdError
from vaultd.host import processes, sockets
from vaultd.host.peers import Peers
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.remote import RemoteKeeper
from vaultd.layout import Layout
from vaultd.lifecycle import keeping
from vaultd.lifecycle.clients import Clients, policies_of
from vaultd.lifecycle.listening import Listening
from vaultd.lifecycle.locking import Locking, presence_of
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.lifecycle.reporting import Reporting
from vaultd.lifecycle.surroundings import Amazon, Surroundings, make_keeper, real_amazon
from vaultd.lifecycle.unlocking import Unlocking
from vaultd.lifecycle.watchdog import Watchdog, allowed_seconds
from vaultd.model.peer import Peer
from vaultd.model.secret import Secret
from vaultd.store.os_keyring import OsKeyring

if TYPE_CHECKING:
    from vaultd.web.app import SdkSide
    from vaultd.web.control import Control
    from vaultd.web.doors import Doors
    from vaultd.web.handover import Handover
    from vaultd.web.link_local import LinkLocalSide

#: The config files are looked at so often while somebody holds a grant, and so often else.
LOOK_SECONDS, IDLE_LOOK_SECONDS = 1.0, 5.0
HEAD_SECONDS = 60.0
#: A stop that is not done by then is one anyway.
STOP_SECONDS = 15.0

log = logging.getLogger(__name__)

__all__ = ["Amazon", "Daemon", "Surroundings", "build", "real_amazon"]


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
    """The running whole. Implements web.rooms.Lifecycle."""

    def __init__(
        self,
        around: Surroundings,
        keeper: DaemonKeeper | RemoteKeeper,
        outlook: Outlook,
        *,
        abandoned: Callable[[], bool],
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._around = around
        self._keeper = keeper
        self._outlook = outlook
        self._abandoned = abandoned
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
            on_use=None if settings.store.lock_after_idle is None else self.used,
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
        self.watchdog = Watchdog(
            seconds=allowed_seconds(around.environ),
            clock=clock,
            overdue=lambda: self.refresher.overdue,
            notify=sockets.notify,
        )
        self._passphrase = PassphraseFile(files, around.environ)
        self.unlocking = Unlocking(
            keeper=keeper,
            broker=self.broker,
            audit=self.audit,
            clock=clock,
            passphrase=self._passphrase,
            marked=lambda: files.read(layout.locked_marker) is not None,
            new_store=lambda: not layout.secrets_sealed.exists(),
            changed=self._changed,
        )
        self.locking = Locking(unlocking=self.unlocking, clock=clock, after=settings.store.lock_after_idle)
        self.presence = presence_of(around, lock=self.locking.lock)
        self.watch: CatalogWatch | None = None
        self.port = 0
        self._reporting = Reporting(
            around=around,
            outlook=outlook,
            broker=self.broker,
            audit=self.audit,
            unlocking=self.unlocking,
            watch=lambda: self._watched,
            doors=lambda: () if self._doors is None else self._doors.trouble,
            presence=lambda: () if self.presence is None else self.presence.trouble,
        )
        self._listening = Listening(files, layout)
        self._serving = False
        self._stopping: asyncio.Event | None = None
        self._stopped_by: Peer | None = None
        self._warming: asyncio.Future[Any] | None = None
        self._sdk: SdkSide | None = None
        self._doors: Doors | None = None
        self._linked: LinkLocalSide | None = None
        self._handover: Handover | None = None
        self._control: Control | None = None

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
        self._catch_signals(stopping)
        try:
            await self._begin(accept_rollback=accept_rollback)
            ready(self._reporting.introduction(self.port, identities=len(self._keeper.list())))
            sockets.notify("READY=1")
            await self._tend(stopping)
        except BaseException as exc:
            await self._end(_why(exc))
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

    def _catch_signals(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a closed terminal is no reason to end
        # drop all, as ssh-agent does (security.md §2.2 item 27)
        loop.add_signal_handler(signal.SIGUSR1, lambda: self.locking.begin("signal"))

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        tcp, unix = self._listening.open(self._around.settings.listen.port)
        self.port = tcp.getsockname()[1]
        return tcp, unix

    def _resume(self) -> None:
        """What needs no key: grants, the audit chain, the profiles."""
        around = self._around
        self._reporting.found += self.audit.resume(None)
        self.grants.load()
        self.watch = CatalogWatch(
            files=around.files,
            settings=around.settings,
            environ=around.environ,
            config_path=self._config_path(),
            identities=self._keeper.list,
            clock=around.clock,
            settings_path=around.settings_path or around.layout.config_toml,
        )

    def _config_path(self) -> Path:
        configured = self._around.settings.aws.config_file
        return Path(configured).expanduser() if configured else Layout.aws_config(self._around.environ)

    async def _serve(self, tcp: socket.socket, unix: socket.socket) -> None:
        # aiohttp is 200 ms of import, and the keeper is to exist before it (architecture.md §3)
        from vaultd.web.app import SdkSide
        from vaultd.web.control import Control
        from vaultd.web.doors import Doors
        from vaultd.web.handover import Handover
        from vaultd.web.hold import Holds
        from vaultd.web.limits import Crowd, Limits
        from vaultd.web.link_local import LinkLocalSide
        from vaultd.web.rooms import Rooms

        prompt, peers, limits = self._around.settings.prompt, Peers(), Limits()
        crowd = Crowd(limits.most())
        holds = Holds(
            questions=self.desk,
            clock=self._around.clock,
            mode=prompt.hold,
            longest=prompt.hold_max,
            most=limits.most_held(),
        )

        def side() -> SdkSide:
            """A listener; what it holds ends with it."""
            return SdkSide(
                plans=self.catalog,
                broker=self.broker,
                grants=self.grants,
                audit=self.audit,
                peers=peers,
                clock=self._around.clock,
                describe=self.clients.describe,
                holds=holds,
                crowd=crowd,
                attestation=self.attestation,
            )

        self._sdk = side()
        self._doors = Doors(
            plans=self.catalog,
            broker=self.broker,
            grants=self.grants,
            audit=self.audit,
            peers=Peers(),
            clock=self._around.clock,
            describe=self.clients.describe,
            crowd=crowd,
            attestation=self.attestation,
        )
        self._linked = LinkLocalSide(
            plans=self._looked, grants=self.grants, doors=self._doors, audit=self.audit, sides=side
        )
        self._handover = Handover(take=self._linked.take)
        rooms = Rooms(
            catalog=self._looked,
            broker=self.broker,
            desk=self.desk,
            grants=self.grants,
            doors=self._doors,
            linked=self._linked,
            audit=self.audit,
            attestation=self.attestation,
            custody=self._keeper,
            lifecycle=self,
            clock=self._around.clock,
            boot_id=self.boot_id,
            port=lambda: self.port,
        )
        self._control = Control(rooms)
        await self._doors.reopen()
        await self._sdk.start(tcp)
        await self._control.start(unix)
        self._handover.start(self._listening.doors())
        self._listening.announce(self.port)

    async def _tend(self, stopping: asyncio.Event) -> None:
        """The permanent tasks; one dead, all dead (architecture.md §8.7)."""
        async with asyncio.TaskGroup() as tasks:
            permanent = [
                tasks.create_task(_for_ever(each))
                for each in (
                    self.refresher.run(),
                    self.watchdog.run(),
                    self.grants.run(),
                    self.audit.run(),
                    self._follow(),
                    self._seal(),
                    *self._watching(),
                )
            ]
            await stopping.wait()
            for task in permanent:
                task.cancel()

    def _watching(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What locks by itself, as far as the settings ask for it; and the keeper's process, where it has one."""
        if self.locking.watches:
            yield self.locking.run()
        if isinstance(self._keeper, RemoteKeeper):
            yield self._keeper.watch(self.unlocking.reopen)
        if self.presence is not None:
            yield self.presence.run()

    async def _follow(self) -> None:
        """Look at the config files, never on a GET."""
        while True:
            await self._around.clock.sleep(LOOK_SECONDS if self.grants.list() else IDLE_LOOK_SECONDS)
            if self._watched.look():
                self.refresher.nudge()

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
        if self._control is not None:
            self._control.refuse()
        await self.unlocking.stop()
        if self._warming is not None:
            self._warming.cancel()
        self.desk.lock(why="stopped")
        if self._sdk is not None:
            await self._sdk.stop()
        if self._handover is not None:
            await self._handover.close()
        if self._doors is not None:
            await self._doors.close_all()
        await self.broker.stop()
        self.grants.flush()
        self.audit.flush_now()
        if self._serving:
            self.audit.record("stop", sync=True, peer=self._stopped_by, reason=reason)
        await self._keeper.close(self.audit.head, lock=False)
        if self._control is not None:
            await self._control.close()
        await self._let_go()

    async def _let_go(self) -> None:
        """Of the keeper's process."""
        if isinstance(self._keeper, RemoteKeeper):
            await self._keeper.end()

    def _leave_nothing(self) -> None:
        self._listening.leave_nothing()
        self.clients.close()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            asyncio.get_running_loop().remove_signal_handler(number)
        log.info("stop daemon pid=%d", os.getpid())

    @property
    def abandoned(self) -> bool:
        """A keyring call still hangs in its thread: the process must leave by os._exit."""
        return self._abandoned()

    # ---- web.rooms.Lifecycle ----

    def status(self) -> dict[str, Any]:
        """What is true of the daemon itself; the lists of interface.md §6 are added by its route."""
        return self._reporting.status(self.port)

    async def lock(self, *, by: Peer | None = None) -> None:
        """Flow 6."""
        await self.unlocking.lock(by=by)

    async def unlock(
        self, passphrase: Secret | None, *, accept_rollback: bool, by: Peer | None = None
    ) -> dict[str, bool]:
        """Open the store for a person who is there."""
        return await self.unlocking.unlock(passphrase, accept_rollback=accept_rollback, by=by)

    async def checks(self) -> list[dict[str, Any]]:
        """The diagnoses of `vaultd check`, with what only a running daemon knows."""
        return await self._reporting.checks(self.port)

    def identities_changed(self) -> None:
        """Plans are made anew."""
        if self.watch is not None:
            self.watch.reload()

    def granted(self) -> None:
        """A grant was made: its session is to be kept fresh, and boto3 to be there when it is needed."""
        self.refresher.nudge()
        if self._warming is None:
            self._warming = asyncio.ensure_future(self._outlook.warm())
            self._warming.add_done_callback(_warmed)

    def used(self) -> None:
        """A command of a person, or a request with a good token."""
        self.locking.used()

    def stop(self, *, by: Peer | None = None) -> None:
        """Begin the orderly end."""
        self._stopped_by = by
        if self._stopping is not None:
            self._stopping.set()

    # ---- what the parts ask of the whole ----

    def _changed(self) -> None:
        """The store was opened, or not: the identities are known now, and what they need may be made."""
        self.identities_changed()
        self.refresher.nudge()

    @property
    def _watched(self) -> CatalogWatch:
        assert self.watch is not None
        return self.watch

    def catalog(self) -> Catalog:
        """The snapshot; no I/O."""
        return self._watched.current

    def _looked(self) -> Catalog:
        """For a person's command: the file as it is now, looked at once a second at most."""
        self._watched.look()
        return self._watched.current

    def _alive(self, bound: Bound) -> bool:
        return bound.boot_id == self.boot_id and processes.alive(bound.pid, bound.started)

    def _revoked(self, grant: Grant, reason: str) -> None:
        if self._doors is not None:
            self._doors.close(grant)
        if self._linked is not None:
            self._linked.ended(grant, reason)
        self.audit.record(
            "grant.revoke",
            profile=grant.profile,
            role_arn=grant.role_arn,
            grant=grant.id,
            peer=grant.peer,
            reason=reason,
        )


def _why(exc: BaseException) -> str:
    """Of the daemon's end, for the audit line; a permanent task that died of an error of ours says it itself."""
    first = exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else exc
    return first.message if isinstance(first, VaultdError) else f"died of {type(exc).__name__}: see `vaultd logs`"


async def _for_ever(work: Coroutine[Any, Any, None]) -> None:
    """A permanent task that comes to an end is as dead as one that fails."""
    await work
    raise AssertionError(f"the permanent task {work!r} has ended")


def _warmed(warming: asyncio.Future[Any]) -> None:
    """A warm-up is a convenience: the first call does without, and tells what is wrong."""
    if not warming.cancelled() and (exc := warming.exception()) is not None:
        log.warning("skip warm-up error=%s", type(exc).__name__)
