"""T2: another local user at the control socket, at the hand-over's socket, and at the files beside them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.adversary import wire
from tests.adversary.case import Attack, Case, once
from tests.adversary.ground import Ground, OwnersHome, by, by_other, by_owner, give
from tests.adversary.people import OTHER, OWNER, as_user
from tests.process.harness import short_directory

STATUS = wire.request("GET /v1/status", host="vaultd")
KEYS = wire.request("GET /v1/profiles/web-admin/credentials", host="vaultd")
GRANT = (
    b"POST /v1/grants HTTP/1.1\r\nHost: vaultd\r\nContent-Type: application/json\r\nContent-Length: 38\r\n"
    b'Connection: close\r\n\r\n{"profile":"web-admin","kind":"shell"}'
)


def asks(sent: bytes, name: str = "control.sock") -> Callable[[Ground], bytes]:
    return lambda ground: wire.talk_unix(str(ground.home.control.with_name(name)), sent)


def hands_over(ground: Ground) -> bytes:
    """A listener of his own, as that of the metadata address; anything that is answered is a gain."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX) as sock,
        socket.create_server(("127.0.0.1", 0)) as mine,
    ):
        sock.settimeout(wire.SECONDS)
        sock.connect(str(ground.home.control.with_name("doors.sock")))
        socket.send_fds(sock, [b'{"protocol":1,"dialect":"imds","profile":"web-admin"}\n'], [mine.fileno()])
        return wire.read_all(sock)
    return b""


@contextmanager
def loosened(ground: Ground) -> Iterator[None]:
    """As after a `chmod -R` by mistake: every directory and socket is open to all."""
    places = [ground.home.root, ground.home.root / "run", *(ground.home.root / "run").glob("*.sock")]
    before = [(each, each.stat().st_mode & 0o7777) for each in places]
    for each in places:
        each.chmod(0o777)
    try:
        yield
    finally:
        for each, mode in before:
            each.chmod(mode)


def through_open_modes(act: Callable[[Ground], bytes], uid: int) -> Attack:
    def attack(ground: Ground) -> bytes:
        with loosened(ground):
            return as_user(uid, lambda: act(ground))

    return attack


def naive_unix(ground: Ground) -> bytes:
    return wire.talk_unix(str(ground.naive_unix), STATUS)


def reads(*patterns: str) -> Callable[[Ground], bytes]:
    """The first bytes of each such file below the home, by whom it is."""

    def act(ground: Ground) -> bytes:
        found = b""
        for pattern in patterns:
            for path in _named(ground.home.root, pattern):
                with contextlib.suppress(OSError):
                    found += path.read_bytes()[:64]
        return found

    return act


def _named(root: Path, name: str) -> list[Path]:
    """By name where the directory cannot be listed: the names of our files are no secret."""
    return [root / name]


def token_file(uid: int) -> Attack:
    def act(ground: Ground) -> bytes:
        [first, *_] = (ground.home.root / "run/grants").glob("*.token")
        return as_user(uid, lambda: _read(first))

    return act


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def listing(ground: Ground) -> bytes:
    with contextlib.suppress(OSError):
        return json.dumps(os.listdir(ground.home.root / "run")).encode()  # noqa: PTH208 (a Path lists lazily)
    return b""


def writes(ground: Ground) -> bytes:
    """Replace, add or remove in any directory of the home."""
    done = b""
    for name in ("", "run", "state", "data", "config", "run/grants"):
        path = ground.home.root / name / "planted"
        with contextlib.suppress(OSError):
            path.write_text("x")
            path.unlink()
            done += name.encode() + b"\n"
    return done


def abstract(uid: int, *, plant: bool) -> Attack:
    """Abstract unix sockets have no mode at all: is there one of the owner's?"""

    def act(ground: Ground) -> bytes:
        with contextlib.ExitStack() as stack:
            if plant:
                planted = stack.enter_context(socket.socket(socket.AF_UNIX))
                planted.bind("\0vaultd-adversary-control")
                planted.listen()

            def look() -> bytes:
                lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
                return "\n".join(line for line in lines if "@" in line and "vaultd" in line).encode()

            return as_user(uid, look)

    return act


def passed_on(uid: int, to: int) -> Attack:
    """Connected by one, asked through by the other: SO_PEERCRED keeps who connected."""

    def act(ground: Ground) -> bytes:
        ours, theirs = socket.socketpair(socket.AF_UNIX)

        def connects() -> None:
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.connect(str(ground.home.control))
                socket.send_fds(theirs, [b"x"], [sock.fileno()])
                return
            theirs.send(b"-")

        as_user(uid, connects)
        found = socket.recv_fds(ours, 1, 1)[1]
        ours.close()
        theirs.close()
        if not found:
            return b""

        def asks_through() -> bytes:
            with socket.socket(fileno=found[0]) as sock, contextlib.suppress(OSError):
                sock.sendall(STATUS)
                return wire.read_all(sock)
            return b""

        try:
            return as_user(to, asks_through)
        finally:
            os.close(found[0])

    return act


# ---- what he prepared before the start ----


def starts(prepare: Callable[[OwnersHome], None]) -> Attack:
    """b"started" when a daemon starts in a home that was prepared so."""

    def act(ground: Ground) -> bytes:
        with short_directory() as directory:
            directory.chmod(0o755)
            home = OwnersHome.of(directory, ground.emulator)
            (home.root / "run").mkdir(mode=0o700)
            give(directory, OWNER)
            prepare(home)
            try:
                done = home.run("vaultd", "start")
                assert done.status == 0 or str(home.directory) in done.err, done  # refused by name
                return b"started" if done.status == 0 else b""
            finally:
                home.stop()

    return act


