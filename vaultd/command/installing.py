"""`vaultd service install|uninstall|status`: the units of the daemon itself, in the user's own directory.

Rules
- What is written is shown. What we did not write, or somebody has changed since, is named and left alone.
- Nothing that runs is stopped by an install: what has to begin anew is told.
- The daemon that a service manager starts sees nothing of this shell. What the contract reads of it is written into the
  unit; a secret (a proxy's password) never is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vaultd import ownership
from vaultd.command import own_unit, running
from vaultd.command.service import Machine
from vaultd.errors import FileRefused, Misconfigured, Unwritable
from vaultd.files import Files
from vaultd.host import units
from vaultd.host.supervisors import DAEMON, Run, Supervisor
from vaultd.layout import Layout, check_runtime_dir, check_socket_path
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.lifecycle.surroundings import read_settings

_NOT_EVEN_ONE = 1
#: What the contract reads of the environment of `vaultd start` (interface.md §1, §3, §7).
_READ = (
    "VAULTD_STORE", "VAULTD_FEDERATION_URL", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip
_READ_BEGINNING = "AWS_ENDPOINT_URL"
_PLACES = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")
_STRICT = f"{DAEMON}.d/strict.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be installed. `config`: of the command line, else config.toml."""

    config: Path | None = None
    strict: bool = False
    machine: Machine = field(default_factory=Machine)
    run: Run | None = None

    @property
    def folder(self) -> Path:
        """Where the service manager looks."""
        return own_unit.folder(self.machine.environ, platform=self.machine.platform)

    @property
    def supervisor(self) -> Supervisor:
        """Whether it runs, it has to be asked."""
        return own_unit.supervisor(self.machine.environ, platform=self.machine.platform, run=self.run)

    @property
    def names(self) -> tuple[str, ...]:
        """Of every file that there may be, below `folder`."""
        return ("vaultd.plist",) if self.machine.platform == "darwin" else ("vaultd.socket", DAEMON, _STRICT)


# ---- install ----


def install(wanted: Wanted) -> int:
    """Show and write the units; have them taken, where a service manager runs. Raises VaultdError."""
    files, layout = Files(), Layout.find(wanted.machine.environ, platform=wanted.machine.platform)
    found = running.answer()
    _suitable(wanted, layout)
    files.make_dirs(layout)
    made = _made(wanted, files, layout)
    before = _readable(wanted)
    for name, text in made.items():
        print(f"# ---- {wanted.folder / name}\n{text}")
    changed = _write(wanted, files, made, before)
    if wanted.strict:
        print(
            "warning: with --strict vaultd cannot see which program a client is: see the comment in strict.conf above"
        )
    for secret in _left_out(wanted.machine.environ):
        print(f"warning: {secret} holds a password and was not written into a unit: type it into config.toml, [aws]")
    _take(wanted, found, changed=changed)
    return 0


def _suitable(wanted: Wanted, layout: Layout) -> None:
    machine = wanted.machine
    check_runtime_dir(machine.environ, platform=machine.platform)
    check_socket_path(layout.control_sock, platform=machine.platform)
    elsewhere = own_unit.bound(machine.environ, platform=machine.platform)
    if elsewhere is not None and elsewhere[1] != str(layout.control_sock):
        raise Unwritable(
            f"the units in {wanted.folder} are for another home of vaultd, with {elsewhere[1]}, and a user has them "
            "once: type `vaultd service uninstall`, then the same again"
        )
    if machine.platform != "darwin" and not machine.environ.get("XDG_RUNTIME_DIR"):
        raise Misconfigured(
            "XDG_RUNTIME_DIR is not set, so no systemd of yours is reached: log in (`su -` and `sudo` are no login), "
            "or use `vaultd start` without units"
        )


def _made(wanted: Wanted, files: Files, layout: Layout) -> dict[str, str]:
    """Name → text, with its stamp. Raises what would keep the daemon from starting, too."""
    environ = wanted.machine.environ
    config = None if wanted.config is None else wanted.config.absolute()
    settings = read_settings(files, layout, environ, port=None, config=config)
    PassphraseFile(files, environ).check()
    more = [] if config is None else ["--config", str(config)]
    fill = _launchd if wanted.machine.platform == "darwin" else _systemd
    return {name: units.stamped(text) for name, text in fill(wanted, layout, settings.listen.port, more)}


def _systemd(wanted: Wanted, layout: Layout, port: int, more: list[str]) -> Iterator[tuple[str, str]]:
    machine = wanted.machine
    passphrase = machine.environ.get("VAULTD_PASSPHRASE_FILE")
    command = [machine.python, "-I", "-m", "vaultd", "start", "--foreground", *more]
    words = {
        "PORT": str(port),
        "CONTROL": units.path(str(layout.control_sock)),
        "ENVIRONMENT": units.environment(_environment(machine)),
        "CREDENTIAL": _CREDENTIAL + units.path(os.path.abspath(passphrase)) if passphrase else "",  # noqa: PTH100
        "VAULTD": units.program(command),
        "RUNTIME": _RUNTIME if layout.run == Path(machine.environ.get("XDG_RUNTIME_DIR", ""), "vaultd") else "",
        "WRITABLE": " ".join(units.word(str(each)) for each in layout.directories),
    }
    names = {"vaultd.socket": "vaultd.socket", DAEMON: DAEMON}
    if wanted.strict:
        names[_STRICT] = "vaultd-strict.conf"
    for name, source in names.items():
        yield name, units.filled(units.template("systemd", source), words)


