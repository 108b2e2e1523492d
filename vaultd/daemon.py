"""COMPOSITION ROOT: builds every object once, and runs until a signal.

Order of start: harden → settings → lock file → keeper (before loop, threads and the aiohttp import) → sockets → store
opened, sessions and grants back → READY. Order of stop: architecture.md §6.7. `build` takes what a test replaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaultd import __version__, checks, logs
from vaultd.aws.calls import Calls
from vaultd.aws.clients import Clients, Network
from vaultd.aws.iam import BotoIam
from vaultd.aws.sts import BotoSts
from vaultd.aws.threads import Threads
from vaultd.catalog import Catalog, CatalogWatch
from vaultd.config import Settings
from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.desk import Desk
from vaultd.engine.grant_records import Bound, Grant
from vaultd.engine.grants import Grants
from vaultd.engine.refresher import Refresher
from vaultd.engine.seams import Clock, Head, Iam, IdentityStore, Note, Opened, Sts
from vaultd.engine.sightings import Sighting
from vaultd.errors import KeyringBusy, Locked, StoreUnavailable, Unwritable, VaultdError, WrongPassphrase
from vaultd.files import Files, Layout
from vaultd.host import processes, sockets
from vaultd.host.peers import Peers
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.opening import Stores
from vaultd.model.peer import Peer
from vaultd.model.plan import Plan
from vaultd.model.secret import Secret
from vaultd.store.identities import IdentityIndex, IndexEntry
from vaultd.store.os_keyring import OsKeyring
from vaultd.store.sealed_file import SealedFile
from vaultd.store.sealed_log import SealedLogFile

if TYPE_CHECKING:
    from vaultd.web.app import SdkSide
    from vaultd.web.control import Control

#: A keyring that does not answer holds nobody up: past this the daemon serves, locked, and the opening goes on.
OPEN_SECONDS = 3.0
#: A grant that asked within this time has its session kept fresh (architecture.md §6.2).
ACTIVE = timedelta(minutes=30)
#: The config files are looked at so often while somebody holds a grant, and so often else.
LOOK_SECONDS, IDLE_LOOK_SECONDS = 1.0, 5.0
HEAD_SECONDS = 60.0
#: A stop that is not done by then is one anyway.
STOP_SECONDS = 15.0

_OPENING = "the store is still being opened: unlock your keyring, or type `vault-client unlock`"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is given: where the files are, the environment that the contract reads, the settings, the time."""

    layout: Layout
    files: Files
    environ: Mapping[str, str]
    settings: Settings
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Amazon:
    """AWS as the keeper sees it, and what the daemon does with it before the first call."""

    sts: Sts
    iam: Iam
    warm: Callable[[], Any] | None = None


def real_amazon(around: Surroundings) -> Amazon:
    """boto3 behind threads of our own; nothing is imported before the first call."""
    aws = around.settings.aws
    network = Network(
        https_proxy=aws.https_proxy,
        no_proxy=aws.no_proxy,
        ca_bundle=aws.ca_bundle,
        endpoint_allow=aws.endpoint_allow,
    )
    calls = Calls(clients=Clients(network), threads=Threads(), clock=around.clock)
    return Amazon(sts=BotoSts(calls=calls, clock=around.clock), iam=BotoIam(calls=calls), warm=calls.warm)


def make_keeper(around: Surroundings, amazon: Amazon, keyring: IdentityStore) -> DaemonKeeper:
    """The keeper with the real store, log and index of this home."""
    layout, files = around.layout, around.files
    file = SealedFile(files, layout.secrets_sealed, seen=layout.secrets_seen, clock=around.clock)
    return DaemonKeeper(
        stores=Stores({"keyring": lambda: keyring, "file": lambda: file}, choice=around.settings.store.backend),
        sealed_log=SealedLogFile(files, layout.sessions_sealed),
        index=IdentityIndex(files, layout.identities_json),
        make_entry=IndexEntry,
        sts=amazon.sts,
        iam=amazon.iam,
        clock=around.clock,
        files=files,
        locked_marker=layout.locked_marker,
        persist=around.settings.sessions.persist,
    )


def build(
    around: Surroundings,
    *,
    amazon: Amazon | None = None,
    keyring: IdentityStore | None = None,
    jitter: Callable[[], float] | None = None,
) -> Daemon:
    """Every object once. A test gives its own clock in `around`, and its own AWS or keyring."""
    chosen = OsKeyring(clock=around.clock) if keyring is None else keyring
    aws = amazon or real_amazon(around)
    return Daemon(around, make_keeper(around, aws, chosen), aws, keyring=chosen, jitter=jitter)


