"""`vaultd service … --link-local` without a system: what is refused, what is shown, how a word gets into a unit."""

from __future__ import annotations

import ctypes
import os
import plistlib
import shlex
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.process.harness import short_directory
from vaultd import cli
from vaultd.command import link_local, service
from vaultd.errors import FileRefused, Misconfigured, UnknownProfile, Unwritable
from vaultd.host import sockets, units
from vaultd.host.link_local import cloud

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
CONFIG = "[profile web-admin]\nregion = us-east-1\n"


def machine(tmp_path: Path, *, platform: str = "linux", config: str = CONFIG, **more: Any) -> service.Machine:
    """With systemd, of no cloud; its user has a home below `tmp_path`."""
    home, root = tmp_path / "home", tmp_path / "root"
    (home / ".aws").mkdir(parents=True, exist_ok=True)
    (home / ".aws/config").write_text(config)
    (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    environ = {"HOME": str(home), "VAULTD_HOME": str(home / "v"), **more.pop("environ", {})}
    return service.Machine(environ=environ, root=root, platform=platform, which=lambda name: f"/bin/{name}", **more)


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("name", "text", "whose"),
    [
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n", "an EC2 instance"),
        ("sys/class/dmi/id/board_vendor", "Amazon EC2\n", "an EC2 instance"),
        ("sys/class/dmi/id/product_uuid", "EC2A1B2C-0000-0000-0000-000000000000\n", "an EC2 instance"),
        ("sys/class/dmi/id/bios_version", "4.11.amazon\n", "an EC2 instance"),
        ("sys/hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n", "an EC2 instance"),
        ("sys/class/dmi/id/product_name", "Google Compute Engine\n", "a Google Cloud machine"),
        ("sys/class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", "an Azure machine"),
        ("sys/class/dmi/id/product_name", "OpenStack Nova\n", "an OpenStack machine"),
    ],
)
def test_a_machine_of_a_cloud_is_refused(tmp_path: Path, name: str, text: str, whose: str) -> None:
    """Its own system asks these addresses: nothing is written, the way without them is named."""
    made = machine(tmp_path)
    put(made.root, name, text)
    with pytest.raises(Misconfigured, match=f"^This is {whose}, .* `vault-client use --imds PROFILE`.$"):
        service.run("install", "web-admin", ecs=False, machine=made)
    assert not (tmp_path / "home/v").exists()


@pytest.mark.parametrize("variable", ["ECS_CONTAINER_METADATA_URI", "ECS_CONTAINER_METADATA_URI_V4"])
def test_a_container_of_ecs_is_refused(tmp_path: Path, variable: str) -> None:
    """169.254.170.2 is the agent's there."""
    made = machine(tmp_path, environ={variable: "http://169.254.170.2/v4/x"})
    with pytest.raises(Misconfigured, match=r"^This is an ECS container, "):
        service.run("install", "web-admin", ecs=True, machine=made)


def test_a_usual_machine_is_nobodys(tmp_path: Path) -> None:
    """Positive control of both: a laptop's vendor, a uuid that holds ec2 in its middle."""
    put(tmp_path, "sys/class/dmi/id/sys_vendor", "LENOVO\n")
    put(tmp_path, "sys/class/dmi/id/product_uuid", "4c4c4544-ec2a-0000-0000-000000000000\n")
    assert cloud({}, root=tmp_path) is None


def test_an_unknown_profile_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """Later it would be told in a journal that nobody reads."""
    with pytest.raises(UnknownProfile, match=r"no profile web-admni in .* Did you mean web-admin\?"):
        service.run("install", "web-admni", ecs=False, machine=machine(tmp_path))


def test_without_systemd_it_is_refused(tmp_path: Path) -> None:
    """There is nobody who could open port 80 for us."""
    made = machine(tmp_path)
    (made.root / "run/systemd/system").rmdir()
    with pytest.raises(Misconfigured, match=r"^systemd does not run here, .* see docs/link-local.md"):
        service.run("install", "web-admin", ecs=False, machine=made)


def test_the_units_of_another_user_are_not_taken_over(tmp_path: Path) -> None:
    """A machine has each address once."""
    made = machine(tmp_path)
    put(made.root, "etc/systemd/system/vaultd-imds.service", "[Service]\nUser=alice\n")
    with pytest.raises(Unwritable, match="is installed for user alice, "):
        service.run("install", "web-admin", ecs=False, machine=made)
    put(made.root, "etc/systemd/system/vaultd-imds.service", f"[Service]\nUser={made.user}\n")
    assert service.run("install", "web-admin", ecs=False, machine=made) == 0