#: An empty line where the file is not there: the daemon then starts locked and says so, where systemd would refuse.
_CREDENTIAL = "SetCredential=vaultd-passphrase:\\n\nLoadCredential=vaultd-passphrase:"
#: Tokens in it outlive the daemon (architecture.md §7).
_RUNTIME = "RuntimeDirectory=vaultd\nRuntimeDirectoryMode=0700\nRuntimeDirectoryPreserve=yes"


def _launchd(wanted: Wanted, layout: Layout, port: int, more: list[str]) -> Iterator[tuple[str, str]]:
    machine = wanted.machine
    if wanted.strict:
        raise Misconfigured("--strict is a drop-in for systemd, and launchd has nothing like it: leave it out")
    logs = Path(machine.environ.get("HOME") or Path.home(), "Library/Logs/vaultd")
    Files().make_dir(logs)
    variables = _environment(machine)
    if passphrase := machine.environ.get("VAULTD_PASSPHRASE_FILE"):
        variables["VAULTD_PASSPHRASE_FILE"] = os.path.abspath(passphrase)  # noqa: PTH100
    words = {"PYTHON": machine.python, "PORT": str(port), "CONTROL": str(layout.control_sock), "LOGS": str(logs)}
    yield "vaultd.plist", units.plist(units.template("launchd", "vaultd.plist"), words, variables, more=more).decode()


def _environment(machine: Machine) -> dict[str, str]:
    """What the daemon would have read of this shell."""
    environ = machine.environ
    values = machine.finding
    values.pop("XDG_RUNTIME_DIR", None)  # the service manager's own; its sockets are there
    if "VAULTD_HOME" not in values:
        values |= {name: environ[name] for name in _PLACES if environ.get(name, "").startswith("/")}
    elif environ.get("HOME"):
        values |= {"HOME": environ["HOME"]} if _other_home(machine) else {}
    read = {name: value for name, value in environ.items() if name in _READ or name.startswith(_READ_BEGINNING)}
    hidden = set(_left_out(environ))
    return values | {name: value for name, value in sorted(read.items()) if value and name not in hidden}


def _other_home(machine: Machine) -> bool:
    return "HOME" in Machine(environ={"HOME": machine.environ["HOME"]}, uid=machine.uid).finding


def _left_out(environ: Mapping[str, str]) -> list[str]:
    """URLs with a password in them."""
    return [
        name
        for name, value in sorted(environ.items())
        if (name in _READ or name.startswith(_READ_BEGINNING)) and _has_password(value)
    ]


def _has_password(text: str) -> bool:
    try:
        return "://" in text and urlsplit(text).username is not None  # a token may stand alone there
    except ValueError:
        return True  # nobody can say


def _readable(wanted: Wanted) -> dict[str, str]:
    """Name → text of the units that are there. Raises FileRefused for one that is not ours to replace."""
    found = {name: text for name in wanted.names if (text := _text(wanted.folder / name)) is not None}
    for name, text in found.items():
        state = units.unchanged(text)
        if not state:
            raise FileRefused(_whose(wanted.folder / name, changed=state is False), path=str(wanted.folder / name))
    return found


def _text(path: Path) -> str | None:
    content = Files().read_config(path)
    return None if content is None else content.decode(errors="replace")


def _whose(path: Path, *, changed: bool) -> str:
    quoted = ownership.quoted(path)
    if changed:
        return (
            f"{path} was changed since `vaultd service install` wrote it, so it is left alone: move the changes into a "
            f"drop-in (`systemctl --user edit {path.name}`), run `rm {quoted}`, then type the same again"
        )
    return f"{path} is not vaultd's, so it is left alone: run `mv {quoted} {quoted}.old`, then type the same again"


def _write(wanted: Wanted, files: Files, made: Mapping[str, str], before: Mapping[str, str]) -> bool:
    """Whether anything is another than before."""
    changed = {name: text for name, text in made.items() if before.get(name) != text}
    for name, text in changed.items():
        path = wanted.folder / name
        _make_folder(path)
        files.replace(path, text.encode())
    for name in before.keys() - made.keys():
        files.remove(wanted.folder / name)
        print(f"removed {wanted.folder / name}, which nobody asked for this time")
    return bool(changed) or bool(before.keys() - made.keys())


def _make_folder(path: Path) -> None:
    """What is missing above `path`, 0700 whatever the umask; nothing below what others may change."""
    ownership.check_ancestors(path)
    for each in [parent for parent in reversed(path.parents) if not parent.exists()]:
        try:
            each.mkdir(mode=0o700)
        except OSError as exc:
            raise _unmade(path.parent, each, exc) from exc


