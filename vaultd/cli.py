"""`vaultd`: start, stop, restart, status, logs, check. The only place of the daemon that prints or exits.

Rules: `start` in the background returns when the daemon serves, or says why not; the background process holds none of
the caller's descriptors, so that `$(vaultd start)` returns, and of his environment only what the contract reads.
What is slow to import is imported where it is needed: `status` and `stop` load no pydantic, no aiohttp and no keyring.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from vault_client.errors import UNREACHABLE, Refusal, Stop
from vault_client.link import Link
from vaultd import __version__
from vaultd.command import own_unit, running, stdio, usage
from vaultd.command.own_unit import OwnUnit

USAGE = 2
#: A start that says nothing for so long is none; a stop that is not done by then is told to SIGKILL.
START_SECONDS = 60.0
STOP_SECONDS = 30.0
#: How long a second `vaultd start` waits for the first to serve.
HELD_SECONDS = 15.0
#: How long `vaultd stop` waits for the first answer of a daemon that holds the lock: it may be just starting.
ANSWER_SECONDS = 3.0
#: Exit status after Ctrl-C, and after a reader that left, as shells count SIGINT and SIGPIPE.
INTERRUPTED, PIPE_CLOSED = 130, 141
_CHUNK = 65536


class _Failure(Exception):
    """A command ends with this sentence on stderr and this exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def main(argv: list[str] | None = None) -> int:
    """The whole program; returns the exit status of interface.md §2."""
    with stdio.guarded():
        try:
            return _heard(_commanded(argv), argv)
        except SystemExit as ended:  # argparse: a usage, --help, --version
            raise SystemExit(_heard(int(ended.code or 0), argv)) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, while Python ends, would show a traceback
            return INTERRUPTED


def _commanded(argv: list[str] | None) -> int:
    options = usage.parser().parse_args(argv)
    run = {
        "start": start,
        "stop": stop,
        "restart": restart,
        "status": status,
        "logs": logs,
        "check": check,
        "service": service,
        "link-local": link_local,
    }[options.command]
    try:
        return run(options)
    except _Failure as failure:
        print(f"vaultd: {failure.message}", file=sys.stderr)
        return failure.status
    except Stop as failure:
        print(f"vaultd: {failure}", file=sys.stderr)
        return failure.exit_status


def _heard(status: int, argv: list[str] | None) -> int:
    """The exit status once the output is out, or lost: what was done counts, what was only to be shown is not done."""
    sys.stdout.flush()
    lost = stdio.failure(sys.stdout)
    if lost is None:
        return status
    acted = (sys.argv[1:] if argv is None else argv)[:1] in (["start"], ["stop"], ["restart"], ["service"])
    if isinstance(lost, BrokenPipeError):  # `vaultd check | head -1`: as if SIGPIPE had ended us
        return status if acted else PIPE_CLOSED
    remedy = "what was done stays done" if acted else "free space or give stdout another place"
    again = "`vaultd status`" if acted else "it again"
    print(f"vaultd: the output cannot be written ({lost.strerror}), {remedy}: type {again}", file=sys.stderr)
    return status if acted else 1


# ---- start ----


def start(options: argparse.Namespace) -> int:
    """Start, unless it runs already."""
    if options.foreground:
        return _foreground(options)
    found = running.answer()
    if found is not None:
        return _runs_already(found, options)
    if (unit := _unit()) is not None:
        return _by_unit(unit, options, restart=False)
    told = _spawned(options)
    if told.get("held") and (found := running.first_answer(HELD_SECONDS)) is not None:  # another start was first
        return _runs_already(found, options)
    if not told.get("ok"):
        raise _Failure(str(told.get("message")), int(told.get("exit", 1)))
    return _started(told)


def _started(told: dict[str, Any]) -> int:
    """It serves: unlock it where a person is there to do it, and say what is next."""
    try:
        if told["locked"] and told["wants_passphrase"] and sys.stdin.isatty():
            told = _unlock(told)
        _introduce(told)
    except KeyboardInterrupt:
        raise _interrupted(f"vaultd (pid {told['pid']}) runs {_shut(told)}") from None
    return 0


def _unit() -> OwnUnit | None:
    """The installed units of this home, where a service manager runs; nothing is loaded where there are none."""
    if own_unit.find() is None:
        return None
    from vaultd.command import by_unit

    return by_unit.usable()


