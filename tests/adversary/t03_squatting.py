"""T3: another user at our TCP ports, while vaultd runs and while it does not."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.adversary import naive, wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import Ground, OwnersHome
from tests.adversary.people import OTHER, OWNER, as_process, as_user
from tests.process.harness import short_directory, variables


def binds(address: tuple[str, int], family: int, *options: tuple[int, int, int | bytes]) -> bytes:
    """b"bound" when a listener of this process stands there."""
    with contextlib.suppress(OSError), socket.socket(family) as sock:
        for level, name, value in options:
            sock.setsockopt(level, name, value)
        sock.bind(address)
        sock.listen()
        return b"bound"
    return b""


REUSE = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
SHARE = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
LO = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")


def shares(*options: tuple[int, int, int | bytes], free: bool) -> Attack:
    def act(ground: Ground) -> bytes:
        port = _free() if free else ground.home.port
        return as_user(OTHER, lambda: binds(("127.0.0.1", port), socket.AF_INET, *options))

    return act


def everywhere(*, free: bool) -> Attack:
    def act(ground: Ground) -> bytes:
        port = _free() if free else ground.home.port
        return as_user(OTHER, lambda: binds(("0.0.0.0", port), socket.AF_INET, REUSE, SHARE))

    return act


def door(*, free: bool) -> Attack:
    def act(ground: Ground) -> bytes:
        port = _free() if free else ground.door
        return as_user(OTHER, lambda: binds(("127.0.0.1", port), socket.AF_INET, REUSE, SHARE))

    return act


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def squatter(ground: Ground, port: int, family: int = socket.AF_INET, device: bytes = b"") -> Iterator[str]:
    """A naive server of the other user's; the name of the file of what it saw."""
    seen = ground.directory / f"squatted.{port}.{family}"
    seen.write_bytes(b"")
    os.chown(seen, OTHER, OTHER)
    made = as_listener(port, family, device)
    try:
        with as_process(OTHER, lambda: naive.serve(made, seen)):
            yield str(seen)
    finally:
        made.close()
        seen.unlink()


def as_listener(port: int, family: int, device: bytes) -> socket.socket:
    """Made in this process, so it is root's; `fchown` makes it the other's, as the kernel does at birth."""
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
    os.fchown(sock.fileno(), OTHER, OTHER)
    sock.listen(64)
    return sock


def stolen(ground: Ground, family: int, device: bytes, ask: Callable[[], bytes]) -> bytes:
    """What a squatter beside our listener saw of a request."""
    with squatter(ground, ground.home.port, family, device) as seen:
        as_user(OWNER, ask)
        with open(seen, "rb") as file:  # noqa: PTH123
            return file.read()


