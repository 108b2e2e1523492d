"""Where the attacks happen: a network and mounts of the tests' own, the owner's daemon with everything that it opens,
naive servers for the controls, and a neighbour machine on a wire.

Rule: one ground for all cases; an attack that has to stop or change the daemon makes a home of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.adversary import naive, wire
from tests.adversary.people import OTHER, OWNER, as_process, as_user, command_of, reachable
from tests.link_local.network import Neighbour, ip, own_network
from tests.process.harness import ROOT, Emulator, Home, free_port, short_directory, stop, until, variables
from vaultd.host.link_local import PLACES

T = TypeVar("T")
TOKEN_PATH = "/latest/api/token"
ROLE_PATH = "/latest/meta-data/iam/security-credentials/web-admin"
KEYS_PATH = "/v1/credentials/web-admin"
TTL = "X-aws-ec2-metadata-token-ttl-seconds: 600"
ACTIVATOR = ROOT / "tests/link_local/activator.py"


@dataclass
class OwnersHome(Home):
    """A home whose commands run as the owner, and whose every file is his."""

    @classmethod
    def of(cls, directory: Path, emulator: Emulator, **extra: str) -> OwnersHome:
        made = cls.make(directory, emulator, **extra)
        assert isinstance(made, OwnersHome)
        made.inside = command_of(OWNER)
        directory.chmod(0o755)  # the way in is open: what is closed is closed by vaultd
        give(directory, OWNER)
        return made

    @property
    def root(self) -> Path:
        return self.directory / "vaultd"

    @property
    def control(self) -> Path:
        return self.root / "run/control.sock"

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call of the control API by the owner."""
        return as_user(OWNER, lambda: self.link(method, path, body))


def give(directory: Path, uid: int) -> None:
    """The whole tree becomes that user's."""
    for path in (directory, *directory.rglob("*")):
        os.lchown(path, uid, uid)


@dataclass
class Ground:
    home: OwnersHome
    emulator: Emulator
    neighbour: Neighbour
    directory: Path
    #: The grant token of web-admin, and the IMDS door's TCP port with a live metadata token.
    token: str
    door: int
    metadata_token: str
    naive_port: int
    naive_unix: Path
    #: First lines that the naive server saw.
    naive_seen: Path
    #: What may never come out: the secrets that are being served, and franklin's own key.
    secrets: tuple[bytes, ...]
    notes: dict[str, str] = field(default_factory=dict)
    #: What the controls gained that several cases share.
    proven: dict[object, bytes] = field(default_factory=dict)

    @property
    def daemon(self) -> wire.Address:
        return ("127.0.0.1", self.home.port)

    @property
    def naive(self) -> wire.Address:
        return ("127.0.0.1", self.naive_port)

    def get(self, path: str = KEYS_PATH, *more: str, token: str | None = None, port: int | None = None) -> bytes:
        """The request of an SDK that has the token."""
        authorization = f"Authorization: {self.token if token is None else token}"
        return wire.request(f"GET {path}", authorization, *more, host=f"127.0.0.1:{port or self.home.port}")

    def put(self, *more: str, host: str | None = None, ttl: str = TTL) -> bytes:
        """The question for a metadata token, to the door."""
        return wire.request(f"PUT {TOKEN_PATH}", ttl, *more, host=host or f"127.0.0.1:{self.door}")

    def role(self, *more: str, host: str | None = None) -> bytes:
        """The question for keys, to the door, with a live metadata token."""
        mine = f"X-aws-ec2-metadata-token: {self.metadata_token}"
        return wire.request(f"GET {ROLE_PATH}", mine, *more, host=host or f"127.0.0.1:{self.door}")

    def leaked(self, found: bytes) -> bytes:
        """`found` where a secret is in it."""
        return found if any(each in found for each in self.secrets) else b""

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The owner's daemon is down for the block; then everything is served again, link-local addresses too."""
        assert self.home.run("vaultd", "stop").status == 0
        try:
            yield
        finally:
            self._start()

    def restarted(self, over: AbstractContextManager[object]) -> None:
        """The same, with something that lasts from the stop to beyond the start."""
        assert self.home.run("vaultd", "stop").status == 0
        with over:
            self._start()

    def _start(self) -> None:
        log = self.home.state / "vaultd.log"
        before = len(log.read_text())
        started = self.home.run("vaultd", "start")
        assert started.status == 0, started
        for each in PLACES.values():
            taken = f"take listener address={each.address} "
            until(lambda taken=taken: taken in log.read_text()[before:], taken)  # type: ignore[misc]

    def used(self) -> tuple[str, str]:
        """A new grant of web-admin: (id, token)."""
        done = self.home.client("use", "web-admin", "--shell", "sh")
        assert done.status == 0, done
        said = variables(done.out)
        return said["VAULTD_GRANT"], said["AWS_CONTAINER_AUTHORIZATION_TOKEN"]

    def last_used(self, grant: str) -> str | None:
        """When keys went out by it; at once, unlike the audit line."""
        [found] = [each for each in self.home.ask("GET", "/v1/grants")["grants"] if each["id"] == grant]
        said: str | None = found["last_used"]
        return said