def _by_unit(unit: OwnUnit, options: argparse.Namespace, *, restart: bool, found: dict[str, Any] | None = None) -> int:
    from vaultd.command import by_unit
    from vaultd.errors import VaultdError

    try:
        told = by_unit.restart(unit, options, found) if restart else by_unit.start(unit, options)
    except VaultdError as exc:
        raise _Failure(exc.message, int(exc.details.get("exit", exc.exit))) from exc
    if said := by_unit.disagreement(unit, told):
        print(said)
    return _started(told)


def _shut(told: dict[str, Any]) -> str:
    return "locked, and `vault-client unlock` goes on from here" if told["locked"] else "all the same"


def _interrupted(message: str) -> _Failure:
    print(file=sys.stderr)  # the line on which the terminal shows ^C
    return _Failure(message, INTERRUPTED)


def _runs_already(found: dict[str, Any], options: argparse.Namespace) -> int:
    print(f"vaultd is already running (pid {found['pid']}) on http://127.0.0.1:{found['port']}")
    if options.port not in {None, found["port"]}:
        print(f"--port {options.port} was ignored: to move it, type `vaultd restart --port {options.port}`")
    if options.accept_rollback and found["locked"]:
        _accept_rollback()
    return 0


def _accept_rollback() -> None:
    """The remedy of StoreRolledBack, typed while the daemon runs locked: the consent counts for the next `unlock`."""
    link = Link(running.places())
    body: dict[str, Any] = {"accept_rollback": True}
    if link.call("GET", "/v1/status")["store"] != "file":
        return
    if sys.stdin.isatty():
        body["passphrase"] = getpass.getpass("Passphrase of vaultd's store: ") or None
    try:
        link.call("POST", "/v1/unlock", body)
    except Refusal as refusal:
        if refusal.code != "Locked":
            raise
        print(f"the store is taken as it is found; next: {refusal.message}")
        return
    print("unlocked: the store is taken as it was found")


def _spawned(options: argparse.Namespace) -> dict[str, Any]:
    """What the background process says once it serves, or why it does not."""
    from vaultd.host.hardening import handed_on

    reading, writing = os.pipe()
    command = [sys.executable, "-I", "-m", "vaultd", "start", "--foreground", "--ready-fd", str(writing)]
    command += ["--port", str(options.port)] if options.port else []
    command += ["--config", str(options.config.absolute())] if options.config else []
    command += [f"--{flag}" for flag in ("debug", "accept-rollback") if getattr(options, flag.replace("-", "_"))]
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        try:
            process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(writing,),
                start_new_session=True,
                cwd="/",
                env=handed_on(os.environ),
            )
        except OSError as exc:
            raise _not_run(exc) from exc
        finally:
            os.close(writing)
        try:
            return _first_line(reading, process)
        except KeyboardInterrupt:
            raise _interrupted("vaultd goes on starting in the background: type `vaultd status`") from None


def _not_run(exc: OSError) -> _Failure:
    """No process came of it: an interpreter that was moved or may not be executed, or no memory for one more."""
    if isinstance(exc, FileNotFoundError | PermissionError):
        mend = f"look at it with `ls -l {shlex.quote(sys.executable)}`, give it back, then type `vaultd start`"
        return _Failure(f"the Python that runs vaultd, {sys.executable}, cannot be run ({exc.strerror}): {mend}")
    return _Failure(f"no process can be started ({exc.strerror}): end some programs, then type `vaultd start`")