def _unmade(folder: Path, missing: Path, exc: OSError) -> Unwritable:
    """`missing` is the first of `folder` that is not there."""
    if missing.is_symlink():
        mend = f"run `ls -l {ownership.quoted(missing)}`, make what that link names, then type the same again"
        return Unwritable(f"{folder} cannot be made ({missing} is a link to nothing): {mend}")
    if isinstance(exc, PermissionError):
        mend = f"type `chmod u+rwx {ownership.quoted(missing.parent)}`, then the same again"
        return Unwritable(f"{folder} cannot be made ({ownership.reason_of(exc)}): {mend}")
    return ownership.unwritable(exc, missing)


def _take(wanted: Wanted, found: Mapping[str, object] | None, *, changed: bool) -> None:
    """Have the service manager take the units, and say what is next."""
    supervisor = wanted.supervisor
    if not supervisor.answers():
        print(f"{supervisor.name} does not run for you here, so nothing was started. Where it does, type:")
        print("  vaultd restart" if wanted.machine.platform == "darwin" else _BY_HAND)
        return
    if found is not None and supervisor.pid() != found["pid"]:  # its sockets are not the service manager's yet
        supervisor.enable(now=False)
        print(f"vaultd (pid {found['pid']}) still runs without its units: type `vaultd restart`")
        return
    supervisor.enable()
    if found is None:
        print(f"{supervisor.name} listens for vaultd now and from each login on; the first use starts it")
    elif changed:
        print(f"installed; vaultd (pid {found['pid']}) goes on as it was: type `vaultd restart`")
    else:
        print(f"nothing has changed: vaultd (pid {found['pid']}) runs by its units")


_BY_HAND = "  systemctl --user daemon-reload\n  systemctl --user enable --now vaultd.socket"


# ---- uninstall, status ----


def uninstall(wanted: Wanted) -> int:
    """Stop what they run, and remove the units that we wrote; what somebody changed is named. Raises VaultdError."""
    found = _readable(wanted)
    if not found:
        print("no units of vaultd are installed")
        return 0
    supervisor, files = wanted.supervisor, Files()
    answers = supervisor.answers()
    if answers:
        supervisor.forget()
    for name in found:
        files.remove(wanted.folder / name)
        print(f"removed {wanted.folder / name}")
    if answers:
        supervisor.reload()
    done = "its sockets are closed" if answers else f"{supervisor.name} does not run for you here, so none was stopped"
    print(f"{done}: type `vaultd start` to run vaultd without units")
    return 0


def status(wanted: Wanted) -> int:
    """Which units are there, whether they are as we wrote them, and what runs by them; 1 when none are."""
    texts = {name: text for name in wanted.names if (text := _text(wanted.folder / name)) is not None}
    if not texts:
        print("no units of vaultd are installed: type `vaultd service install`")
        return _NOT_EVEN_ONE
    for name, text in texts.items():
        print(f"{wanted.folder / name}: {_STATES[units.unchanged(text)]}")
    unit = own_unit.find(wanted.machine.environ, platform=wanted.machine.platform, run=wanted.run)
    if unit is None:
        print("they are for another home of vaultd: type `vaultd service uninstall`, then `vaultd service install`")
        return 0
    supervisor = unit.supervisor
    if not supervisor.answers():
        print(f"{supervisor.name} does not run for you here: type `vaultd start` to run vaultd without units")
        return 0
    listens, pid = supervisor.listens(), supervisor.pid()
    found = None if listens else running.answer()  # one that was there before its units
    if found is not None:
        print(f"vaultd: runs without its units (pid {found['pid']})\nnext: vaultd restart")
        return 0
    print(f"127.0.0.1:{unit.port} and {unit.control}: {'held by ' + supervisor.name if listens else 'not open'}")
    print(f"vaultd: {'stopped' if pid is None else f'runs by its units (pid {pid})'}")
    if not listens:
        print("next: vaultd start")
    return 0


_STATES = {True: "as it was installed", False: "changed since it was installed", None: "not written by vaultd"}


def _check_home(machine: Machine) -> None:
    """Where the service manager looks for units depends on it; VAULTD_HOME does not change that."""
    home, config = machine.environ.get("HOME"), machine.environ.get("XDG_CONFIG_HOME", "")
    if home is None or home.startswith("/") or (machine.platform != "darwin" and config.startswith("/")):
        return
    meant = ownership.quoted(Path(machine.home or "/home/NAME"))
    raise Misconfigured(
        f"HOME is no full path ({home!r}), and units are looked for below it: type `export HOME={meant}`, then the "
        "same again"
    )


def run(action: str | None, wanted: Wanted) -> int:
    """The exit status. Raises VaultdError."""
    actions = {"install": install, "uninstall": uninstall, "status": status}
    if action is None:
        print("vaultd: say what to do: type `vaultd service install`", file=sys.stderr)
        return 2
    _check_home(wanted.machine)
    return actions[action](wanted)
