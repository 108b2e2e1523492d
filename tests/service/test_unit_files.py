"""The unit files as text: what security.md §2.3 measured to be ignored or to break is not in them."""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.process.harness import ROOT
from tests.service import probes
from vaultd.errors import Misconfigured
from vaultd.host import units

PLAIN = ("vaultd.service", "vaultd.socket")
STRICT = "vaultd-strict.conf"
#: security.md §2.3, and what other documents of this table's kind add up to: silently ignored in a user's unit.
IGNORED = {
    "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateNetwork", "ProtectProc", "NoExecPaths", "PrivateDevices",
    "ReadWritePaths", "BindPaths", "IPAddressDeny", "IPAddressAllow", "LimitMEMLOCK",
}  # fmt: skip
#: The unit does not start with them.
BREAKING = {
    "CapabilityBoundingSet", "AmbientCapabilities", "ProtectClock", "SecureBits", "DynamicUser", "User", "Group",
    "ProtectKernelTunables",
}  # fmt: skip
#: A user namespace of its own makes these work.
BY_NAMESPACE = {
    "ProtectSystem", "ProtectHome", "ReadWritePaths", "PrivateTmp", "PrivateDevices", "CapabilityBoundingSet",
}  # fmt: skip
WORDS = {
    "PORT": "9169",
    "CONTROL": "/run/user/1000/vaultd/control.sock",
    "ENVIRONMENT": 'Environment=AWS_CONFIG_FILE=/home/a/config\nEnvironment="VAULTD_STORE=a file"',
    "CREDENTIAL": "LoadCredential=vaultd-passphrase:/etc/hostname",
    "VAULTD": f"{os.path.realpath('/bin/sh')} -I -m vaultd start --foreground",
    "RUNTIME": "RuntimeDirectory=vaultd\nRuntimeDirectoryMode=0700\nRuntimeDirectoryPreserve=yes",
    "WRITABLE": '/home/a/.config/vaultd "/home/a b"',
}


def text(name: str) -> str:
    return (ROOT / "systemd" / name).read_text()


def directives(content: str) -> set[str]:
    return set(re.findall(r"^([A-Za-z]+)=", content, re.MULTILINE))


def unfit(content: str) -> set[str]:
    """The directives of a unit that do nothing, or keep it from starting."""
    found = directives(content)
    allowed = BY_NAMESPACE if re.search(r"^PrivateUsers=yes$", content, re.MULTILINE) else set()
    return found & ((IGNORED | BREAKING) - allowed)


@pytest.mark.parametrize("name", [*PLAIN, STRICT])
def test_no_directive_is_known_to_be_ignored_or_to_break(name: str) -> None:
    """The unit is linted against the table of security.md §2.3."""
    assert unfit(text(name)) == set()


@pytest.mark.parametrize("line", ["ProtectHome=yes", "IPAddressDeny=any", "CapabilityBoundingSet=", "LimitMEMLOCK=1G"])
def test_the_lint_sees_such_a_directive(line: str) -> None:
    """The control: each kind, in the unit that has no user namespace."""
    assert unfit(text("vaultd.service") + line + "\n") == {line.partition("=")[0]}
    assert unfit(text(STRICT) + "IPAddressDeny=any\nProtectClock=yes\n") == {"IPAddressDeny", "ProtectClock"}


def test_families_keep_the_one_that_tells_whose_a_client_is() -> None:
    """security.md §0.8: without AF_NETLINK the peer check dies with errno 97."""
    found = re.search(r"^RestrictAddressFamilies=(.*)$", text("vaultd.service"), re.MULTILINE)
    assert found is not None
    assert set(found[1].split()) == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}


def missing(content: str, probed: Iterable[str]) -> set[str]:
    """The lines of a unit that a probe shows to be enforced, and that this unit does not have."""
    lines = {line for each in probed for line in each.splitlines()} - {"RestrictAddressFamilies=AF_UNIX"}
    shipped = re.sub(r"^ReadWritePaths=.*$", "ReadWritePaths=@HERE@", content, flags=re.MULTILINE).splitlines()
    return lines - set(shipped)


def test_every_directive_that_was_probed_is_shipped() -> None:
    """What the probes show to work is worth nothing in a file where it is not. Controls: one line of each gone."""
    service, strict = text("vaultd.service"), text(STRICT)
    assert missing(service, probes.PLAIN) == missing(strict, ["PrivateUsers=yes", *probes.STRICT]) == set()
    assert missing(service.replace("NoNewPrivileges=yes\n", ""), probes.PLAIN) == {"NoNewPrivileges=yes"}
    assert missing(strict.replace("ProtectHome=", "#ProtectHome="), probes.STRICT) == {"ProtectHome=read-only"}