def nothing_prepared(_: OwnersHome) -> None:
    """The control of them all."""


def open_run_directory(home: OwnersHome) -> None:
    (home.root / "run").chmod(0o777)


def his_run_directory(home: OwnersHome) -> None:
    os.chown(home.root / "run", OTHER, OTHER)


def linked_run_directory(home: OwnersHome) -> None:
    (home.root / "run").rmdir()
    his = home.directory / "his"
    his.mkdir(mode=0o700)
    os.chown(his, OTHER, OTHER)
    (home.root / "run").symlink_to(his)
    os.lchown(home.root / "run", OTHER, OTHER)


def his_socket(home: OwnersHome) -> None:
    """A socket of his at our path, to take what clients say."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(home.control))
    os.chown(home.control, OTHER, OTHER)


def open_ancestor(home: OwnersHome) -> None:
    """Whoever may write there renames the whole home away and puts his own in its place."""
    home.directory.chmod(0o777)


def his_ancestor(home: OwnersHome) -> None:
    os.chown(home.directory, OTHER, OTHER)


def his_settings(home: OwnersHome) -> None:
    os.chown(home.root / "config/config.toml", OTHER, OTHER)


def open_settings(home: OwnersHome) -> None:
    (home.root / "config/config.toml").chmod(0o666)


def his_grants(home: OwnersHome) -> None:
    """Tokens that he knows."""
    (home.root / "state").mkdir(mode=0o700)
    give(home.root / "state", OWNER)
    path = home.root / "state/grants.json"
    path.write_text("{}")
    path.chmod(0o600)
    os.chown(path, OTHER, OTHER)


_STATE = ("grants.json", "sessions.sealed", "audit.jsonl", "vaultd.log", "identities.json")
PROMISE = "Another user gets no byte from the control socket"
ALONE = "Files and directories are the owner's alone"
OWNER_GETS = "the same by the owner's uid is answered"
_STARTS = once(starts(nothing_prepared))
PREPARED = "What another user prepared before the start is refused, not used"
STARTS = "the same home without the preparation starts"


def _pair(name: str, act: Callable[[Ground], bytes], promise: str = PROMISE) -> Case:
    return Case(name, "T2", promise, by_other(act), OWNER_GETS, by_owner(act))


def _open(name: str, act: Callable[[Ground], bytes]) -> Case:
    promise = "With modes as open as they can be the peer's uid alone keeps another user out"
    return Case(name, "T2", promise, through_open_modes(act, OTHER), OWNER_GETS, through_open_modes(act, OWNER))


def _prepared(name: str, prepare: Callable[[OwnersHome], None]) -> Case:
    return Case(name, "T2", PREPARED, starts(prepare), STARTS, _STARTS)


CASES = (
    _pair("T2-control-status", asks(STATUS)),
    _pair("T2-control-credentials", asks(KEYS)),
    _pair("T2-control-new-grant", asks(GRANT)),
    _pair("T2-hand-over", hands_over),
    _open("T2-open-modes-status", asks(STATUS)),
    _open("T2-open-modes-new-grant", asks(GRANT)),
    _open("T2-open-modes-hand-over", hands_over),
    Case(
        "T2-open-modes-naive", "T2", PROMISE,
        through_open_modes(asks(STATUS), OTHER), "the same uid at a unix socket without a check", by_other(naive_unix),
    ),
    Case(
        "T2-root", "T2", "Root is no exception to the uid check",
        by(0, asks(STATUS)), OWNER_GETS, by_owner(asks(STATUS)),
    ),
    Case(
        "T2-descriptor-from-the-owner", "T2",
        "Not prevented: a connection that the owner's own program passes to another user stays the owner's",
        passed_on(OWNER, OTHER), "the other way round, a connection that the other user made gains the owner nothing",
        passed_on(OTHER, OWNER), residual=True,
    ),
    Case("T2-token-file", "T2", ALONE, token_file(OTHER), "the owner reads it", token_file(OWNER)),
    _pair("T2-state-files", reads(*(f"state/{name}" for name in _STATE)), ALONE),
    _pair("T2-store-and-settings", reads("data/secrets.sealed", "config/config.toml"), ALONE),
    _pair("T2-endpoint-json", reads("run/endpoint.json"), ALONE),
    _pair("T2-listing", listing, ALONE),
    _pair("T2-planting-files", writes, ALONE),
    Case(
        "T2-abstract-sockets", "T2", "There is no abstract unix socket, which would have no mode",
        abstract(OTHER, plant=False), "one of the tests' own is found by the same look", abstract(OTHER, plant=True),
    ),
    _prepared("T2-run-directory-open", open_run_directory),
    _prepared("T2-run-directory-his", his_run_directory),
    _prepared("T2-run-directory-linked", linked_run_directory),
    _prepared("T2-socket-his", his_socket),
    _prepared("T2-ancestor-open", open_ancestor),
    _prepared("T2-ancestor-his", his_ancestor),
    _prepared("T2-settings-his", his_settings),
    _prepared("T2-settings-open", open_settings),
    _prepared("T2-grants-his", his_grants),
)  # fmt: skip
