from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vaultd.host import hardening
from vaultd.host.hardening import captured

REPO = Path(__file__).parents[2]
ROOT = os.geteuid() == 0
BOB = 65534
HARDEN = "import sys; sys.path.insert(0, sys.argv[1]); from vaultd.host.hardening import harden, dumpable\n"
REPORT = """
import json, os, resource
found = harden()
os.close(os.open('probe', os.O_CREAT | os.O_WRONLY, 0o666))
print(json.dumps({
    'environ': dict(os.environ), 'captured': dict(found.environ), 'warnings': found.warnings, 'dumpable': dumpable(),
    'core': resource.getrlimit(resource.RLIMIT_CORE), 'files': resource.getrlimit(resource.RLIMIT_NOFILE),
    'mode': os.stat('probe').st_mode & 0o777,
    'child': os.popen('env').read(),
}))
"""


def hardened(tmp_path: Path, environ: dict[str, str], code: str = REPORT) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", HARDEN + code, str(REPO)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_harden_leaves_no_core_no_dump_and_private_files(tmp_path: Path) -> None:
    """Items 18 and 19: both the dumpable flag and the core limit; a file of any library is 0600."""
    found = hardened(tmp_path, {"PATH": os.environ["PATH"]})

    assert found["dumpable"] is False
    assert found["core"] == [0, 0]
    assert found["mode"] == 0o600
    assert hardening.dumpable(), "positive control: this process was not hardened"


def test_the_soft_limit_of_descriptors_is_raised_within_bounds(tmp_path: Path) -> None:
    """256 descriptors are what one attacker needs (security.md §0.4): soft goes to hard, 65,536 at most."""
    code = "import resource; hard = resource.getrlimit(7)[1]; resource.setrlimit(7, (256, hard))\n" + REPORT
    found = hardened(tmp_path, {"PATH": os.environ["PATH"]}, code)
    soft, hard = found["files"]

    assert soft == min(hard, hardening.DESCRIPTORS) if hard > 0 else hardening.DESCRIPTORS
    assert soft > 256


def test_the_environment_is_cut_for_us_and_for_children(tmp_path: Path) -> None:
    """Item 20: LD_*, PYTHON*, AWS_* and proxies are gone; what the contract reads comes back as a mapping."""
    gone = {
        "LD_LIBRARY_PATH": "/evil",
        "PYTHONPATH": "/evil",
        "PYTHON_KEYRING_BACKEND": "evil",
        "KEYRING_PROPERTY_X": "evil",
        "AWS_PROFILE": "evil",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "evil",
        "HTTP_PROXY": "evil",
        "EDITOR": "evil",
    }
    read = {
        "AWS_CONFIG_FILE": "c",
        "AWS_SHARED_CREDENTIALS_FILE": "s",
        "AWS_ENDPOINT_URL": "e",
        "AWS_ENDPOINT_URL_STS": "e2",
        "AWS_CA_BUNDLE": "b",
        "HTTPS_PROXY": "p",
        "NO_PROXY": "n",
    }
    kept = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "VAULTD_HOME": "h",
        "XDG_RUNTIME_DIR": "x",
        "LC_CTYPE": "C.UTF-8",
        "LANG": "C",
        "DBUS_SESSION_BUS_ADDRESS": "d",
        "NOTIFY_SOCKET": "/n",
        "CREDENTIALS_DIRECTORY": "/c",
        "TZ": "UTC",
    }
    found = hardened(tmp_path, {**gone, **read, **kept})

    assert found["environ"] == kept
    assert found["captured"] == kept | read
    assert "canary" not in found["child"]
    assert "evil" not in found["child"]
    assert f"HOME={tmp_path}" in found["child"], "positive control: the child's environment was read"


def test_the_captured_mapping_cannot_be_changed() -> None:
    """It is what the contract read at start; nobody adds an endpoint later."""
    environ = {"HOME": "/h", "AWS_ENDPOINT_URL": "e", "LD_PRELOAD": "x"}
    found = captured(environ)

    assert environ == {"HOME": "/h"}
    assert dict(found) == {"HOME": "/h", "AWS_ENDPOINT_URL": "e"}
    with pytest.raises(TypeError):
        found["AWS_ENDPOINT_URL_STS"] = "evil"  # type: ignore[index]


def test_what_a_daemon_in_the_background_is_started_with() -> None:
    """What the contract reads and what its interpreter's loader needs; the caller's own environment stays whole."""
    environ = {"HOME": "/h", "NO_PROXY": "n", "LD_LIBRARY_PATH": "/l", "AWS_SECRET_ACCESS_KEY": "s", "EDITOR": "vi"}

    assert hardening.handed_on(environ) == {"HOME": "/h", "NO_PROXY": "n", "LD_LIBRARY_PATH": "/l"}
    assert len(environ) == 5


def test_root_is_warned_of(tmp_path: Path) -> None:
    """Run as root it works, and says that it should not; as a user it says nothing."""
    found = hardened(tmp_path, {"PATH": os.environ["PATH"]})

    assert [each for each in found["warnings"] if "root" in each] == found["warnings"]
    assert bool(found["warnings"]) == ROOT


def test_what_the_system_refuses_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that cannot be set does not keep anybody from his credentials; each warning ends in what to type."""
    warnings: list[str] = []

    def refuse(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(hardening.resource, "setrlimit", refuse)  # type: ignore[attr-defined]
    monkeypatch.setattr(hardening.resource, "getrlimit", lambda _: (256, 4096))  # type: ignore[attr-defined]
    monkeypatch.setattr(hardening, "_libc", object)
    hardening._no_core(warnings)
    hardening._descriptors(warnings)
    hardening._no_dump(warnings)

    assert len(warnings) == 3
    assert all("run `" in each or "see `" in each for each in warnings)


@pytest.mark.needs("root")
def test_another_process_of_the_same_user_reads_nothing() -> None:
    """Item 18: environ, fd and mem of the daemon are closed to its own user; of an unhardened process they are open."""
    assert _readable(hardening.harden) == []
    assert _readable(lambda: None) == ["environ", "fd", "mem"], "positive control"


def _readable(act: Callable[[], object]) -> list[str]:
    """What a process of BOB can open of another process of BOB that called `act`."""
    reading, writing = os.pipe()
    victim = os.fork()
    if victim == 0:  # pragma: no cover - the child
        try:
            _become_bob()
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # an ordinary process again: setuid alone closes it
            act()
            os.write(writing, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.read(reading, 1)
    probe = os.fork()
    if probe == 0:  # pragma: no cover - the child
        try:
            _become_bob()
            os.write(writing, ",".join(_opened(victim)).encode())
        finally:
            os._exit(0)
    os.waitpid(probe, 0)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        return [each for each in stream.read().split(",") if each]


def _opened(pid: int) -> list[str]:  # pragma: no cover - in the child
    found = []
    for name in ("environ", "fd", "mem"):
        try:
            if name == "fd":
                list(Path(f"/proc/{pid}/fd").iterdir())
            else:
                Path(f"/proc/{pid}/{name}").open("rb").close()
            found.append(name)
        except OSError:
            pass
    return found


def _become_bob() -> None:  # pragma: no cover - in the child
    os.setgroups([])
    os.setgid(BOB)
    os.setuid(BOB)
