"""Being the daemon in this process: hardened, with the lock held, on an event loop, until a signal.

Rule: hardening comes before the first secret, the keeper before loop, threads and the aiohttp import. Whoever started
us is told once, by one JSON line on `ready_fd` or by a sentence on stderr, that we serve or why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaultd import logs
from vaultd.daemon import Daemon, build
from vaultd.errors import VaultdError
from vaultd.files import Files
from vaultd.host import hardening, sockets
from vaultd.host.clock import SystemClock
from vaultd.layout import Layout, check_runtime_dir
from vaultd.lifecycle.holding import Hold
from vaultd.lifecycle.surroundings import Surroundings, read_settings, spawn_keeper

log = logging.getLogger(__name__)


def main(*, port: int | None, config: Path | None, debug: bool, accept_rollback: bool, ready_fd: int | None) -> int:
    """Run the daemon; returns its exit status. A thread that hangs in a keyring call cannot hold the exit."""
    hardened = hardening.harden()
    told = _Told(ready_fd)
    logs.configure(level=logging.INFO)
    with contextlib.ExitStack() as held:
        try:
            daemon = _built(hardened, held, port=port, config=config, debug=debug)
            _import_web()
            _run(daemon, told, accept_rollback=accept_rollback)
        except VaultdError as exc:
            log.error("fail start error=%s reason=%s", exc.kind, exc.message)  # noqa: TRY400 (the sentence says it)
            told.failed(exc)
            return exc.exit
    if daemon.abandoned:
        logging.shutdown()
        os._exit(0)
    return 0


def _built(
    hardened: hardening.Hardened, held: contextlib.ExitStack, *, port: int | None, config: Path | None, debug: bool
) -> Daemon:
    """The daemon of this home, with its locks held."""
    files, layout = Files(), Layout.find(hardened.environ)
    check_runtime_dir(hardened.environ)
    files.make_dirs(layout)
    settings = read_settings(files, layout, hardened.environ, port=port, config=config)
    held.callback(Hold(files, layout).release)
    files.clear_leftovers(layout)
    level = logs.level_of(hardened.environ.get("VAULTD_LOG", ""), debug=debug)
    logs.configure(level=level, files=files, path=layout.log_file)
    around = Surroundings(
        layout=layout,
        files=files,
        environ=hardened.environ,
        settings=settings,
        clock=SystemClock(),
        settings_path=None if config is None else config.absolute(),
        port_given=port is not None,
        settings_read=True,
    )
    # Here: before loop, threads and the aiohttp import (architecture.md §3), which then go on side by side with it.
    apart = settings.keeper.process
    keeper = spawn_keeper(around, hardening.for_keeper(hardened), log_level=level) if apart else None
    daemon = build(around, keeper=keeper)
    daemon.notice((*hardened.warnings, *settings.misses()))
    return daemon


def _import_web() -> None:
    """Aiohttp, once the keeper is there. At its import it reads the system's CA certificates for a client that we never
    use: 30 to 50 ms of the start and 2 MB. So it is shown none; no thread is there yet that could miss the variables.
    """
    kept = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(kept, os.devnull))
    try:
        import vaultd.web.app
        import vaultd.web.control  # noqa: F401 (the daemon takes both from here on)
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(daemon: Daemon, told: _Told, *, accept_rollback: bool) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(daemon.run(told.ready, accept_rollback=accept_rollback))
        except BaseExceptionGroup as group:  # a permanent task died, and all of them with it (architecture.md §8.7)
            log.critical("die daemon", exc_info=group)
            raise _lost_to(group) or VaultdError(
                "vaultd made an error and has stopped: type `vaultd logs`, then `vaultd start`"
            ) from group


def _lost_to(group: BaseExceptionGroup[BaseException]) -> VaultdError | None:
    """The error of ours that ended it, where it was one: it says what to type."""
    first = group.exceptions[0]
    return first if isinstance(first, VaultdError) else None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where its wheels exist: 20 to 31 % more requests (performance.md)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Told:
    """Whoever waits for the start: a parent at the other end of a pipe, or a person reading stderr."""

    def __init__(self, ready_fd: int | None) -> None:
        self._fd = ready_fd

    def ready(self, status: dict[str, Any]) -> None:
        """We serve."""
        if self._fd is None:
            print(f"vaultd serves on http://127.0.0.1:{status['port']} (pid {status['pid']})", file=sys.stderr)
            if status["locked"]:
                print(f"vaultd: locked: {status['locked_reason']}", file=sys.stderr)
        self._say({"ok": True, **status})

    def failed(self, exc: VaultdError) -> None:
        """We do not; systemd's own view is the exit status."""
        if self._fd is None:
            print(f"vaultd: {exc.message}", file=sys.stderr)
        sockets.notify(f"STATUS={exc.message}")
        self._say({"ok": False, "message": exc.message, "exit": exc.exit, "held": bool(exc.details.get("held"))})

    def _say(self, line: dict[str, Any]) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(BrokenPipeError):  # whoever started us has left; we serve all the same
            os.write(self._fd, json.dumps(line).encode() + b"\n")
        os.close(self._fd)
        self._fd = None
