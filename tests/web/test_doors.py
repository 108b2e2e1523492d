"""The listeners follow the grants: open, reopened on the same port, freed with their grant; rules of web/doors.py."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.web.control import ROLE as CONTROL_ROLE
from tests.web.control import House, Started
from tests.web.door_rig import KEYS, TTL, a_door, doors_in, port_of
from tests.web.rig import read_reply, until_closed
from vaultd.engine.grant_records import Bound, Door
from vaultd.engine.grants import Grant
from vaultd.errors import Unwritable
from vaultd.files import Files
from vaultd.host import sockets
from vaultd.web.limits import Limits

LEASE = {"profile": "web-admin", "kind": "lease", "imds": True}


async def refused(port: int) -> bool:
    """Nobody listens there; the loop may need a turn to let go of the descriptor."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return True
            writer.close()
            await asyncio.sleep(0)


@pytest.fixture
def squatter() -> Iterator[socket.socket]:
    """A TCP port that another program has."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


# ---- open and close ----


async def test_a_grant_is_made_with_its_door(tmp_path: Path) -> None:
    """One call: a loopback port of its own in the grant and in grants.json; no token file lies about."""
    async with a_door(tmp_path) as rig:
        (stored,) = json.loads((tmp_path / "grants.json").read_text())["grants"]
        assert rig.grant.imds
        assert stored["door"] == {"address": "127.0.0.1", "port": rig.port}
        assert len(bytes.fromhex(stored["metadata_key"])) == 32
        assert list((tmp_path / "tokens").iterdir()) == []
        assert (await rig.get(KEYS)).body == b"web-admin"
        assert len(rig.doors) == 1


async def test_each_door_is_of_one_grant(tmp_path: Path) -> None:
    """Two doors, two ports, each with its own profile's name."""
    async with a_door(tmp_path) as rig:
        first = rig.grant
        rig.grant = await rig.another("audit")
        assert rig.port != port_of(first)
        assert (await rig.get(KEYS)).body == b"audit"


@pytest.mark.parametrize("end", ["revoke", "revoke_all", "expiry", "process"])
async def test_a_port_is_freed_with_its_grant(tmp_path: Path, end: str) -> None:
    """However a grant ends: refused from then on, who is connected is cut off, and other doors go on."""
    async with doors_in(tmp_path) as rig:
        rig.grant = await rig.another("web-admin", bound=Bound("boot", 4711, 1) if end == "process" else None)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request("PUT", "/latest/api/token", f"{TTL}: 60"))
        assert (await read_reply(reader)).status == 200
        ended = rig.grant
        match end:
            case "revoke":
                rig.grants.revoke(ended.id, reason="a test")
            case "revoke_all":
                rig.grants.revoke_all(reason="a test")
            case "expiry":
                await rig.clock.advance(7 * 86_400)
                rig.grants.sweep()
            case _:
                rig.grants._alive = lambda _: False
                rig.grants.sweep()
        assert await refused(port_of(ended))
        assert await until_closed(reader) == b""
        writer.close()
        assert len(rig.doors) == 0
        rig.grant = await rig.another("audit")
        assert (await rig.get(KEYS)).body == b"audit"


async def test_nothing_is_left_of_a_grant_that_cannot_be_kept(tmp_path: Path) -> None:
    """The disk is full when it is to be written: no grant, no door, and the port is free."""
    ports: list[int] = []

    def full(operation: str, path: Path) -> None:
        if operation == "write":
            raise OSError(errno.ENOSPC, "full")

    async with doors_in(tmp_path, files=Files(fault=full)) as rig:

        def create(door: Door) -> Grant:
            ports.append(door.port)
            return rig.made("web-admin", door)

        with pytest.raises(Unwritable):
            await rig.doors.open(create)
        assert await refused(ports[0])
        assert (rig.grants.list(), len(rig.doors)) == ((), 0)