def test_the_life_of_the_unit() -> None:
    """sd_notify by the main process alone; a watchdog; again after a crash; nobody else's sockets."""
    service, socket = text("vaultd.service"), text("vaultd.socket")

    for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=30", "Restart=on-failure", "RestartSec=1"):
        assert f"\n{line}\n" in service
    assert "\nStartLimitIntervalSec=0\n" in service  # at either limit systemd closes the socket: the port is anybody's
    assert "\nTriggerLimitIntervalSec=0\n" in socket
    for line in ("SocketMode=0600", "DirectoryMode=0700", "ListenStream=127.0.0.1:@PORT@", "BindToDevice=lo"):
        assert f"\n{line}\n" in socket
    assert socket.index("127.0.0.1") < socket.index("@CONTROL@")  # a port that is taken leaves the control socket alone


def filled(folder: Path) -> dict[str, str]:
    """As a user has them."""
    environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    (folder / "run").mkdir(mode=0o700)
    for name in PLAIN:
        (folder / name).write_text(units.stamped(units.filled(text(name), WORDS)))
    return environment


@pytest.mark.needs("systemd-analyze")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing; of a directive that it does not know it does."""
    environment = filled(tmp_path)

    def verify() -> tuple[int, str]:
        done = subprocess.run(
            ["systemd-analyze", "--user", "verify", *(str(tmp_path / name) for name in PLAIN)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    assert verify() == (0, "")
    with (tmp_path / "vaultd.service").open("a") as file:
        file.write("[Service]\nNoNewPriviledges=yes\n")
    assert "NoNewPriviledges" in verify()[1]


def exposure(path: Path, *more: str) -> float:
    """`systemd-analyze security` without a running manager: 0 is shut, 10 is open."""
    done = subprocess.run(
        ["systemd-analyze", "--user", "security", "--offline=true", "--no-pager", *more, str(path)],
        env={"XDG_RUNTIME_DIR": str(path.parent / "run"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done
    return float(found[1])


@pytest.mark.needs("systemd-analyze")
def test_the_score_of_systemd_analyze(tmp_path: Path) -> None:
    """Half of what it counts a user's systemd ignores: 6.2 is left (252), with the drop-in 2.7; bare it is 9.8."""
    filled(tmp_path)
    service, strict, bare = tmp_path / "vaultd.service", tmp_path / "s/vaultd.service", tmp_path / "b/vaultd.service"
    for each in (strict, bare):
        each.parent.mkdir()
        (each.parent / "run").mkdir()
    strict.write_text(service.read_text() + units.filled(text(STRICT), WORDS))
    bare.write_text("[Service]\nExecStart=/bin/sh\n")

    scores = exposure(service), exposure(strict), exposure(bare)
    print(
        f"systemd-analyze security: vaultd.service {scores[0]}, with the strict drop-in {scores[1]}, bare {scores[2]}"
    )
    assert scores[0] <= 6.5
    assert scores[1] <= 3
    assert scores[2] > 9


def test_a_stamp_tells_a_change() -> None:
    """What was written, what was changed, and what is somebody else's are three answers; in XML the stamp is second."""
    made = units.stamped("[Unit]\nDescription=x\n")
    plist = units.stamped('<?xml version="1.0"?>\n<plist/>\n')

    assert units.unchanged(made) is True
    assert units.unchanged(made + "\n") is False
    assert units.unchanged(made.replace("x", "y")) is False
    assert units.unchanged("[Unit]\n") is None
    assert units.unchanged(plist) is True
    assert plist.splitlines()[0].startswith("<?xml")
    assert units.unchanged(plist.replace("<plist/>", "<plist></plist>")) is False


def test_a_path_keeps_its_percent_signs() -> None:
    """Where systemd sees % it reads a specifier; what no line can hold is refused."""
    assert units.path("/a %h/b") == "/a %%h/b"
    with pytest.raises(Misconfigured):
        units.path("/a\nListenStream=0.0.0.0:80")


def test_the_launchd_agent() -> None:
    """security.md §2.3: its sockets are 127.0.0.1 and a 0600 one, no core, and it comes back after a failure."""
    words = {
        "PYTHON": "/usr/bin/python3",
        "PORT": "9169",
        "CONTROL": "/Users/a/c & d.sock",
        "LOGS": "/Users/a/Library/Logs",
    }
    made = units.plist((ROOT / "launchd/vaultd.plist").read_text(), words, {"A": "b"}, more=["--config", "/x"])
    found = plistlib.loads(made)

    assert found["ProgramArguments"][1:] == ["-I", "-m", "vaultd", "start", "--foreground", "--config", "/x"]
    assert found["Sockets"]["http"]["SockNodeName"] == "127.0.0.1"
    assert found["Sockets"]["http"]["SockServiceName"] == "9169"
    assert found["Sockets"]["control"] == {"SockPathName": "/Users/a/c & d.sock", "SockPathMode": 0o600}
    assert found["Umask"] == 0o077
    assert found["HardResourceLimits"] == {"Core": 0}
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["LimitLoadToSessionType"] == "Aqua"
    assert b"@" not in made