def url_as_given(ground: Ground) -> bytes:
    """The endpoint that `use` prints, asked as it is written."""
    given = ground.home.client("use", "web-admin", "--shell", "sh")
    url = variables(given.out)["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    host = url.removeprefix("http://").partition("/")[0].partition(":")[0]
    return stolen(ground, socket.AF_INET6, b"", lambda: _ask_first(host, ground))


def url_by_v6(ground: Ground) -> bytes:
    return stolen(ground, socket.AF_INET6, b"", lambda: _ask_first("::1", ground))


def _ask_first(host: str, ground: Ground) -> bytes:
    """The first address of a name, as SDKs take it."""
    family, _, _, _, address = socket.getaddrinfo(host, ground.home.port, type=socket.SOCK_STREAM)[0]
    with contextlib.suppress(OSError), wire.connected(address[:2], family=family) as sock:  # type: ignore[arg-type]
        sock.sendall(ground.get())
        return wire.read_all(sock)
    return b""


def on_another_device(ground: Ground) -> bytes:
    """He may bind our very address on another device: the kernel gives him nothing of lo's."""
    return stolen(ground, socket.AF_INET, b"wire0\0", lambda: wire.talk(ground.daemon, ground.get()))


# ---- while it is down ----


@contextmanager
def squatted(ground: Ground, *, down: bool) -> Iterator[OwnersHome]:
    """A second home of the owner's that has run and is stopped; the other user took its port meanwhile, if `down`."""
    with short_directory() as directory:
        directory.chmod(0o755)
        home = OwnersHome.of(directory, ground.emulator)
        try:
            if not down:
                yield home
                return
            with squatter(ground, home.port):
                yield home
        finally:
            home.stop()


def start_over(*, down: bool) -> Attack:
    def act(ground: Ground) -> bytes:
        with squatted(ground, down=down) as home:
            done = home.run("vaultd", "start")
            if down:
                assert f"uid {OTHER}" in done.err, done
            return b"started" if done.status == 0 else b""

    return act


def door_taken(*, taken: bool) -> Attack:
    """A door's port is squatted while the daemon is down: is its grant still there?"""

    def act(ground: Ground) -> bytes:
        used = ground.home.client("use", "web-admin", "--imds", "--shell", "sh")
        assert used.status == 0, used
        port = int(used.out.split("127.0.0.1:", 1)[1].split("/", 1)[0])
        grant = variables(used.out)["VAULTD_GRANT"]
        ground.restarted(squatter(ground, port) if taken else contextlib.nullcontext(""))
        return _grant_left(ground, grant)

    return act


def _grant_left(ground: Ground, grant: str) -> bytes:
    found = [each["id"] for each in ground.home.ask("GET", "/v1/grants")["grants"]]
    return b"grant" if grant in found else b""


def doctor_is_content(*, taken: bool) -> Attack:
    """`doctor` in a shell whose URL led to vaultd, and leads to a squatter now that it is down."""

    def act(ground: Ground) -> bytes:
        with contextlib.ExitStack() as stack:
            if taken:
                stack.enter_context(ground.stopped())
                stack.enter_context(squatter(ground, ground.home.port))
            url = f"http://127.0.0.1:{ground.home.port}/v1/credentials/web-admin"
            said = ground.home.client("doctor", "--json", environment={"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})
        [endpoint] = [each for each in said.json()["checks"] if each["name"] == "endpoint"]
        assert endpoint["ok"] or str(OTHER) in endpoint["message"], endpoint
        return b"ok" if endpoint["ok"] else b""

    return act


def stale_url(uid: int) -> Attack:
    """A shell with a stale URL sends its token to whoever listens now: what he gets by it from the daemon."""

    def act(ground: Ground) -> bytes:
        with squatter(ground, port := _free()):
            as_user(OWNER, lambda: wire.talk(("127.0.0.1", port), ground.get(port=port)))
        return as_user(uid, lambda: wire.talk(ground.daemon, ground.get()))

    return act


def stale_url_is_told(*, listening: bool) -> Attack:
    """Not prevented: the request line (and so the token beside it) reaches the squatter."""

    def act(ground: Ground) -> bytes:
        port = _free()
        with squatter(ground, port) if listening else contextlib.nullcontext("") as seen:
            as_user(OWNER, lambda: wire.talk(("127.0.0.1", port), ground.get(port=port)))
            if not seen:
                return b""
            with open(seen, "rb") as file:  # noqa: PTH123
                return file.read()

    return act


SHARES = "Nobody can share or take a port that vaultd listens on"
FREE = "the same binds a free port"

CASES = (
    Case(
        "T3-share-by-reuseport", "T3", SHARES,
        shares(REUSE, SHARE, free=False), FREE, shares(REUSE, SHARE, free=True),
    ),
    Case(
        "T3-share-on-lo", "T3", SHARES,
        shares(REUSE, SHARE, LO, free=False), FREE, shares(REUSE, SHARE, LO, free=True),
    ),
    Case("T3-any-address", "T3", SHARES, everywhere(free=False), FREE, everywhere(free=True)),
    Case("T3-door", "T3", SHARES, door(free=False), FREE, door(free=True)),
    Case(
        "T3-ipv6-beside-ours", "T3", "The URL is literal 127.0.0.1: a squatter on [::1] sees no request of it",
        url_as_given, "he sees the request of who asks [::1]", url_by_v6,
    ),
    Case(
        "T3-our-address-on-another-device", "T3", "A squatter of our address on another device sees no request",
        on_another_device, "a squatter on [::1] sees the same request", url_by_v6,
    ),
    Case(
        "T3-start-on-a-squatted-port", "T3", "vaultd does not start on a squatted port, and names who has it",
        start_over(down=True), "on a free port it starts", start_over(down=False),
    ),
    Case(
        "T3-door-squatted-over-a-restart", "T3",
        "A grant whose IMDS port was squatted while vaultd was down is revoked",
        door_taken(taken=True), "without a squatter the grant is there after the restart", door_taken(taken=False),
    ),
    Case(
        "T3-doctor", "T3", "`vault-client doctor` names a squatter of the shell's URL by his uid",
        doctor_is_content(taken=True), "before vaultd's own listener it is content", doctor_is_content(taken=False),
    ),
    Case(
        "T3-token-of-a-stale-url", "T3", "A token that a squatter was sent gets another user nothing",
        stale_url(OTHER), "the same token by the owner's uid is answered", stale_url(OWNER),
    ),
    Case(
        "T3-stale-url", "T3", "Not prevented: a program with a stale URL talks to whoever took the port meanwhile",
        stale_url_is_told(listening=True), "where nobody listens nothing is seen", stale_url_is_told(listening=False),
        residual=True,
    ),
)  # fmt: skip
