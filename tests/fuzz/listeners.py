"""The listeners: the credential endpoint, a door, the control socket and doors.sock, each over a whole connection.

The first byte of an input says how it arrives; `SPLIT` is where a piece ends and the next begins, so that every split
is an input. Placeholders stand for what a run makes anew: a grant's token, a metadata token, the TCP port.

Rules checked: no 500 and no 1xx, nothing of the request in the answer or the log, keys only to who has the token, no
connection, task or descriptor left behind, and the next good request is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.fakes import FakeClock
from tests.fuzz.pipe import PLAIN, How, Pipe, converse, turns
from tests.fuzz.target import MARK, METADATA, PORT, SPLIT, TOKEN, Finding, InMemory, Watch
from tests.link_local.rig import HandoverRig, descriptors, handing, offer
from tests.web import door_rig, rig
from tests.web.control import SECRET, House, Started
from vaultd.errors import MfaRequired, StsUnavailable
from vaultd.files import Files
from vaultd.host import processes
from vaultd.host.peers import Address, Peers, PeerSocket
from vaultd.web.control_connection import ControlConnection

_STATUS: Final = re.compile(rb"HTTP/\d\.\d (\d{3}) ")
_ALLOWED: Final = {200, 400, 401, 403, 404, 405, 503}
_CONTROL_ALLOWED: Final = _ALLOWED | {100, 201, 409, 422, 426}
_KEYS: Final = (rig.SECRET.encode(), rig.TOKEN_TEXT.encode())
_BYTEWISE, _HALF_CLOSE, _STALL, _LATER, _REFUSED, _AWAY, _LOCKED = (1 << bit for bit in range(7))


class NearPeers(Peers):
    """Everyone is this user, and still there: who is not is tests/adversary's subject."""

    def uid_of(self, local: Address, remote: Address) -> PeerSocket | None:
        return PeerSocket(uid=processes.own_uid(), inode=5, state=1)


