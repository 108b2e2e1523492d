"""`vaultd service … --link-local`: units that have stock systemd, or launchd, listen on the link-local addresses.

Rules
- Nothing here runs as root, and nothing is started: the units are filled in, shown, put into a directory of ours, and
  the commands that install them are printed, of stock programs only.
- A machine on which the addresses are somebody's already (EC2, ECS, another cloud) is refused: its system asks them.
- An unknown profile is refused now; later it would be told in a journal that nobody reads.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vaultd.catalog import CatalogWatch
from vaultd.errors import Misconfigured, Unwritable
from vaultd.files import Files
from vaultd.host import units
from vaultd.host.clock import SystemClock
from vaultd.host.link_local import ECS, IMDS, PLACES, LinkLocal, cloud
from vaultd.layout import Layout
from vaultd.lifecycle.surroundings import read_settings

USAGE = 2
_NOT_EVEN_ONE = 1
#: What says where doors.sock is; the service manager gives a unit none of them.
_FINDING = ("VAULTD_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]*")
_ETC = "etc/systemd/system"
_DAEMONS = "Library/LaunchDaemons"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is read of the machine; a test has its own."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    platform: str = sys.platform
    python: str = sys.executable
    uid: int = field(default_factory=os.geteuid)
    which: Callable[[str], str | None] = shutil.which

    @property
    def user(self) -> str:
        """By name where that is plain, else by number: both are taken."""
        try:
            name = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)
        return name if _USER_NAME.fullmatch(name) else str(self.uid)

    @property
    def home(self) -> str:
        """Of the user, whatever the environment says; empty where nobody knows."""
        return _home(self.uid)

    @property
    def finding(self) -> dict[str, str]:
        """The variables by which the unit finds the same directories as we do."""
        values = {name: self.environ[name] for name in _FINDING if self.environ.get(name, "").startswith("/")}
        if "VAULTD_HOME" in values:
            return {"VAULTD_HOME": values["VAULTD_HOME"]}
        if self.environ.get("HOME", "") not in {"", self.home}:
            values["HOME"] = self.environ["HOME"]
        return values


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def run(action: str | None, profile: str, *, ecs: bool, machine: Machine | None = None) -> int:
    """The exit status. Raises VaultdError."""
    machine = machine or Machine()
    if action == "install":
        return install(profile, ecs=ecs, machine=machine)
    if action == "uninstall":
        return uninstall(machine)
    if action == "status":
        return status(machine)
    print("vaultd: say what to do: type `vaultd service install --link-local PROFILE`", file=sys.stderr)
    return USAGE


# ---- install ----


def install(profile: str, *, ecs: bool, machine: Machine) -> int:
    """Show the units, keep them below the state directory, print what installs them."""
    if not profile:
        said = "--link-local needs the PROFILE that 169.254.169.254 is to serve"
        print(f"vaultd: {said}: type `vaultd service install --link-local PROFILE`", file=sys.stderr)
        return USAGE
    files, layout = Files(), Layout.find(machine.environ)
    _suitable(machine)
    _known(profile, files, layout, machine)
    places = (IMDS, ECS) if ecs else (IMDS,)
    made = {name: text for place in places for name, text in _filled(place, profile, machine)}
    staged = _staged(made, files, layout)
    for path, text in zip(staged, made.values(), strict=True):
        print(f"# ---- {path}\n{text}")
    print("# Nothing was installed yet. These commands do it; of ours nothing runs as root:")
    for line in _installing(places, staged, machine):
        print(line)
    return 0


def _suitable(machine: Machine) -> None:
    if (whose := cloud(machine.environ, root=machine.root)) is not None:
        raise Misconfigured(
            f"This is {whose}, whose own system asks the link-local addresses, so they are left alone here: use "
            "`vault-client use PROFILE` or `vault-client use --imds PROFILE`."
        )
    if machine.platform != "darwin" and not _has_systemd(machine):
        raise Misconfigured(
            "systemd does not run here, and only root can open 169.254.169.254:80 for vaultd: use `vault-client use "
            "--imds PROFILE`, or see docs/link-local.md for another service manager."
        )
    for unit in _installed(machine):
        if (other := _user_of(unit)) not in {None, machine.user, str(machine.uid)}:
            raise Unwritable(
                f"{unit} is installed for user {other}, and a machine has each address once: have it removed with "
                "`vaultd service uninstall --link-local`, then type the same again."
            )


def _has_systemd(machine: Machine) -> bool:
    """As sd_booted(3) has it, and systemctl to talk to it."""
    return (machine.root / "run/systemd/system").is_dir() and machine.which("systemctl") is not None


def _known(profile: str, files: Files, layout: Layout, machine: Machine) -> None:
    """Raises UnknownProfile with the nearest names, BadProfile, and Misconfigured for a file that cannot be read."""
    settings = read_settings(files, layout, machine.environ, port=None, config=None)
    configured = settings.aws.config_file
    watch = CatalogWatch(
        files=files,
        settings=settings,
        environ=machine.environ,
        config_path=Path(configured).expanduser() if configured else Layout.aws_config(machine.environ),
        identities=lambda: (),
        clock=SystemClock(),
    )
    if watch.trouble:
        raise Misconfigured(watch.trouble)
    watch.current.profiles.chain(profile)


def _filled(place: LinkLocal, profile: str, machine: Machine) -> Iterator[tuple[str, str]]:
    if machine.platform == "darwin":
        name = f"{place.unit}.plist"
        words = {"USER": machine.user, "PYTHON": machine.python, "PROFILE": profile}
        yield name, units.plist(units.template("launchd", name), words, machine.finding).decode()
        return
    words = {
        "USER": machine.user,
        "ENVIRONMENT": units.environment(machine.finding),
        "VAULTD": units.program([machine.python, "-I", "-m", "vaultd"]),
        "PROFILE": units.word(profile),
    }
    for name in (f"{place.unit}.socket", f"{place.unit}.service"):
        yield name, units.filled(units.template("systemd", name), words)


def _staged(made: Mapping[str, str], files: Files, layout: Layout) -> list[Path]:
    folder = layout.state / "units"
    files.make_dir(layout.state)
    files.make_dir(folder)
    for name, text in made.items():
        files.replace(folder / name, text.encode())
    return [folder / name for name in made]


def _forget_staged(machine: Machine) -> None:
    files, folder = Files(), Layout.find(machine.environ).state / "units"
    for name in _names(machine):
        files.remove(folder / name)


def _installing(places: tuple[LinkLocal, ...], staged: list[Path], machine: Machine) -> Iterator[str]:
    sources = " ".join(shlex.quote(str(path)) for path in staged)
    if machine.platform == "darwin":
        yield f"sudo install -m 0644 -o root -g wheel {sources} /{_DAEMONS}/"
        for place in places:
            yield f"sudo ifconfig lo0 alias {place.address}/32"
            yield f"sudo launchctl bootstrap system /{_DAEMONS}/{place.unit}.plist"
        return
    names = " ".join(f"{place.unit}.{kind}" for place in places for kind in ("socket", "service"))
    yield f"sudo install -m 0644 -o root -g root {sources} /{_ETC}/"
    yield "sudo systemctl daemon-reload"
    yield f"sudo systemctl enable {names}"
    yield f"sudo systemctl restart {names}"


# ---- uninstall, status ----


def uninstall(machine: Machine) -> int:
    """Print what removes the units; our own copies, which were to be installed, go at once."""
    _forget_staged(machine)
    found = _installed(machine)
    if not found:
        print("no unit of a link-local address is installed")
        return 0
    names = [path.name for path in found]
    dialects = [place for place in PLACES.values() if any(name.startswith(place.unit) for name in names)]
    print("# These commands remove them:")
    if machine.platform == "darwin":
        for place in dialects:
            print(f"sudo launchctl bootout system/{place.unit}")
            print(f"sudo ifconfig lo0 -alias {place.address}")
    else:
        print(f"sudo systemctl disable --now {' '.join(names)}")
    print(f"sudo rm {' '.join(shlex.quote(str(path)) for path in found)}")
    if machine.platform != "darwin":
        print("sudo systemctl daemon-reload")
    return 0


def status(machine: Machine) -> int:
    """Which unit is there, for whom and which profile; 1 when none is."""
    found = _installed(machine)
    for path in found:
        print(f"{path}: user {_user_of(path) or '-'}")
    if not found:
        print("no unit of a link-local address is installed: type `vaultd service install --link-local PROFILE`")
        return _NOT_EVEN_ONE
    for place in PLACES.values():
        if any(path.name.startswith(place.unit) for path in found):
            print(f"{place.address}: {_address_state(place)}")
    return 0


def _address_state(place: LinkLocal) -> str:
    """As /proc/net/tcp has it; there is none on macOS."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(place.address.split("."))) + f":{place.port:04X}"
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return "see `sudo launchctl print system/" + place.unit + "`"
    listening = any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)
    return "listening" if listening else f"nobody listens: type `systemctl status {place.unit}.socket`"


def _names(machine: Machine) -> list[str]:
    """Of every unit that there may be."""
    kinds = ("plist",) if machine.platform == "darwin" else ("socket", "service")
    return [f"{place.unit}.{kind}" for place in PLACES.values() for kind in kinds]


def _installed(machine: Machine) -> list[Path]:
    folder = machine.root / (_DAEMONS if machine.platform == "darwin" else _ETC)
    return [path for name in _names(machine) if (path := folder / name).exists()]


def _user_of(path: Path) -> str | None:
    """Whom the unit is filled in for; None: a socket unit, or not one of ours."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^User=(\S+)$", text, re.MULTILINE) or re.search(r"<key>UserName</key>\s*<string>([^<]*)<", text)
    return found[1] if found else None