class Daemon:
    """The running whole. Implements web.rooms.Lifecycle."""

    def __init__(
        self,
        around: Surroundings,
        keeper: DaemonKeeper,
        amazon: Amazon,
        *,
        keyring: IdentityStore,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._around = around
        self._keeper = keeper
        self._amazon = amazon
        self._keyring = keyring
        settings, layout, files, clock = around.settings, around.layout, around.files, around.clock
        self.boot_id = processes.boot_id()
        self.audit = Audit(
            files=files,
            path=layout.audit_jsonl,
            clock=clock,
            max_bytes=settings.audit.max_bytes,
            keep=settings.audit.keep,
            look=self._look,
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
        )
        self.refresher = Refresher(broker=self.broker, clock=clock, active=self._active)
        self.watch: CatalogWatch | None = None
        self.port = 0
        self._store = "file"
        self._reason = _OPENING
        self._notices: tuple[str, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._head: Head | None = None
        self._headed = False
        self._opening: asyncio.Task[None] | None = None
        self._stopping: asyncio.Event | None = None
        self._warming: asyncio.Future[Any] | None = None
        self._sdk: SdkSide | None = None
        self._control: Control | None = None

    # ---- life ----

    def notice(self, notices: Iterable[str]) -> None:
        """What a person should know once, at the start; nothing that is broken."""
        self._notices += tuple(notices)

    def warn(self, warnings: Iterable[str]) -> None:
        """What is wrong and stays so until mended; shown by `status` and `check`."""
        self._warnings += tuple(warnings)

    async def run(self, ready: Callable[[dict[str, Any]], None], *, accept_rollback: bool = False) -> None:
        """Serve until a signal or `stop()`; `ready` is called once with the status, when everything is open."""
        self._stopping = asyncio.Event()
        logs.hook_loop(asyncio.get_running_loop())
        self._catch_signals(self._stopping)
        tcp, unix = self._listen()
        self._resume()
        self._opening = asyncio.ensure_future(self._open(self._passphrase(), accept_rollback=accept_rollback))
        await asyncio.wait({self._opening}, timeout=OPEN_SECONDS)
        if self._opening.done():
            self._opening.result()
        await self._serve(tcp, unix)
        self.audit.record("start", reason="; ".join((*self._notices, *self._warnings)) or None)
        ready(self._introduction())
        sockets.notify("READY=1")
        await self._tend(self._stopping)
        await self._close()

    def _introduction(self) -> dict[str, Any]:
        """The status, and what `vaultd start` needs to say the next step."""
        layout = self._around.layout
        by_person = self._around.files.read(layout.locked_marker) is not None
        return {
            **self.status(),
            "identities": len(self._keeper.list()),
            "warnings": [*self._notices, *self._warnings],
            "wants_passphrase": self.broker.locked and self._store == "file" and not by_person,
            "new_store": not layout.secrets_sealed.exists(),
        }

    def _catch_signals(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a closed terminal is no reason to end

    def _listen(self) -> tuple[socket.socket, socket.socket]:
        """The two sockets: passed in by the service manager, else our own. The lock file is held already."""
        given = {each.sock.family: each.sock for each in sockets.activated()}
        unix = given.get(socket.AF_UNIX) or sockets.listen_unix(self._around.layout.control_sock, locked=True)
        try:
            tcp = given.get(socket.AF_INET) or sockets.listen_tcp(self._around.settings.listen.port)
        except VaultdError:
            unix.close()
            self._around.files.remove(self._around.layout.control_sock)
            raise
        self.port = tcp.getsockname()[1]
        return tcp, unix

    def _resume(self) -> None:
        """What needs no key: grants, the audit chain, the profiles."""
        around = self._around
        self.warn(self.audit.resume(None))
        self.grants.load()
        self.watch = CatalogWatch(
            files=around.files,
            settings=around.settings,
            environ=around.environ,
            config_path=self._config_path(),
            identities=self._keeper.list,
            clock=around.clock,
            settings_path=around.layout.config_toml,
        )

    def _config_path(self) -> Path:
        configured = self._around.settings.aws.config_file
        return Path(configured).expanduser() if configured else Layout.aws_config(self._around.environ)

    async def _open(self, passphrase: Secret | None, *, accept_rollback: bool) -> None:
        """The store at start. What a person can mend by `unlock` leaves the daemon locked; damage ends the start."""
        try:
            opened = await self._keeper.open(passphrase=passphrase, accept_rollback=accept_rollback)
        except (WrongPassphrase, StoreUnavailable, KeyringBusy) as exc:
            self._reason = exc.message
            log.warning("open store failed error=%s reason=%s", exc.kind, exc.message)
            self.identities_changed()
            return
        self._opened(opened)

    def _opened(self, opened: Opened) -> None:
        self._store = opened.store
        self._reason = opened.reason
        self._warnings += opened.warnings
        if opened.head is not None and not self._headed:
            self._headed = True
            self._warnings += self.audit.confirm(opened.head)
        self.broker.restore(opened)
        self.identities_changed()
        self.refresher.nudge()

    async def _serve(self, tcp: socket.socket, unix: socket.socket) -> None:
        # aiohttp is 200 ms of import, and the keeper is to exist before it (architecture.md §3)
        from vaultd.web.app import SdkSide
        from vaultd.web.control import Control
        from vaultd.web.rooms import Rooms

        self._sdk = SdkSide(
            plans=self.catalog,
            broker=self.broker,
            grants=self.grants,
            audit=self.audit,
            peers=Peers(),
            clock=self._around.clock,
            describe=self._describe,
        )
        rooms = Rooms(
            catalog=self._looked,
            broker=self.broker,
            desk=self.desk,
            grants=self.grants,
            audit=self.audit,
            custody=self._keeper,
            lifecycle=self,
            clock=self._around.clock,
            boot_id=self.boot_id,
            port=lambda: self.port,
        )
        self._control = Control(rooms)
        await self._sdk.start(tcp)
        await self._control.start(unix)
        where = json.dumps({"port": self.port, "pid": os.getpid()}).encode()
        self._around.files.replace(self._around.layout.endpoint_json, where)

    async def _tend(self, stopping: asyncio.Event) -> None:
        """The permanent tasks; one dead, all dead (architecture.md §8.7)."""
        async with asyncio.TaskGroup() as tasks:
            permanent = [
                tasks.create_task(each)
                for each in (self.refresher.run(), self.grants.run(), self.audit.run(), self._follow(), self._seal())
            ]
            await stopping.wait()
            for task in permanent:
                task.cancel()

    async def _follow(self) -> None:
        """Look at the config files, never on a GET."""
        while True:
            await self._around.clock.sleep(LOOK_SECONDS if self.grants.list() else IDLE_LOOK_SECONDS)
            if self._watched.look():
                self.refresher.nudge()

    async def _seal(self) -> None:
        """The audit head under the data key, each minute, so that a cut tail is seen after a kill."""
        while True:
            await self._around.clock.sleep(HEAD_SECONDS)
            if not self.broker.locked and self._head != self.audit.head:
                self._head = self.audit.head
                with contextlib.suppress(Unwritable):  # told by the audit's own lost lines
                    await self._keeper.note(Note(kind="head", head=self._head))

    async def _close(self) -> None:
        """Flow 7: no new connections, flights with a code land, the head is sealed, sockets and files go."""
        sockets.notify("STOPPING=1")
        self.desk.lock()
        if self._sdk is not None:
            await self._sdk.stop()
        await self.broker.stop()
        self.grants.flush()
        self.audit.flush_now()
        self.audit.record("stop", sync=True)
        await self._keeper.close(self.audit.head, lock=False)
        if self._control is not None:
            await self._control.close()
        for path in (self._around.layout.endpoint_json, self._around.layout.control_sock):
            with contextlib.suppress(VaultdError):
                self._around.files.remove(path)
        log.info("stop daemon pid=%d", os.getpid())

    @property
    def abandoned(self) -> bool:
        """A keyring call still hangs in its thread: the process must leave by os._exit."""
        return bool(getattr(self._keyring, "abandoned", False))

    # ---- web.rooms.Lifecycle ----

    def status(self) -> dict[str, Any]:
        """What is true of the daemon itself; the lists of interface.md §6 are added by its route."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "port": self.port,
            "store": self._store,
            "locked": self.broker.locked,
            "locked_reason": self._reason if self.broker.locked else "",
            "clock_skew_seconds": self._amazon.sts.clock_skew(),
            "lost_audit_lines": self.audit.lost,
            "log": str(self._around.layout.log_file),
            "trouble": self._trouble(),
        }

    def _trouble(self) -> list[str]:
        catalog = self._watched.trouble
        locked = [self._reason] if self.broker.locked and self._reason else []
        return [*locked, *([catalog] if catalog else []), *self.catalog().problems, *self._warnings]

    async def lock(self) -> None:
        """Flow 6: no await below suspends, so nothing is served between the audit line and the lock."""
        self.audit.flush_now()
        self.audit.record("lock", sync=True)
        await self._keeper.close(self.audit.head)
        await self.broker.lock()
        self.desk.lock()
        self._reason = "locked by `vault-client lock`: type `vault-client unlock`"

    async def unlock(self, passphrase: Secret | None, *, accept_rollback: bool) -> None:
        """Open the store for a person who is there."""
        opened = await self._keeper.open(passphrase=passphrase, unlock=True, accept_rollback=accept_rollback)
        if opened.locked:
            self._reason = opened.reason
            raise Locked(opened.reason)
        self._opened(opened)
        self.audit.record("unlock")

    async def checks(self) -> list[dict[str, Any]]:
        """The diagnoses of `vaultd check`, with what only a running daemon knows."""
        live = checks.Live(
            port=self.port,
            skew_seconds=self._amazon.sts.clock_skew(),
            locked_reason=self._reason if self.broker.locked else "",
            trouble=tuple(self._trouble()),
            lost_audit_lines=self.audit.lost,
        )
        found = await asyncio.to_thread(
            checks.run, self._around.layout, self._around.files, self._around.environ, live=live
        )
        return [each.wire() for each in found]

    def identities_changed(self) -> None:
        """Plans are made anew."""
        if self.watch is not None:
            self.watch.reload()

    def granted(self) -> None:
        """A grant was made: its session is to be kept fresh, and boto3 to be there when it is needed."""
        self.refresher.nudge()
        if self._amazon.warm is not None and self._warming is None:
            self._warming = asyncio.ensure_future(self._amazon.warm())

    def stop(self) -> None:
        """Begin the orderly end."""
        if self._stopping is not None:
            self._stopping.set()

    # ---- what the parts ask of the whole ----

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

    def _active(self) -> Iterable[Plan]:
        """The plans of grants in use or pinned by a live process; one that cannot be planned is passed over."""
        now = self._around.clock.now()
        for grant in self.grants.list():
            used = self.grants.last_used(grant.id) or grant.created
            if grant.kind != "exec" and now - used > ACTIVE:
                continue
            with contextlib.suppress(VaultdError):
                yield self.catalog().plan(grant.profile, grant.overrides)

    def _alive(self, bound: Bound) -> bool:
        return bound.boot_id == self.boot_id and processes.alive(bound.pid, bound.started)

    def _revoked(self, grant: Grant, reason: str) -> None:
        self.audit.record(
            "grant.revoke",
            profile=grant.profile,
            role_arn=grant.role_arn,
            grant=grant.id,
            peer=grant.peer,
            reason=reason,
        )

    def _look(self, sighting: Sighting) -> Peer | None:
        """Who a client was; in a thread. The processes that hold grants first, as theirs are most calls."""
        if sighting.pid is not None:
            return processes.look(sighting.pid)
        if sighting.inode is None:
            return None
        first = [grant.bound.pid for grant in self.grants.list() if grant.bound is not None]
        return processes.find_by_inode(sighting.inode, first=first)

    async def _describe(self, inode: int) -> str:
        found = await asyncio.to_thread(self._look, Sighting(uid=processes.own_uid(), inode=inode, pid=None))
        return "an AWS SDK" if found is None else processes.describe(found)

    def _passphrase(self) -> Secret | None:
        """Of the file store: VAULTD_PASSPHRASE_FILE, or the service manager's credential. One newline is stripped."""
        named = self._around.environ.get("VAULTD_PASSPHRASE_FILE")
        directory = self._around.environ.get("CREDENTIALS_DIRECTORY")
        path = Path(named) if named else Path(directory) / "vaultd-passphrase" if directory else None
        content = None if path is None else self._around.files.read_config(path)
        if content is None:
            if named:
                log.warning("miss passphrase-file path=%s", named)
            return None
        return Secret(content.removesuffix(b"\n")) if content.removesuffix(b"\n") else None
