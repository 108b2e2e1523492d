"""A login without any privilege: a real `systemd --user` of its own, a home, and the commands run in it."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.link_local.manager import SYSTEMD, Manager, groups
from tests.process.harness import PASSPHRASE, PROFILES, Home, Ran, free_port, short_directory, until

#: There on every Linux; a user of the tests' own would have to be made.
USER = "daemon"
UNITS = Path(".config/systemd/user")


@dataclass
class Login(Home):
    """The home is where a login has it, not below a VAULTD_HOME."""

    manager: Manager | None = None

    @classmethod
    @contextmanager
    def begun(cls, below: str = "") -> Iterator[Login]:
        """With a user's systemd, until the block ends; nothing else of the machine is moved or stopped by it."""
        before = groups()
        with _directory(below) as place:
            place.chmod(0o755)
            login = cls(place / "home", free_port())
            for each in (login.units, login.directory / ".config/vaultd", login.directory / ".aws"):
                each.mkdir(parents=True)
            (login.directory / ".aws/config").write_text(PROFILES)
            login.settings()
            (login.directory / "passphrase").write_text(PASSPHRASE + "\n")
            login.own()
            environment = {"HOME": str(login.directory)}
            with Manager.running(login.units, place / "run", user=USER, environment=environment) as manager:
                login.manager, login.inside = manager, manager.inside
                yield login
        assert groups() == before

    def own(self) -> None:
        """What was put there is the user's, and nobody else's."""
        uid, gid = pwd.getpwnam(USER)[2:4]
        for each in (self.directory, *self.directory.rglob("*")):
            os.chown(each, uid, gid, follow_symlinks=False)
            if not each.is_symlink():
                each.chmod(0o700 if each.is_dir() else 0o600)

    def settings(self, text: str = "") -> None:
        """config.toml: the port of this home, and `text`."""
        (self.directory / ".config/vaultd/config.toml").write_text(f"[listen]\nport = {self.port}\n{text}")

    @property
    def units(self) -> Path:
        return self.directory / UNITS

    @property
    def runtime(self) -> Path:
        return self.directory.parent / "run"

    @property
    def state(self) -> Path:
        return self.directory / ".local/state/vaultd"

    @property
    def env(self) -> dict[str, str]:
        assert self.manager is not None
        kept = {
            name: value for name, value in super().env.items() if name not in {"VAULTD_HOME", "COVERAGE_PROCESS_START"}
        }
        return {**kept, "XDG_RUNTIME_DIR": str(self.runtime), "VAULTD_STORE": "file"}

    def ctl(self, *words: str) -> Ran:
        assert self.manager is not None
        return self.manager.ctl(*words)

    def shown(self, unit: str, name: str) -> str:
        return self.ctl("show", unit, f"--property={name}", "--value").out.strip()

    def install(self, *words: str, **environment: str) -> Ran:
        """`vaultd service install`, which has to succeed."""
        done = self.run("vaultd", "service", "install", *words, environment=environment)
        assert done.status == 0, (done, self.log())
        return done

    def pid(self) -> int:
        """The daemon's, 0 while there is none."""
        return int(self.shown("vaultd.service", "MainPID") or 0)

    def runs(self) -> bool:
        return self.shown("vaultd.service", "ActiveState") == "active"

    def log(self) -> str:
        assert self.manager is not None
        return self.manager.log.read_text()[-4000:]

    def drop_in(self, name: str, text: str) -> None:
        """As `systemctl --user edit` writes it."""
        path = self.units / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.own()
        assert self.ctl("daemon-reload").status == 0

    def ran_by_unit(self, *, other_than: int = 0) -> int:
        """Wait for a daemon that serves; its pid. The pid is asked for first: after a crash the unit is active without
        one for a moment.
        """
        until(lambda: self.pid() not in {0, other_than} and self.runs(), f"the unit's daemon serves: {self.log()}")
        return self.pid()

    def said(self, done: Ran) -> tuple[int, str]:
        """Without the places of this test."""
        text = (done.out + done.err).replace(str(self.directory), "~").replace(str(self.runtime), "RUN")
        return done.status, re.sub(r"pid \d+", "pid N", text.replace(str(self.port), "PORT"))


def _directory(below: str) -> AbstractContextManager[Path]:
    return _below(below) if below else short_directory()


@contextmanager
def _below(folder: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vaultd-", dir=folder) as name:
        yield Path(name)


@contextmanager
def root_of_credentials() -> Iterator[None]:
    """There wherever systemd is pid 1; a unit with mounts of its own and a credential needs it, and finds it here."""
    path = Path("/run/credentials")
    missing = not path.exists()
    if missing:
        path.mkdir()
    try:
        yield
    finally:
        if missing:
            path.rmdir()


needs_systemd = pytest.mark.skipif(
    not SYSTEMD.exists() or shutil.which("systemctl") is None or os.geteuid() != 0,
    reason="a user's systemd needs systemd and, for a user of its own, root: run `make system` as root",
)


@pytest.fixture
def login() -> Iterator[Login]:
    with Login.begun() as begun:
        yield begun