@pytest.mark.parametrize("path", ['/opt/a"b/python', "/opt/a'b/python", "/opt/a\\b/python"])
def test_a_python_that_systemd_cannot_start_is_named(tmp_path: Path, path: str) -> None:
    """A quote or backslash in the path of a program is nothing that escaping mends."""
    with pytest.raises(Misconfigured, match=r"^systemd takes no quote or backslash in the path of a program"):
        service.run("install", "web-admin", ecs=False, machine=machine(tmp_path, python=path))


# ---- what is shown ----


def test_it_shows_the_units_and_stock_commands_only(tmp_path: Path, capsys: Capture) -> None:
    """Nothing of ours after `sudo`, and nothing was run: the units are in a directory of ours, 0700."""
    made = machine(tmp_path)
    assert service.run("install", "web-admin", ecs=False, machine=made) == 0
    said, error = capsys.readouterr()
    staged = tmp_path / "home/v/state/units"
    assert error == ""
    assert staged.stat().st_mode & 0o777 == 0o700
    for each in staged.iterdir():
        assert each.read_text() in said
    commands = [line for line in said.splitlines() if line.startswith("sudo ")]
    assert [shlex.split(line)[1] for line in commands] == ["install", "systemctl", "systemctl", "systemctl"]
    assert commands[0].endswith("/vaultd-imds.socket " + f"{staged}/vaultd-imds.service /etc/systemd/system/")
    text = (staged / "vaultd-imds.service").read_text()
    assert f"\nUser={made.user}\n" in text
    assert f"\nEnvironment=VAULTD_HOME={tmp_path}/home/v\n" in text
    assert f"\nExecStart=:{sys.executable} -I -m vaultd link-local imds -- web-admin\n" in text
    assert "@" not in text.replace("@system-service", "").replace("@…@", "")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_status_and_uninstall_know_what_is_there(tmp_path: Path, capsys: Capture, platform: str) -> None:
    """None: said so, 1 by status. Installed: the commands that remove just that."""
    made = machine(tmp_path, platform=platform)
    assert service.run("uninstall", "", ecs=False, machine=made) == 0
    assert service.run("status", "", ecs=False, machine=made) == 1
    folder = "etc/systemd/system" if platform == "linux" else "Library/LaunchDaemons"
    names = ["vaultd-ecs.socket", "vaultd-ecs.service"] if platform == "linux" else ["vaultd-ecs.plist"]
    service.run("install", "web-admin", ecs=True, machine=made)
    capsys.readouterr()
    for name in names:
        put(made.root, f"{folder}/{name}", (tmp_path / "home/v/state/units" / name).read_text())
    assert service.run("status", "", ecs=False, machine=made) == 0
    told = capsys.readouterr().out
    assert f"{names[-1]}: user {made.user}" in told
    assert "169.254.170.2: " in told
    assert "169.254.169.254" not in told
    assert service.run("uninstall", "", ecs=False, machine=made) == 0
    told = capsys.readouterr().out
    assert "vaultd-ecs" in told
    assert "imds" not in told


@pytest.mark.parametrize("trick", ["folder", "file", "twin", "fifo"])
def test_what_was_put_into_the_place_of_a_unit_is_not_followed(tmp_path: Path, capsys: Capture, trick: str) -> None:
    """security.md §2.2 item 24: a link, hard link or FIFO is refused by name, and what it names is left alone."""
    made, folder, target = machine(tmp_path), tmp_path / "home/v/state/units", tmp_path / "target"
    folder.parent.mkdir(parents=True, mode=0o700)
    (tmp_path / "home/v").chmod(0o700)
    unit = folder / "vaultd-imds.service"
    if trick == "folder":
        target.mkdir()
        folder.symlink_to(target)
    else:
        folder.mkdir(mode=0o700)
        target.write_text("mine")
        if trick == "fifo":
            os.mkfifo(unit)
        else:
            (unit.symlink_to if trick == "file" else unit.hardlink_to)(target)

    with pytest.raises(FileRefused, match="units"):
        service.run("install", "web-admin", ecs=False, machine=made)

    assert capsys.readouterr().out == ""
    assert (list(target.iterdir()) if target.is_dir() else target.read_text()) in ([], "mine")


