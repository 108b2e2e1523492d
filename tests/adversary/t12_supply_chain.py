"""T12: code that slips in beside ours, and state that is set back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.adversary.case import Attack, Case, once
from tests.adversary.ground import Ground, OwnersHome, give
from tests.adversary.homes import fresh, opened
from tests.adversary.people import OWNER, command_of
from tests.process.harness import until

_TOUCH = "open({marker!r}, 'a').write('x')\n"


def _planted(directory: Path, marker: Path) -> Path:
    """Modules that whoever imports by name would take first."""
    place = directory / "planted"
    place.mkdir()
    for name in (
        "sitecustomize.py",
        "usercustomize.py",
        "boto3.py",
        "aiohttp.py",
        "keyring.py",
        "json5.py",
        "vaultd.py",
    ):
        (place / name).write_text(_TOUCH.format(marker=str(marker)))
    give(place, OWNER)
    return place


def loaded(*, by: str) -> Attack:
    """Which of the planted modules ran: in a daemon that was started there, or in a plain Python."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home:
            marker = home.directory / "ran"
            place = _planted(home.directory, marker)
            variables = {"PYTHONPATH": str(place), "PYTHONSTARTUP": str(place / "boto3.py")}
            start = [*home.inside, sys.executable, "-I", "-m", "vaultd", "start"]
            plain = [*home.inside, sys.executable, "-c", "import boto3"]
            env = {**home.env, **(variables if by != "directory" else {})}
            done = subprocess.run(
                plain if by == "plain" else start,
                env=env,
                cwd=place,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert by == "plain" or done.returncode == 0, done
            if by != "plain":
                assert home.add(ground.emulator).status == 0  # boto3 is imported by now
            return marker.read_bytes() if marker.exists() else b""

    return act


def environment_of(make: Callable[[OwnersHome], AbstractContextManager[int]]) -> Attack:
    """What of the loader's and Python's variables is left in a process that was started with them."""
    hostile = {
        "PYTHONPATH": "/nonexistent", "PYTHONHASHSEED": "1", "LD_BIND_NOW": "1",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "KEYRING_PROPERTY_X": "1", "AWS_SECRET_ACCESS_KEY": "planted",
    }  # fmt: skip

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home:
            home.extra |= hostile
            with make(home) as pid:
                content = Path(f"/proc/{pid}/environ").read_bytes()
            return b" ".join(each for each in content.split(b"\0") if each.partition(b"=")[0].decode() in hostile)

    return act


@contextmanager
def _daemon(home: OwnersHome) -> Iterator[int]:
    with home.daemon():
        yield home.pid()


@contextmanager
def _plain(home: OwnersHome) -> Iterator[int]:
    process = subprocess.Popen([*command_of(OWNER), "/bin/sleep", "30"], env=home.env, cwd="/")
    try:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "it runs")
        yield process.pid
    finally:
        process.kill()
        process.wait(10)


def keyring_backend(*, named: bool) -> Attack:
    """The null backend by environment takes what is stored and forgets it: is it used?"""

    def act(ground: Ground) -> bytes:
        script = "import keyring; keyring.set_password('a','b','c'); print(type(keyring.get_keyring()).__module__)"
        env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
        with fresh(ground, VAULTD_STORE="keyring") as home:
            if not named:
                done = subprocess.run(
                    [*home.inside, sys.executable, "-c", script],
                    env={**home.env, **env},
                    capture_output=True,
                    text=True,
                    cwd="/",
                    check=False,
                )
                return done.stdout.strip().encode() if "null" in done.stdout else b""
            home.extra |= env
            started = home.run("vaultd", "start")
            added = home.add(ground.emulator)
            said = home.client("identities")
            return b"stored nowhere" if started.status == 0 and added.status == 0 and "identity" in said.out else b""

    return act


def rolled_back(*, back: bool) -> Attack:
    """Yesterday's store, with a key that was removed since."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home:
            with home.daemon():
                assert home.add(ground.emulator).status == 0
            store = home.root / "data/secrets.sealed"
            yesterday = store.read_bytes()
            with home.daemon():
                assert home.client("remove", "identity").status == 0
                assert home.add(ground.emulator, "another").status == 0
            if back:
                store.write_bytes(yesterday)
            return opened(home)

    return act


def swapped(*, swap: bool) -> Attack:
    """The sealed store of another home, whose passphrase is the same."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home, fresh(ground) as another:
            for each in (home, another):
                with each.daemon():
                    assert each.add(ground.emulator).status == 0
            if swap:
                (home.root / "data/secrets.sealed").write_bytes((another.root / "data/secrets.sealed").read_bytes())
            return opened(home)

    return act


def edited_audit(edit: Callable[[list[bytes]], list[bytes]]) -> Attack:
    """b"believed" when `vaultd check` finds the audit log in order."""

    def act(ground: Ground) -> bytes:
        with fresh(ground) as home:
            with home.daemon():
                assert home.add(ground.emulator).status == 0
                assert home.client("lock").status == 0
            path = home.state / "audit.jsonl"
            lines = path.read_bytes().splitlines(keepends=True)
            assert len(lines) >= 3, lines
            path.write_bytes(b"".join(edit(lines)))
            said = home.run("vaultd", "check", "--audit")
            return b"believed" if said.status == 0 else b""

    return act


_EDITS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "line-deleted": lambda lines: [lines[0], *lines[2:]],
    "line-edited": lambda lines: [lines[0], lines[1].replace(b'"time":"20', b'"time":"19'), *lines[2:]],
    "lines-reordered": lambda lines: [lines[1], lines[0], *lines[2:]],
}

NO_STRANGER = "No module is loaded that lies in the working directory or is named by the environment"

_PLAIN_LOADS = once(loaded(by="plain"))
_UNEDITED = once(edited_audit(list))

CASES = (
    Case(
        "T12-python-path", "T12", NO_STRANGER,
        loaded(by="environment"), "a plain Python loads it", _PLAIN_LOADS,
    ),
    Case(
        "T12-working-directory", "T12", NO_STRANGER,
        loaded(by="directory"), "a plain Python loads it", _PLAIN_LOADS,
    ),
    Case(
        "T12-environment", "T12", "Variables of loader, Python, keyring and AWS are gone from the daemon's environment",
        environment_of(_daemon), "a plain program keeps them", environment_of(_plain),
    ),
    Case(
        "T12-null-keyring", "T12", "A keyring that forgets is not used, whatever the environment names",
        keyring_backend(named=True), "keyring itself takes it and loses the secret", keyring_backend(named=False),
    ),
    Case(
        "T12-rolled-back-store", "T12", "A store older than the last one seen is refused",
        rolled_back(back=True), "the newest opens", rolled_back(back=False),
    ),
    Case(
        "T12-swapped-store", "T12", "Another home's store is refused",
        swapped(swap=True), "its own opens", swapped(swap=False),
    ),
    *(
        Case(
            f"T12-audit-{name}", "T12", "A changed audit log is seen",
            edited_audit(edit), "unchanged it is in order", _UNEDITED,
        )
        for name, edit in _EDITS.items()
    ),
)  # fmt: skip
