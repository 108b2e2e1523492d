"""Homes of the owner's for attacks that stop, copy or mistreat a daemon."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adversary.ground import Ground, OwnersHome, give
from tests.adversary.people import OWNER
from tests.process.harness import free_port, short_directory


@contextmanager
def fresh(ground: Ground, *, profiles: str = "", **extra: str) -> Iterator[OwnersHome]:
    """Nothing was started in it yet; what was is stopped. `profiles` are added to the tutorial's."""
    with short_directory() as directory:
        home = OwnersHome.of(directory, ground.emulator, **extra)
        config = directory / ".aws/config"
        config.write_text(config.read_text() + profiles)
        try:
            yield home
        finally:
            home.stop()


@contextmanager
def copied(home: OwnersHome, *, passphrase: str | None = None) -> Iterator[OwnersHome]:
    """What a thief of disk or backup has: every file of a home's, elsewhere, and the passphrase he believes."""
    with short_directory() as directory:
        directory.chmod(0o755)
        for name in ("config", "state", "data"):
            shutil.copytree(home.root / name, directory / "vaultd" / name, ignore=_no_sockets)
        shutil.copytree(home.directory / ".aws", directory / ".aws")
        port = free_port()
        (directory / "vaultd/config/config.toml").write_text(f"[listen]\nport = {port}\n")
        (directory / "passphrase").write_text((passphrase or _of(home)) + "\n")
        (directory / "passphrase").chmod(0o600)
        for path in ("vaultd", "vaultd/config", "vaultd/state", "vaultd/data"):
            (directory / path).chmod(0o700)
        made = OwnersHome(directory, port)
        made.extra = {**home.extra, "VAULTD_PASSPHRASE_FILE": str(directory / "passphrase")}
        made.inside = home.inside
        give(directory, OWNER)
        try:
            yield made
        finally:
            made.stop()


def _of(home: OwnersHome) -> str:
    return Path(home.extra["VAULTD_PASSPHRASE_FILE"]).read_text().strip()


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [each for each in names if (Path(folder) / each).is_socket()]


def opened(home: OwnersHome) -> bytes:
    """b"open" when a daemon starts in it and has its store open."""
    started = home.run("vaultd", "start")
    if started.status != 0:
        return b""
    said = home.run("vaultd", "status", "--json")
    return b"" if said.json()["locked"] else b"open"