def test_what_was_shown_goes_with_uninstall(tmp_path: Path) -> None:
    """A unit file of ours that lies about is one that somebody may change before root installs it."""
    made = machine(tmp_path)
    service.run("install", "web-admin", ecs=True, machine=made)
    assert len(list((tmp_path / "home/v/state/units").iterdir())) == 4
    assert service.run("uninstall", "", ecs=False, machine=made) == 0
    assert not list((tmp_path / "home/v/state/units").iterdir())


def test_wrong_usage_is_told(tmp_path: Path, capsys: Capture) -> None:
    """2: install without a profile, nothing to do; link-local without a service manager says who starts it."""
    assert service.run("install", "", ecs=False, machine=machine(tmp_path)) == 2
    assert service.run(None, "web-admin", ecs=False, machine=machine(tmp_path)) == 2
    capsys.readouterr()
    assert cli.main(["link-local", "imds", "web-admin"]) == 2
    assert capsys.readouterr().err.endswith("then `sudo systemctl start vaultd-imds.socket`\n")


def test_a_full_backlog_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect() waits for its owner to accept, for ever: meanwhile nobody would be turned away."""
    with short_directory() as folder:
        _try_a_full_backlog(folder, monkeypatch)


def _try_a_full_backlog(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULTD_HOME", str(folder))
    monkeypatch.setattr(link_local, "ANSWER_SECONDS", 0.1)
    (folder / "run").mkdir(mode=0o700)
    signal.signal(signal.SIGALRM, _waited)
    signal.alarm(10)
    with socket.socket(socket.AF_UNIX) as deaf, socket.socket(socket.AF_UNIX) as first, socket.socket() as listener:
        deaf.bind(str(folder / "run/doors.sock"))
        deaf.listen(0)
        first.connect(str(folder / "run/doors.sock"))
        with pytest.raises(OSError, match="unavailable"):
            link_local._Giving(listener, b"{}\n")._once()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _waited(_number: int, _frame: object) -> None:
    raise AssertionError("connect() waits for ever")


def test_a_giver_whose_socket_was_shut_down_ends(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """It would turn away nobody for ever, at a whole core's cost; the service manager starts another."""
    monkeypatch.setattr(link_local, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(link_local, "POLL_SECONDS", 10.0)
    with short_directory() as folder, socket.socket() as listener:
        monkeypatch.setenv("VAULTD_HOME", str(folder))
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        listener.shutdown(socket.SHUT_RDWR)
        with pytest.raises(SystemExit) as caught:
            link_local._Giving(listener, b"{}\n").go_on()
    assert caught.value.code == 1
    assert "listens no more: type `sudo systemctl restart" in capsys.readouterr().err


# ---- units ----


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("web-admin", "web-admin"),
        ("", '""'),
        ("team prod", '"team prod"'),
        ("50%u", '"50%%u"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("$HOME", '"$HOME"'),
        ("Ünï", '"Ünï"'),
        (";", '";"'),
    ],
)
def test_a_word_of_a_unit(text: str, written: str) -> None:
    """systemd.syntax(7), systemd.service(5); that systemd reads it so is in test_addresses."""
    assert units.word(text) == written


@pytest.mark.parametrize("text", ["a\nExecStartPre=/bin/id", "a\x00b", "a\x1bb", "a\u2028b"])
def test_a_line_never_becomes_two(text: str) -> None:
    """A profile's name cannot write a directive."""
    with pytest.raises(Misconfigured, match="cannot be written into a unit file"):
        units.word(text)


@pytest.mark.parametrize("ecs", [False, True])
def test_the_launchd_files(tmp_path: Path, capsys: Capture, ecs: bool) -> None:
    """Property lists with the user, the socket of launchd and nothing to fill in; blanks, &, < and quotes are text."""
    made = machine(tmp_path, platform="darwin", config='[profile "a <b> & c"]\nregion = us-east-1\n')
    assert service.run("install", "a <b> & c", ecs=ecs, machine=made) == 0
    assert "sudo ifconfig lo0 alias 169.254.169.254/32" in capsys.readouterr().out
    found = {each.name: plistlib.loads(each.read_bytes()) for each in (tmp_path / "home/v/state/units").iterdir()}
    assert sorted(found) == [*(["vaultd-ecs.plist"] if ecs else []), "vaultd-imds.plist"]
    imds = found["vaultd-imds.plist"]
    assert imds["UserName"] == made.user
    assert imds["ProgramArguments"][1:] == ["-I", "-m", "vaultd", "link-local", "imds", "--", "a <b> & c"]
    assert imds["EnvironmentVariables"] == {"VAULTD_HOME": str(tmp_path / "home/v")}
    assert imds["Sockets"]["imds"] == {
        "SockNodeName": "169.254.169.254",
        "SockServiceName": "80",
        "SockFamily": "IPv4",
        "SockType": "stream",
    }
    assert "@" not in repr(found)