def by(uid: int, act: Callable[[Ground], T]) -> Callable[[Ground], T]:
    """The same act as that user."""
    return lambda ground: as_user(uid, lambda: act(ground))


def by_other(act: Callable[[Ground], T]) -> Callable[[Ground], T]:
    return by(OTHER, act)


def by_owner(act: Callable[[Ground], T]) -> Callable[[Ground], T]:
    return by(OWNER, act)


@contextmanager
def own_ground() -> Iterator[Ground]:
    """Everything up; taken down with the block."""
    with ExitStack() as stack:
        stack.enter_context(reachable())
        stack.enter_context(own_network())
        directory = stack.enter_context(short_directory())
        directory.chmod(0o755)
        emulator = stack.enter_context(Emulator.running(moto=True))
        home = _home(directory / "owner", emulator)
        stack.enter_context(home.daemon())
        added = home.add(emulator)
        assert added.status == 0, added
        used = home.use("web-admin", emulator)
        door = urlsplit(_imds(home)["AWS_EC2_METADATA_SERVICE_ENDPOINT"]).port
        assert door is not None
        port = free_port()
        stack.enter_context(_naive(directory, port))
        for dialect, profile in (("imds", ["web-admin"]), ("ecs", [])):
            stack.enter_context(_link_local(home, dialect, *profile))
        ground = Ground(
            home=home,
            emulator=emulator,
            neighbour=stack.enter_context(Neighbour.connected()),
            directory=directory,
            token=used["AWS_CONTAINER_AUTHORIZATION_TOKEN"],
            door=door,
            metadata_token="",
            naive_port=port,
            naive_unix=directory / "naive.sock",
            naive_seen=directory / "naive.seen",
            secrets=(),
        )
        _learn(ground)
        yield ground


def _home(directory: Path, emulator: Emulator) -> OwnersHome:
    directory.mkdir()
    return OwnersHome.of(directory, emulator)


def _imds(home: OwnersHome) -> dict[str, str]:
    used = home.client("use", "web-admin", "--imds", "--shell", "sh")
    assert used.status == 0, used
    words = [
        line.removeprefix("export ").split("=", 1) for line in used.out.replace(";", "\n").splitlines() if "=" in line
    ]
    return {name.strip(): value.strip("'\" ") for name, value in words}


def _learn(ground: Ground) -> None:
    """Metadata token and secrets, as the owner gets them: the first positive control."""
    reply = as_user(OWNER, lambda: wire.talk(("127.0.0.1", ground.door), ground.put()))
    assert wire.status(reply) == 200, reply
    ground.metadata_token = wire.body(reply).decode()
    keys = json.loads(wire.body(as_user(OWNER, lambda: wire.talk(ground.daemon, ground.get()))))
    ground.secrets = (
        keys["SecretAccessKey"].encode(),
        keys["Token"].encode(),
        ground.emulator.key()[1].encode(),
        naive.CANARY,
        ground.metadata_token.encode(),
    )


@contextmanager
def _naive(directory: Path, port: int) -> Iterator[None]:
    """On loopback, on the link-local address and on a unix socket: run by the owner, open to all."""
    ip("address", "replace", "169.254.169.254/32", "dev", "lo", "scope", "host")
    seen = directory / "naive.seen"
    seen.touch()
    os.chown(seen, OWNER, OWNER)
    listeners = [naive.listen("127.0.0.1", port), naive.listen("169.254.169.254", port)]
    unix = naive.listen_unix(directory / "naive.sock")
    with ExitStack() as stack:
        for each in (*listeners, unix):
            stack.enter_context(as_process(OWNER, _serving(each, seen)))
            each.close()
        yield


def _serving(sock: Any, seen: Path) -> Callable[[], None]:
    return lambda: naive.serve(sock, seen)


@contextmanager
def _link_local(home: OwnersHome, dialect: str, *profile: str) -> Iterator[None]:
    """`vaultd link-local DIALECT`, as a service manager starts it: root's socket, the owner's process."""
    place = PLACES[dialect]
    command = [
        "/usr/bin/setpriv", *command_of(OWNER)[1:], sys.executable, "-I", "-m", "vaultd", "link-local",
        dialect, *profile,
    ]  # fmt: skip
    journal = home.directory / f"{dialect}.journal"
    with journal.open("w") as out:
        given = [sys.executable, str(ACTIVATOR), place.address, str(place.port), dialect, *command]
        process = subprocess.Popen(given, env=home.env, stderr=out, text=True, cwd="/")
    try:
        taken = f"take listener address={place.address} "
        until(lambda: taken in (home.state / "vaultd.log").read_text(), f"{dialect}: {journal.read_text()}")
        yield
    finally:
        stop(process)