def _first_line(reading: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    told = b""
    end = time.monotonic() + START_SECONDS
    while not told.endswith(b"\n"):
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        part = os.read(reading, 65536) if ready else b""
        if not part:
            break
        told += part
    process.returncode = 0  # it goes on without us, and nobody waits for it
    if told.endswith(b"\n"):
        found: dict[str, Any] = json.loads(told)
        return found
    return {"ok": False, "message": f"the daemon ended before it served: look at {running.places().log}"}


def _unlock(told: dict[str, Any]) -> dict[str, Any]:
    """The file store and a person: ask for the passphrase here (twice, when new)."""
    new = bool(told["new_store"])
    try:
        first = getpass.getpass("New passphrase for vaultd's store: " if new else "Passphrase of vaultd's store: ")
        if new and first and getpass.getpass("The same passphrase again: ") != first:
            print("vaultd: the two differ, so no store was made: type `vault-client unlock`", file=sys.stderr)
            return told
    except EOFError:
        return told
    if not first:
        return told
    link = Link(running.places())
    try:
        link.call("POST", "/v1/unlock", {"passphrase": first})
    except Refusal as refusal:
        print(f"vaultd: {refusal.message}", file=sys.stderr)
        return told
    return {**told, **link.call("GET", "/v1/status")}


def _introduce(told: dict[str, Any]) -> None:
    """Endpoint, store in use, and the next step."""
    print(f"vaultd {told['version']} serves on http://127.0.0.1:{told['port']} (pid {told['pid']})")
    where = {"keyring": "the OS keyring", "file": f"the encrypted file {running.places().store}"}[str(told["store"])]
    print(f"store: {where}{', locked' if told['locked'] else ''}")
    for warning in told.get("warnings", ()):
        print(f"warning: {warning}")
    if told["locked"]:
        print(f"next: {told['locked_reason']}")
    elif not told.get("identities"):
        print("next: vault-client add IDENTITY")
    else:
        print("next: vault-client list")


def _foreground(options: argparse.Namespace) -> int:
    """Be the daemon: in this process, until a signal."""
    from vaultd.command.by_unit import given_once
    from vaultd.host.supervisors import ONCE
    from vaultd.lifecycle import foreground

    once = given_once(os.environ.pop(ONCE, ""))
    return foreground.main(
        port=options.port,
        config=options.config,
        debug=options.debug or "debug" in once,
        accept_rollback=options.accept_rollback or "accept-rollback" in once,
        ready_fd=options.ready_fd,
    )


# ---- the other commands ----


def stop(_options: argparse.Namespace) -> int:
    """Stop it and wait until it is gone; with it the sockets that would start it again."""
    if (unit := _unit()) is not None and unit.supervisor.listens():
        return _stop_unit(unit)
    found = running.answer() or (running.first_answer(ANSWER_SECONDS) if running.held() else None)
    if found is None:
        if running.held():
            raise _Failure(f"vaultd runs but does not answer: type `vaultd logs`, then {running.kill()}")
        if elsewhere := running.elsewhere():
            raise _Failure(elsewhere)
        print("vaultd is not running")
        return 0
    pid = int(found["pid"])
    with running.watched(pid) as ended:
        Link(running.places()).call("POST", "/v1/stop", {})
        if not ended(STOP_SECONDS):
            raise _Failure(f"vaultd (pid {pid}) did not stop in {STOP_SECONDS:.0f} s: type `kill -9 {pid}`")
    print(f"vaultd (pid {pid}) has stopped")
    return 0


def _stop_unit(unit: OwnUnit) -> int:
    from vaultd.command import by_unit
    from vaultd.errors import VaultdError

    try:
        pid = by_unit.stop(unit)
    except VaultdError as exc:
        raise _Failure(exc.message, exc.exit) from exc
    who = "vaultd was not running" if pid is None else f"vaultd (pid {pid}) has stopped"
    print(f"{who}; the sockets of {unit.name} are closed until `vaultd start` or the next login")
    return 0


def restart(options: argparse.Namespace) -> int:
    """Stop, then start: sessions, grants and tokens survive. What would keep it from starting again is found first."""
    from vaultd.command.restarting import look_ahead
    from vaultd.errors import VaultdError

    found = running.answer()
    unit = _unit()
    try:
        if unit is not None:
            return _restart_unit(unit, options, found)
        ahead = look_ahead(found, port=options.port, config=options.config)
    except VaultdError as exc:
        goes_on = "" if found is None else f"nothing was stopped, vaultd (pid {found['pid']}) goes on: "
        raise _Failure(goes_on + exc.message, exc.exit) from exc
    options.port, options.config = ahead.port, ahead.config
    stop(options)
    for each in ahead.said:
        print(each)
    return start(options)


def _restart_unit(unit: OwnUnit, options: argparse.Namespace, found: dict[str, Any] | None) -> int:
    """By the service manager, and from a daemon without units over to it. Raises VaultdError before anything ends."""
    from vaultd.command import by_unit
    from vaultd.command.restarting import look_ahead

    by_unit.once(unit, options)
    theirs = found is not None and unit.supervisor.pid() == found["pid"]
    if found is not None or not unit.supervisor.listens():
        look_ahead(found, port=unit.port, config=None)
    if found is not None and not theirs:
        stop(options)
        found = None
    return _by_unit(unit, options, restart=True, found=found)


def status(options: argparse.Namespace) -> int:
    """Whether it runs, and where."""
    found = running.answer()
    if options.json:
        print(json.dumps({"running": found is not None, **_brief(found)}))
    elif found is None:
        print(_silence())
    else:
        state = "locked" if found["locked"] else "unlocked"
        where = f"http://127.0.0.1:{found['port']} (pid {found['pid']}{_keeper_of(found)})"
        print(f"vaultd {found['version']} serves on {where}, {state}{_run_by(found)}")
    return 0 if found is not None else UNREACHABLE


def _silence() -> str:
    """Why there is no answer, and what to type."""
    unit = running.asleep()
    if unit is not None:
        held = f"{unit.name} holds 127.0.0.1:{unit.port}, and the first use starts it"
        return f"vaultd is not running; {held}: type `vaultd start`"
    return running.elsewhere() or "vaultd is not running: type `vaultd start`"


def _run_by(found: dict[str, Any]) -> str:
    """Where units are installed, whether it runs by them."""
    unit = own_unit.find()
    if unit is None or not unit.supervisor.answers():
        return ""
    theirs = unit.supervisor.pid() == found["pid"]
    return f", run by {unit.supervisor.name}" if theirs else f", without {unit.name}: type `vaultd restart`"


def _keeper_of(found: dict[str, Any]) -> str:
    """The process that holds the keys, where it is another one."""
    keeper = found.get("keeper_pid")
    return "" if keeper in {None, found["pid"]} else f", keeper pid {keeper}"


def _brief(found: dict[str, Any] | None) -> dict[str, Any]:
    """{pid, port, version, locked} of interface.md §2."""
    return _NOT_RUNNING if found is None else {name: found.get(name) for name in _NOT_RUNNING}


_NOT_RUNNING = {"pid": None, "port": None, "version": __version__, "locked": None}


def logs(options: argparse.Namespace) -> int:
    """The log, and with -f what is written from now on."""
    path = Path(running.places().log)
    try:
        file = path.open(errors="replace")
    except FileNotFoundError:
        raise _Failure(f"there is no {path} yet: type `vaultd start`") from None
    return _print_log(file, path, follow=options.follow)


def _print_log(file: IO[str], path: Path, *, follow: bool) -> int:
    with contextlib.closing(file):
        while (part := file.read(_CHUNK)) and not stdio.failure(sys.stdout):
            sys.stdout.write(part)
        while follow and not stdio.failure(sys.stdout):
            sys.stdout.flush()
            time.sleep(0.25)
            file = _reopened(file, path)
            sys.stdout.write(file.read())
    return 0


def _reopened(file: IO[str], path: Path) -> IO[str]:
    """The file that stands at `path` now: the log is rotated by rename."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            sys.stdout.write(file.read())
            file.close()
            return path.open(errors="replace")
    return file


def check(options: argparse.Namespace) -> int:
    """Every diagnosis of this side; 1 when any is not well."""
    if options.audit:
        return _check_audit(options)
    try:
        found = None if running.asleep() else Link(running.places()).call("GET", "/v1/checks", seconds=60)["checks"]
    except Stop:
        found = None
    if found is None:
        from vaultd import checks
        from vaultd.files import Files
        from vaultd.layout import Layout

        layout = Layout.find(os.environ)
        found = [each.wire() for each in checks.run(layout, Files(), os.environ)]
    if options.json:
        print(json.dumps({"checks": found}))
    else:
        for each in found:
            print(f"{'ok  ' if each['ok'] else 'BAD '} {each['name']:<12} {each['message']}")
            if each["remedy"]:
                print(f"     {'':<12} → {each['remedy']}")
    return 0 if all(each["ok"] for each in found) else 1


def _check_audit(options: argparse.Namespace) -> int:
    """The audit log alone, line by line."""
    from vaultd.command import auditing
    from vaultd.errors import VaultdError

    try:
        return auditing.run(json_wanted=options.json)
    except VaultdError as exc:
        raise _Failure(exc.message, exc.exit) from exc


def service(options: argparse.Namespace) -> int:
    """The units of the daemon itself, or of the link-local addresses."""
    from vaultd.errors import VaultdError

    try:
        if options.link_local is not None:
            from vaultd.command import service as linked

            return linked.run(options.action, options.link_local, ecs=options.ecs)
        from vaultd.command import installing

        return installing.run(options.action, installing.Wanted(config=options.config, strict=options.strict))
    except VaultdError as exc:
        raise _Failure(exc.message, exc.exit) from exc


def link_local(options: argparse.Namespace) -> int:
    """What the units of the link-local addresses run."""
    from vaultd.command import link_local as handing

    return handing.run(options.dialect, options.profile)