class Launchd:
    """libSystem's launch_activate_socket, giving one listening socket."""

    def __init__(self, status: int, given: tuple[int, ...]) -> None:
        self.status = status
        self.array = (ctypes.c_int * len(given))(*given)
        self.count = len(given)
        self.freed = 0
        self.asked = b""

    def launch_activate_socket(self, name: bytes, descriptors: Any, count: Any) -> int:
        self.asked = name
        if self.status == 0:
            descriptors._obj.contents = ctypes.c_int.from_buffer(self.array)
            count._obj.value = self.count
        return self.status

    def free(self, descriptors: object) -> None:
        self.freed += 1


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\x1bb", "a\ud800b"])
def test_a_word_that_no_property_list_takes_is_refused(text: str) -> None:
    """XML has no such characters: a sentence, and not plistlib's ValueError."""
    words = {"USER": "franklin", "PYTHON": "/usr/bin/python3", "PROFILE": text}
    with pytest.raises(Misconfigured, match="cannot be written into a unit file"):
        units.plist(units.template("launchd", "vaultd-imds.plist"), words, {})
    with pytest.raises(Misconfigured, match="cannot be written into a unit file"):
        units.plist(units.template("launchd", "vaultd-ecs.plist"), {**words, "PROFILE": "a"}, {"VAULTD_HOME": text})


def test_launchd_gives_its_sockets_by_name() -> None:
    """launch(3): the array is freed, the descriptors are ours and not inherited; an error is no socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    given = Launchd(0, (listener.detach(),))
    [sock] = sockets.launchd_activated("imds", library=given)
    with sock:
        assert (given.asked, given.freed, sock.getsockname(), os.get_inheritable(sock.fileno())) == (
            b"imds",
            1,
            address,
            False,
        )
    assert sockets.launchd_activated("imds", library=Launchd(3, ())) == []
    assert sockets.launchd_activated("imds", library=object()) == []  # not a Mac


def test_an_installed_wheel_brings_the_files(tmp_path: Path) -> None:
    """As shared data, below share/vaultd, where `units.template` looks."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = {name.partition(".data/data/")[2] for name in zipfile.ZipFile(wheel).namelist() if ".data/data/" in name}
    assert {f"share/vaultd/{each.parent.name}/{each.name}" for each in _travelling()} <= names
    assert all(units.template(each.parent.name, each.name) == each.read_text() for each in _travelling())
    with pytest.raises(Misconfigured, match="was not installed with vaultd"):
        units.template("systemd", "no-such.socket")


def _travelling() -> list[Path]:
    return sorted([*(ROOT / "systemd").iterdir(), *(ROOT / "launchd").iterdir()])


def test_the_two_systemd_services_are_one_but_for_their_words() -> None:
    """What hardens one hardens the other; and neither may run as root or make a socket of the network."""
    imds, ecs = ((ROOT / f"systemd/vaultd-{name}.service").read_text() for name in ("imds", "ecs"))
    directives = [set(text.split("[Service]")[1].splitlines()) for text in (imds, ecs)]
    assert {line.split("=")[0] for line in directives[0] ^ directives[1]} == {"ExecStart"}
    for line in ("User=@USER@", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "RestrictAddressFamilies=AF_UNIX"):
        assert line in directives[0]


@pytest.mark.parametrize(("name", "address"), [("imds", "169.254.169.254"), ("ecs", "169.254.170.2")])
def test_the_sockets_are_of_the_loopback_device(name: str, address: str) -> None:
    """An alias on lo answers ARP on every device: systemd binds the socket to lo, and the alias has host scope."""
    lines = (ROOT / f"systemd/vaultd-{name}.socket").read_text().split("[Socket]")[1].splitlines()
    assert [line for line in lines if line.startswith("ListenStream=")] == [f"ListenStream={address}:80"]
    assert "BindToDevice=lo" in lines
    assert f"ExecStartPre=ip address replace {address}/32 dev lo scope host" in lines