class Listening:
    """A loop of its own, a folder, and the watch; `_talk` is one whole connection."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._watch = Watch()
        self._watch.__enter__()
        self._loop.set_exception_handler(self._watch.unhandled)
        self._folder = Path(tempfile.mkdtemp(prefix="vaultd-fuzz-"))
        self._stack = contextlib.AsyncExitStack()
        self._run(self.start())
        self._tasks = self._run(_tasks())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def start(self) -> None:
        """Everything that one input after the other meets."""

    async def talk(self, data: bytes) -> None:
        """One input."""

    def one(self, data: bytes) -> None:
        self._watch.clear()
        self._run(self.talk(data))
        if (left := self._run(_tasks()) - self._tasks) > 0:
            raise Finding(f"{left} tasks were left")

    def close(self) -> None:
        self._run(self._stack.aclose())
        self._loop.close()
        self._watch.__exit__()
        shutil.rmtree(self._folder)


async def _tasks() -> int:
    for _ in range(20):
        if len(asyncio.all_tasks()) == 1:
            break
        await asyncio.sleep(0)
    return len(asyncio.all_tasks())


def _chunks(mode: int, body: bytes) -> list[bytes]:
    if mode & _BYTEWISE:
        return [bytes([each]) for each in body.replace(SPLIT, b"")]
    return [piece for piece in body.split(SPLIT) if piece]


def _how(mode: int) -> How:
    return How(half_close=bool(mode & _HALF_CLOSE), stall=bool(mode & _STALL))


def _ends(port: int) -> dict[str, object]:
    return {"sockname": ("127.0.0.1", port), "peername": ("127.0.0.1", 40_000)}


def _statuses(said: bytes, *, allowed: Iterable[int] = _ALLOWED, begins: bytes = b"HTTP/1.1 ") -> None:
    for status in map(int, _STATUS.findall(said)):
        if status not in allowed:
            raise Finding(f"status {status}")
    if said and not said.startswith(begins):
        raise Finding("the answer is not HTTP/1.1")


class Endpoint(Listening):
    """`GET /v1/credentials/…`."""

    async def start(self) -> None:
        self._broker = rig.StandInBroker()
        self._rig = await self._stack.enter_async_context(
            rig.running(self._folder, broker=self._broker, peers=NearPeers())
        )
        self._good = self._rig.request()

    def seeds(self) -> Iterable[bytes]:
        head = b"GET /v1/credentials/web-admin HTTP/1.1\r\nHost: 127.0.0.1:%PORT%\r\n"
        good = head + b"Authorization: %TOKEN%\r\n\r\n"
        for mode in (0, _BYTEWISE, _HALF_CLOSE, _STALL, _LATER, _LATER | _REFUSED, _LATER | _AWAY, _LOCKED):
            yield bytes([mode]) + good
        yield b"\x00" + good.replace(b"\r\n", b"\r" + SPLIT + b"\n")
        yield b"\x00" + good + good + good
        yield bytes([_LATER]) + good * 9
        yield b"\x00GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + MARK + b"\r\n\r\n"
        yield (
            b"\x00GET /" + MARK + b"?" + MARK + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + MARK + b"\r\n\r\n"
        )
        yield b"\x00POST /v1/credentials/audit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n" + MARK
        yield (
            b"\x00"
            + head
            + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\n"
            + MARK
            + b"\r\n0\r\n\r\n"
        )
        yield b"\x00OPTIONS * HTTP/1.0\r\nOrigin: " + MARK + b"\r\nUpgrade: websocket\r\nVia: x\r\n\r\n"
        yield b"\x00" + head + MARK + b": x\r\n " + MARK + b"\r\nX-Forwarded-For: \xff\xfe\r\n\r\n"

    async def talk(self, data: bytes) -> None:
        mode, body = (data[0] if data else 0), self._filled(data[1:])
        self._prepare(mode)
        said = await self._said(_chunks(mode, body), _how(mode))
        _statuses(said)
        held = self._rig.token.encode() in body.replace(SPLIT, b"")
        self._watch.check(said, (MARK, self._rig.token.encode(), *(() if held else _KEYS)))
        self._prepare(0)
        if not (await self._said([self._good])).startswith(b"HTTP/1.1 200 "):
            raise Finding("the next good request was not answered")
        if len(self._rig.side):
            raise Finding("a connection was left")
        self._forget()

    def _filled(self, body: bytes) -> bytes:
        return body.replace(TOKEN, self._rig.token.encode()).replace(PORT, str(self._rig.port).encode())

    def _prepare(self, mode: int) -> None:
        broker = self._broker
        broker.ready, broker.later = (None, rig.session()) if mode & _LATER else (rig.session(), None)
        broker.error = MfaRequired("A code is needed.") if mode & _REFUSED else None
        if mode & _AWAY:
            broker.error = StsUnavailable("AWS is away.")
        broker.locked = bool(mode & _LOCKED)

    async def _said(self, chunks: list[bytes], how: How = PLAIN) -> bytes:
        server = self._rig.side._server
        assert server is not None
        return await converse(server(), chunks, how, known=_ends(self._rig.port))

    def _forget(self) -> None:
        """The stand-ins remember everything, which would be growth."""
        self._rig.audit.serves.clear()
        self._rig.audit.denials.clear()
        self._broker.asked.clear()
        self._broker.used_plans.clear()


class MetadataDoor(Listening):
    """The metadata service of one grant."""

    async def start(self) -> None:
        self._broker = rig.StandInBroker(ready=rig.session())
        self._rig = await self._stack.enter_async_context(
            door_rig.a_door(self._folder, broker=self._broker, peers=NearPeers())
        )
        self._good = self._rig.request("PUT", "/latest/api/token", f"{door_rig.TTL}: 60")
        self._token = (await self._said([self._good])).rpartition(b"\r\n\r\n")[2]

    def seeds(self) -> Iterable[bytes]:
        end = b" HTTP/1.1\r\nHost: 127.0.0.1:%PORT%\r\n"
        put = b"PUT /latest/api/token" + end + b"X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n"
        asked = end + b"X-aws-ec2-metadata-token: %METADATA%\r\n\r\n"
        for mode in (0, _BYTEWISE, _HALF_CLOSE, _STALL):
            yield bytes([mode]) + put
        for path in (
            b"/", b"/latest/", b"/latest/meta-data/", b"/latest/meta-data/iam/info",
            b"/latest/meta-data/iam/security-credentials/", b"/latest/meta-data/iam/security-credentials/web-admin",
            b"/latest//meta-data//iam/security-credentials-extended/WebAdmin", b"/latest/meta-data/instance-id",
            b"/latest/meta-data/placement/region", b"/latest/dynamic/instance-identity/document", b"/" + MARK,
        ):  # fmt: skip
            yield b"\x00GET " + path + asked
        keys = b"GET /latest/meta-data/iam/security-credentials/WebAdmin"
        for mode in (_LATER, _LATER | _REFUSED, _LATER | _AWAY, _LOCKED):
            yield bytes([mode]) + keys + asked
        yield (
            b"\x00"
            + keys
            + end
            + b"User-Agent: aws-sdk-cpp CRTAuthSigning\r\nX-aws-ec2-metadata-token: "
            + MARK
            + b"\r\n\r\n"
        )
        yield b"\x00PUT /latest/api/token" + end + b"X-Forwarded-For: " + MARK + b"\r\nContent-Length: 1\r\n\r\n" + MARK
        yield b"\x00" + put.replace(b"21600", MARK) + put + put

    async def talk(self, data: bytes) -> None:
        mode, body = (data[0] if data else 0), data[1:].replace(PORT, str(self._rig.port).encode())
        body = body.replace(METADATA, self._token)
        self._prepare(mode)
        said = await self._said(_chunks(mode, body), _how(mode))
        _statuses(said)
        held = self._token in body.replace(SPLIT, b"")
        self._watch.check(said, (MARK, self._token, *(() if held else _KEYS)))
        self._prepare(0)
        if not (await self._said([self._good])).startswith(b"HTTP/1.1 200 "):
            raise Finding("the next good request was not answered")
        if len(self._rig.doors._behind.crowd):
            raise Finding("a connection was left")
        self._forget()

    def _prepare(self, mode: int) -> None:
        broker = self._broker
        broker.ready, broker.later = (None, rig.session()) if mode & _LATER else (rig.session(), None)
        broker.error = MfaRequired("A code is needed.") if mode & _REFUSED else None
        if mode & _AWAY:
            broker.error = StsUnavailable("AWS is away.")
        broker.locked = bool(mode & _LOCKED)

    async def _said(self, chunks: list[bytes], how: How = PLAIN) -> bytes:
        server = self._rig.doors._sides[self._rig.grant.id]._server
        assert server is not None
        return await converse(server(), chunks, how, known=_ends(self._rig.port))

    def _forget(self) -> None:
        self._rig.audit.serves.clear()
        self._rig.audit.denials.clear()
        self._broker.asked.clear()
        self._broker.used_plans.clear()


#: What may be shown to the same user again: names. What stands in one of these may not, nor in a header.
_SECRET_FIELDS: Final = re.compile(rb'"(?:SecretAccessKey|passphrase|token_code)"\s*:\s*"[^"]*"')
_HEADER: Final = re.compile(rb"(?im)^(?!vaultd-protocol)[\w-]+:.*$")
_EVERY_ROUTE: Final[tuple[tuple[str, str, dict[str, Any] | None], ...]] = (
    ("GET", "/v1/status", None),
    ("GET", "/v1/profiles", None),
    ("GET", "/v1/profiles/web-admin/plan", None),
    ("POST", "/v1/profiles/web-admin/refresh", {"token_code": "123456"}),
    ("GET", "/v1/profiles/web-admin/credentials", None),
    ("GET", "/v1/profiles/%ED%A0%80%2f/plan", None),
    ("POST", "/v1/profiles/web-admin/signin", {}),
    ("DELETE", "/v1/sessions?profile=web-admin", None),
    ("POST", "/v1/grants", {"profile": "web-admin", "kind": "exec", "ttl_seconds": 60, "duration_seconds": 900}),
    ("POST", "/v1/grants", {"profile": "web-admin", "kind": "shell", "pid": 1, "region": "eu-west-1"}),
    ("POST", "/v1/grants", {"profile": "audit", "kind": "lease", "imds": True, "policy": "{}", "policy_arns": ["a"]}),
    ("GET", "/v1/grants", None),
    ("DELETE", "/v1/grants/0", None),
    ("DELETE", "/v1/grants", None),
    ("GET", "/v1/prompts", None),
    ("POST", "/v1/prompts", {"identity": "identity", "token_code": "123456"}),
    ("GET", "/v1/prompts/1?wait", None),
    ("POST", "/v1/prompts/1", {"token_code": "12345"}),
    ("POST", "/v1/prompts/1", {"allow": True}),
    ("DELETE", "/v1/prompts/1", None),
    ("GET", "/v1/checks", None),
    ("POST", "/v1/identities", {"name": "x", "AccessKeyId": "AKIAAAAAAAAAAAAAAAAA", "SecretAccessKey": MARK.decode()}),
    ("GET", "/v1/identities", None),
    ("DELETE", "/v1/identities/x", None),
    ("POST", "/v1/identities/x/rotate", {}),
    ("POST", "/v1/lock", None),
    ("POST", "/v1/unlock", {"passphrase": MARK.decode()}),
    ("GET", "/v1/audit?n=5&profile=web-admin", None),
    ("GET", "/v1/events", None),
    ("POST", "/v1/stop", None),
)
#: Inputs that one daemon meets: its grants, lines and sessions are its own, and no growth.
_LIFE: Final = 400


class _MemoryHouse(InMemory):
    """State in memory; the AWS config is a file of the house."""

    def read_config(self, path: Path) -> bytes | None:
        return Files.read_config(self, path)


class ControlSocket(Listening):
    """Every route of the control API on a whole daemon, whose AWS is scripted."""

    async def start(self) -> None:
        self._left = 0
        self._started: Started | None = None
        self._house_stack = contextlib.AsyncExitStack()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX)
        self._stack.callback(self._ours.close)
        self._stack.callback(theirs.close)
        await self._anew()

    async def _anew(self) -> None:
        """Another daemon on another home."""
        await self._house_stack.aclose()
        self._home = Path(tempfile.mkdtemp(dir=self._folder))
        self._house_stack = contextlib.AsyncExitStack()
        house = House(self._home, files=_MemoryHouse())
        self._started = await self._house_stack.enter_async_context(house.run())
        assert isinstance(house.clock, FakeClock)
        self._clock, self._left = house.clock, _LIFE
        await self._started.with_session()
        await turns(50)
        self._tasks = await _tasks()

    def seeds(self) -> Iterable[bytes]:
        for method, path, body in _EVERY_ROUTE:
            yield b"\x00" + _request(method, path, body)
        first, second = (_request(*_EVERY_ROUTE[place]) for place in (0, 8))
        yield b"\x00" + first + second + first
        yield b"\x00" + first[:20] + SPLIT + first[20:]
        yield bytes([_BYTEWISE]) + second
        yield b"\x00" + _request("POST", "/v1/unlock", None, "Transfer-Encoding: chunked") + b"5\r\n{}  \n\r\n0\r\n\r\n"
        yield b"\x00" + _request("GET", "/v1/status", None, "Vaultd-Protocol: 2", "Cookie: " + MARK.decode())
        yield b"\x00" + _request("GET", "/v1/status", None, "Expect: " + MARK.decode())
        yield b"\x00" + _request("GET", "/v1/nothing", None, "Expect: " + MARK.decode())
        unlock = b"\x00POST /v1/unlock HTTP/1.1\r\nHost: v\r\n"
        yield unlock + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"
        yield unlock + b"Content-Length: 99\r\n\r\n" + MARK

    def one(self, data: bytes) -> None:
        self._watch.clear()
        self._run(self.talk(data))

    async def talk(self, data: bytes) -> None:
        mode, body = (data[0] if data else 0), data[1:]
        said = await self._said(_chunks(mode, body), _how(mode))
        # aiohttp answers what it cannot parse in the version that it made out; no SDK reads it here
        _statuses(said, allowed=_CONTROL_ALLOWED, begins=b"HTTP/")
        self._watch.check(said, (SECRET.encode(), *((MARK,) if _hidden(body.replace(SPLIT, b"")) else ())))
        await self._clock.advance(5)
        self._left -= 1
        if await self._ended() or not self._left:
            await self._anew()
        if not (await self._said([_request("GET", "/v1/status", None)])).startswith(b"HTTP/1.1 200 "):
            raise Finding("the next good request was not answered")
        if (left := await _tasks() - self._tasks) > 8:  # flights and look-ups of the daemon's own come and go
            raise Finding(f"{left} tasks were left")
        self._watch.check(b"", ())

    async def _ended(self) -> bool:
        assert self._started is not None
        return self._started.running.done() or self._started.daemon._sides is None or self._control() is None

    def _control(self) -> Any:
        assert self._started is not None
        sides = self._started.daemon._sides
        control = None if sides is None else sides.control
        return None if control is None or control._runner is None or control._server is None else control._runner.server

    async def _said(self, chunks: list[bytes], how: How = PLAIN) -> bytes:
        protocol = ControlConnection(self._control(), loop=self._loop)
        return await converse(protocol, chunks, how, known={"socket": self._ours}, patience=_answered)

    def close(self) -> None:
        self._run(self._house_stack.aclose())
        super().close()


async def _answered(pipe: Pipe) -> None:
    """Until a whole message came; 20 ms, as a thread may have to be waited for, but a person not."""
    for _ in range(20):
        head, end, body = bytes(pipe.sent).rpartition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return
        await asyncio.sleep(0.001)


def _request(method: str, path: str, body: object, *more: str) -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    length = () if any(each.startswith("Transfer") for each in more) else (f"Content-Length: {len(raw)}",)
    lines = [f"{method} {path} HTTP/1.1", "Host: vaultd", *length, *more, "", ""]
    return "\r\n".join(lines).encode() + raw


def _hidden(body: bytes) -> bool:
    """Whether MARK stands only where nothing is ever shown again."""
    return MARK not in _SECRET_FIELDS.sub(b"", _HEADER.sub(b"", body))


class DoorsSocket(Listening):
    """The messages of doors.sock. The first byte: which descriptors go with the first piece."""

    async def start(self) -> None:
        self._rig: HandoverRig = await self._stack.enter_async_context(handing(self._folder))
        for _ in range(3):  # what is made once: the grant, the first look-ups
            await self._told([json.dumps(offer()).encode() + b"\n"], self._descriptors(1))
        self._open = descriptors()

    def seeds(self) -> Iterable[bytes]:
        line = json.dumps(offer()).encode() + b"\n"
        for kind in range(8):
            yield bytes([kind]) + line
        yield b"\x01" + json.dumps(offer("ecs", None)).encode() + b"\n"
        yield b"\x01" + line[:9] + SPLIT + line[9:]
        yield b"\x01" + line + MARK
        yield b"\x01" + b'{"protocol": 2, "dialect": "imds", "profile": "' + MARK + b'"}\n'
        yield b"\x01" + b'{"protocol": 1, "dialect": ["imds"], "profile": {"a": "\\ud800"}}\n'
        yield b"\x01" + b"[" * 4000 + b"\n"

    async def talk(self, data: bytes) -> None:
        kind, pieces = (data[0] if data else 0), [piece for piece in data[1:].split(SPLIT) if piece]
        said = await self._told(pieces, self._descriptors(kind % 8))
        if said and not isinstance(json.loads(said.splitlines()[0]), dict):
            raise Finding("the answer is no object")
        self._watch.check(said, (MARK,) if self._rig.port and MARK not in _profile(data[1:]) else ())
        good = await self._told([json.dumps(offer()).encode() + b"\n"], self._descriptors(1))
        if "grant" not in json.loads(good or b"{}"):
            raise Finding("the next good hand-over was not taken")
        if descriptors() > self._open:
            raise Finding("a descriptor was left")
        self._rig.log.events.clear()
        self._rig.ended.clear()

    async def _told(self, pieces: Sequence[bytes], given: list[int]) -> bytes:
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with conn:
            conn.setblocking(False)
            await self._loop.sock_connect(conn, str(self._rig.path))
            with contextlib.suppress(OSError):
                for place, piece in enumerate(pieces):
                    socket.send_fds(conn, [piece], given if place == 0 else [])
                    await turns(5)
            for each in given:
                os.close(each)
            heard = await self._heard(conn)
        await self._idle()
        return heard

    async def _heard(self, conn: socket.socket) -> bytes:
        """What is said until it is quiet; then our half is shut, and the rest."""
        said = b""
        for turn in range(60):
            with contextlib.suppress(BlockingIOError, ConnectionError):
                part = conn.recv(4096)
                said += part
                if not part or said.endswith(b"\n"):
                    break
            if turn == 30:
                with contextlib.suppress(OSError):
                    conn.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0)
        return said

    async def _idle(self) -> None:
        for _ in range(2000):
            if not len(self._rig.handover):
                return
            await asyncio.sleep(0.0005)
        raise Finding("a connection was left")

    def _descriptors(self, kind: int) -> list[int]:
        made: dict[int, Callable[[], list[int]]] = {
            0: list,
            1: lambda: [self._rig.listener().detach()],
            2: lambda: [os.open("/dev/null", os.O_RDONLY)],
            3: lambda: [socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()],
            4: lambda: [each.detach() for each in socket.socketpair()],
            5: lambda: [self._rig.listener().detach(), os.open("/dev/null", os.O_RDONLY)],
            6: lambda: [os.open("/dev/null", os.O_RDONLY) for _ in range(5)],
            7: lambda: list(os.pipe()),
        }
        return made[kind]()


def _profile(line: bytes) -> bytes:
    """The name that a message gives, which the answer may name: nothing where it is no message."""
    try:
        found = json.loads(line.replace(SPLIT, b""))
    except (ValueError, RecursionError):
        return b""
    return str(found.get("profile")).encode(errors="replace") if isinstance(found, dict) else b""