async def test_nothing_is_left_of_a_door_that_cannot_be_served(tmp_path: Path) -> None:
    """The socket cannot be listened on after all: the error goes up, the grant is revoked, nothing is open."""
    made: list[Grant] = []

    async with doors_in(tmp_path, listen=udp) as rig:

        def create(door: Door) -> Grant:
            made.append(rig.made("web-admin", door))
            return made[0]

        with pytest.raises((OSError, ValueError)):
            await rig.doors.open(create)
        assert rig.told == [(made[0].id, "its port could not be served")]
        assert (rig.grants.list(), len(rig.doors)) == ((), 0)


def udp(port: int) -> socket.socket:
    """A socket that no loop serves HTTP on."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


async def test_there_are_only_so_many(tmp_path: Path) -> None:
    """Past the limit a clear error, no grant and no listener; one that ends makes room."""
    async with doors_in(tmp_path, limits=Limits(doors=3)) as rig:
        grants = [await rig.another("web-admin") for _ in range(3)]
        with pytest.raises(Unwritable, match=r"^3 IMDS ports are open, .* `vault-client revoke GRANT`"):
            await rig.another("audit")
        assert rig.grants.list() == tuple(grants)
        rig.grants.revoke(grants[0].id, reason="a test")
        await rig.another("audit")


def test_doors_leave_descriptors_for_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 of them, or an eighth of the descriptors, beside the three quarters that connections may have."""
    for soft, most in ((1 << 20, 256), (1024, 128), (256, 32)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert Limits().most_doors() == most
        assert Limits().most_doors() + Limits().most() < soft


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """The system refuses another socket: named, with the way out."""

    def listen(port: int) -> socket.socket:
        raise Unwritable(f"Port {port} cannot be opened") from OSError(errno.EMFILE, "too many open files")

    async with doors_in(tmp_path, listen=listen) as rig:
        with pytest.raises(Unwritable, match=r"for --imds \(too many open files\): leave --imds out"):
            await rig.another("web-admin")


async def test_a_socket_is_adopted_with_its_own_hosts(tmp_path: Path) -> None:
    """The seam of the link-local address: a socket that somebody else bound, and what Host may name on it."""
    async with doors_in(tmp_path) as rig:
        sock = sockets.listen_tcp(0)
        port = sock.getsockname()[1]
        rig.grant = rig.made("web-admin", Door("169.254.169.254", 80))
        await rig.doors.adopt(rig.grant, sock, hosts=("169.254.169.254",))
        for host, status in (("169.254.169.254", 200), (f"169.254.169.254:{port}", 200), (f"127.0.0.1:{port}", 400)):
            raw = rig.request("PUT", "/latest/api/token", f"{TTL}: 60", host=host)
            assert (await rig.ask(raw, port=port)).status == status

        rig.doors.close(rig.grant)
        assert await refused(port)
        assert rig.grants.list() == (rig.grant,), "the grant lives on: only its socket was taken back"
        rig.doors.close(rig.grant)


async def test_adopting_again_closes_what_was_there(tmp_path: Path) -> None:
    """A socket handed over twice is served once."""
    async with doors_in(tmp_path) as rig:
        grant = rig.made("web-admin", Door("169.254.169.254", 80))
        ports = []
        for _ in range(2):
            sock = sockets.listen_tcp(0)
            ports.append(sock.getsockname()[1])
            await rig.doors.adopt(grant, sock, hosts=("169.254.169.254",))
        assert await refused(ports[0])
        raw = rig.request("PUT", "/latest/api/token", f"{TTL}: 60", host="169.254.169.254", port=1)
        assert (await rig.ask(raw, port=ports[1])).status == 200
        assert len(rig.doors) == 1


async def test_a_grant_that_ends_while_its_door_opens(tmp_path: Path) -> None:
    """Revoked in the turn between: the door does not stay open."""
    async with doors_in(tmp_path) as rig:
        sock = sockets.listen_tcp(0)
        port = sock.getsockname()[1]
        grant = rig.made("web-admin", Door("127.0.0.1", port))
        opening = asyncio.ensure_future(rig.doors.adopt(grant, sock, hosts=("127.0.0.1",)))
        await asyncio.sleep(0)
        rig.grants.revoke(grant.id, reason="a test")
        await opening
        assert await refused(port)
        assert len(rig.doors) == 0


# ---- restart ----


async def test_a_restart_reopens_the_same_port(tmp_path: Path) -> None:
    """An open shell goes on: its port by number, and a metadata token of before, which some SDKs never renew."""
    clock = FakeClock()
    async with a_door(tmp_path, clock=clock) as rig:
        port, token, last = rig.port, await rig.token(), await rig.get("/latest/meta-data/instance-id")
    assert await refused(port)

    await clock.advance(3600)
    async with doors_in(tmp_path, clock=clock) as rig:
        (rig.grant,) = rig.grants.list()
        await rig.doors.reopen()
        assert rig.port == port
        assert (await rig.get(f"{KEYS}web-admin", token=token)).status != 401
        assert (await rig.get("/latest/meta-data/instance-id", token=token)).body == last.body
        assert rig.doors.trouble == ()


async def test_a_link_local_door_is_not_reopened_by_us(tmp_path: Path) -> None:
    """Its socket is handed over by the service manager; the grant waits for it."""
    async with doors_in(tmp_path) as rig:
        grant = rig.made("web-admin", Door("169.254.169.254", 80))
        await rig.doors.reopen()
        assert (len(rig.doors), rig.grants.list()) == (0, (grant,))


async def test_a_taken_port_costs_the_grant_and_is_named(
    tmp_path: Path, squatter: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process has it: revoked with the reason, named in log and trouble until the profile is used again."""
    port = squatter.getsockname()[1]
    async with doors_in(tmp_path) as rig:
        lost = rig.made("web-admin", Door("127.0.0.1", port))
        kept = rig.made("audit", Door("127.0.0.1", free_port()))
        await rig.doors.reopen()

        assert rig.grants.list() == (kept,)
        ((ended, reason),) = rig.told
        assert ended == lost.id
        assert reason.startswith(f"its IMDS port {port} is taken by ")
        (said,) = rig.doors.trouble
        assert f"grant {lost.id} of profile web-admin is revoked, because its IMDS port {port} is taken by" in said
        assert said.endswith("type `vault-client use --imds web-admin` again")
        assert f"lose door grant={lost.id} port={port}" in caplog.text

        await rig.another("audit")
        assert list(rig.doors.trouble) == [said]
        await rig.another("web-admin")
        assert list(rig.doors.trouble) == []


async def test_a_lost_command_is_to_be_run_again(tmp_path: Path, squatter: socket.socket) -> None:
    """What to type is `exec` where it was; a disk that is full as well does not keep the daemon from starting."""
    disk: list[OSError] = []

    def fault(operation: str, path: Path) -> None:
        if operation == "write" and disk:
            raise disk[0]

    async with doors_in(tmp_path, files=Files(fault=fault)) as rig:
        rig.made("team prod", Door("127.0.0.1", squatter.getsockname()[1]), kind="exec")
        disk.append(OSError(errno.ENOSPC, "full"))
        await rig.doors.reopen()
        (said,) = rig.doors.trouble
        assert said.endswith("type `vault-client exec --imds 'team prod' -- CMD` again")
        assert rig.grants.list() == ()
        disk.clear()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# ---- the whole daemon ----


async def metadata(started: Started, port: int, method: str, path: str, *lines: str) -> tuple[int, bytes]:
    """One request to a door of a daemon."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines, "", ""]).encode())
    try:
        reply = await read_reply(reader)
    finally:
        writer.close()
    return reply.status, reply.body


def port_in(grant: dict[str, Any]) -> int:
    """Of the endpoint that the shell is given."""
    endpoint: str = grant["set"]["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    return int(endpoint.removeprefix("http://127.0.0.1:").removesuffix("/"))


async def test_imds_over_the_control_api(tmp_path: Path) -> None:
    """POST /v1/grants {imds: true}: the contract's variables, a door that serves, listed as such, gone when revoked."""
    async with House(tmp_path).run() as started:
        await started.with_session()
        grant = await started.ok("POST", "/v1/grants", LEASE)
        port = port_in(grant)
        assert grant["set"]["AWS_METADATA_ENDPOINT"] == f"http://127.0.0.1:{port}/"
        assert grant["set"]["AWS_REGION"] == "eu-west-1"
        assert grant["set"]["VAULTD_GRANT"] == grant["id"]
        assert "AWS_CONTAINER_AUTHORIZATION_TOKEN" in grant["unset"]
        assert grant["role_arn"] == CONTROL_ROLE
        assert list(started.house.layout.grant_tokens.iterdir()) == []
        assert stat.S_IMODE(started.house.layout.grants_json.stat().st_mode) == 0o600

        _, token = await metadata(started, port, "PUT", "/latest/api/token", f"{TTL}: 60")
        shown = f"X-aws-ec2-metadata-token: {token.decode()}"
        status, keys = await metadata(started, port, "GET", f"{KEYS}web-admin", shown)
        assert (status, json.loads(keys)["Code"]) == (200, "Success")
        assert (await metadata(started, port, "GET", "/latest/meta-data/placement/region", shown))[1] == b"eu-west-1"

        (listed,) = (await started.ok("GET", "/v1/grants"))["grants"]
        assert (listed["id"], listed["imds"]) == (grant["id"], True)
        assert listed["last_used"] is not None
        await started.ok("DELETE", f"/v1/grants/{grant['id']}")
        assert await refused(port)


async def test_a_door_lives_through_stop_and_start(tmp_path: Path) -> None:
    """The port, its grant and its metadata tokens; a locked daemon keeps token path and role list open."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.with_session()
        port = port_in(await started.ok("POST", "/v1/grants", LEASE))
        _, token = await metadata(started, port, "PUT", "/latest/api/token", f"{TTL}: 21600")
    assert await refused(port)

    shown = f"X-aws-ec2-metadata-token: {token.decode()}"
    async with house.run() as started:
        assert (await metadata(started, port, "GET", KEYS, shown)) == (200, b"web-admin")
        assert (await metadata(started, port, "GET", f"{KEYS}web-admin", shown))[0] == 200
        await started.ok("POST", "/v1/lock")
        assert (await metadata(started, port, "GET", KEYS, shown))[0] == 200
        assert (await metadata(started, port, "PUT", "/latest/api/token", f"{TTL}: 1"))[0] == 200
        status, body = await metadata(started, port, "GET", f"{KEYS}web-admin", shown)
        assert (status, body.split(b":")[0]) == (403, b"Locked")


async def test_a_taken_port_is_said_at_start_and_in_status(tmp_path: Path) -> None:
    """Status and `vaultd start` name it, the audit log has the revoke with its reason; the daemon serves."""
    house = House(tmp_path)
    async with house.run() as started:
        await started.with_session()
        grant = await started.ok("POST", "/v1/grants", LEASE)
    with socket.create_server(("127.0.0.1", port_in(grant)), reuse_port=False):
        async with house.run() as started:
            status = await started.ok("GET", "/v1/status")
            told = [each for each in started.told["warnings"] if grant["id"] in each]
            assert len(told) == 1
            assert told[0] in status["trouble"]
            assert f"its IMDS port {port_in(grant)} is taken by" in told[0]
            assert (await started.ok("GET", "/v1/grants"))["grants"] == []
        (event,) = [each for each in house.events("grant.revoke") if each["grant"] == grant["id"]]
        assert event["reason"].startswith(f"its IMDS port {port_in(grant)} is taken by")


async def test_too_many_over_the_control_api(tmp_path: Path) -> None:
    """A clear refusal with the next step, exit 1; nothing of it remains."""
    async with House(tmp_path).run() as started:
        await started.with_session()
        sides = started.daemon._sides
        assert sides is not None
        sides.doors._most = 1
        await started.ok("POST", "/v1/grants", LEASE)
        status, body = await started.refused("POST", "/v1/grants", LEASE)
        assert (status, body["exit"]) == (422, 1)
        assert body["message"].startswith("1 IMDS ports are open")
        assert len((await started.ok("GET", "/v1/grants"))["grants"]) == 1
