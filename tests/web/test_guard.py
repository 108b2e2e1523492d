"""Host, browser headers and sizes: what the guard turns away, over a raw socket and through the real parser."""

from __future__ import annotations

import asyncio
import itertools
import socket
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from hypothesis import given
from hypothesis import strategies as st

from tests.web.rig import Rig, StandInBroker, read_reply, running, session
from vaultd.errors import ForbiddenOrigin, VaultdError
from vaultd.web.guard import BROWSER_HEADERS, FOREIGN, FOREIGN_AT_DOOR, MALFORMED, Guard, RequestLines, bare_token

#: Host → status; PORT is ours, OTHER another one.
HOSTS = {
    "127.0.0.1:PORT": 200,
    "127.0.0.1": 200,
    "localhost:PORT": 200,
    "localhost": 200,
    "LOCALHOST:PORT": 200,
    "LocalHost": 200,
    "127.0.0.1:OTHER": 403,
    "localhost:80": 403,
    "127.0.0.1:0PORT": 403,
    "127.0.0.1:": 403,
    "localhost:": 403,
    "localhost.": 403,
    "localhost.:PORT": 403,
    "127.0.0.1.:PORT": 403,
    "127.0.0.2:PORT": 403,
    "127.1:PORT": 403,
    "2130706433:PORT": 403,
    "0x7f.0.0.1:PORT": 403,
    "0.0.0.0:PORT": 403,
    "[::1]:PORT": 403,
    "[::ffff:127.0.0.1]:PORT": 403,
    "169.254.169.254": 403,
    "169.254.170.2": 403,
    "user@127.0.0.1:PORT": 403,
    "127.0.0.1:PORT@evil.example": 403,
    "evil.example": 403,
    "localhost.evil.example:PORT": 403,
    "evil.example#127.0.0.1:PORT": 403,
    "127.0.0.1:PORT, evil.example": 403,
    "127.0.0.1%2e:PORT": 403,
    "127.0.0.1:PORT/": 403,
    "http://127.0.0.1:PORT": 403,
    "local host": 403,
    "": 400,
    " ": 400,
    "\t": 400,
}

#: interface.md §4, in its own words: not those of the guard, which would not miss one that it has lost.
FORBIDDEN = (
    b"origin", b"referer", b"cookie", b"upgrade", b"via", b"forwarded", b"x-real-ip",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_host_table(host: str, tmp_path: Path) -> None:
    """Exactly 127.0.0.1 or localhost, in any letter case, with our port or without any (the CRT omits it)."""
    async with running(tmp_path) as rig:
        value = host.replace("PORT", str(rig.port)).replace("OTHER", str(rig.port ^ 1))
        reply = await rig.get(Host=value)
        assert reply.status == HOSTS[host]
        assert (reply.status == 200) == (len(rig.audit.serves) == 1)


@pytest.mark.parametrize("name", sorted({*FORBIDDEN, *BROWSER_HEADERS}))
async def test_browser_headers_over_the_socket(name: bytes, tmp_path: Path) -> None:
    """Present even empty: 403 ForbiddenOrigin, closed, audited; nothing of the header comes back."""
    async with running(tmp_path) as rig:
        raw = rig.request().removesuffix(b"\r\n") + name + b":\r\n\r\n"
        reply = await rig.ask(raw)
        assert (reply.status, reply.header("Connection")) == (403, "close")
        assert rig.audit.denials[0][0] == "ForbiddenOrigin"


def parsed(head: bytes) -> RawRequestMessage:
    """What the real parser makes of a request."""
    loop = asyncio.new_event_loop()
    try:
        ((message, _),), _, _ = HttpRequestParser(BaseProtocol(loop), loop, 2**16).feed_data(head)
    finally:
        loop.close()
    return message


def refused(*fields: bytes, target: bytes = b"/x") -> VaultdError | None:
    lines = [b"GET " + target + b" HTTP/1.1", b"Host: 127.0.0.1:9169", *fields, b"", b""]
    return Guard(port=9169).refusal(parsed(b"\r\n".join(lines)))


def _in_cases(name: str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.sampled_from([char.lower(), char.upper()]) for char in name)).map("".join)


_PREFIXED = st.tuples(
    st.sampled_from(["sec-fetch-", "x-forwarded-"]),
    st.text("abcdefghijklmnopqrstuvwxyz-0123456789", max_size=12),
).map("".join)
_NAMES = st.one_of(st.sampled_from(sorted(each.decode() for each in BROWSER_HEADERS)), _PREFIXED)
_VALUES = st.one_of(st.just(""), st.text("abc :/,;=.0", max_size=20))


@given(name=_NAMES.flatmap(_in_cases), value=_VALUES)
def test_browser_headers_property(name: str, value: str) -> None:
    """Every forbidden name in every letter case, whatever its value: refused; the same message without it passes."""
    assert refused(f"{name}: {value}".encode()) is FOREIGN
    assert refused() is None
    assert refused(f"x-{name}: {value}".encode()) is None


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"127.0.0.1:9169", b"127.0.0.1:9169"],
        [b"127.0.0.1:9169", b"evil.example"],
        [b"evil.example", b"localhost"],
    ],
)
def test_exactly_one_host(hosts: list[bytes]) -> None:
    """None, an empty one or two are 400 by the guard itself, whatever the parser in front of it lets through."""
    message = parsed(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:9169\r\n\r\n")
    assert Guard(port=9169).refusal(message) is None
    fields = tuple((b"Host", each) for each in hosts)
    assert Guard(port=9169).refusal(message._replace(raw_headers=fields)) is MALFORMED


@pytest.mark.parametrize("usual", [FOREIGN, FOREIGN_AT_DOOR])
@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.170.2"])
def test_a_link_local_listener_names_its_own_address(address: str, usual: ForbiddenOrigin) -> None:
    """127.0.0.1 is no way to it, and `use` does not set it up; on 127.0.0.1 the usual sentence is said."""
    message = parsed(b"GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    linked = Guard(port=80, hosts=(address,), foreign=usual).refusal(message)

    assert isinstance(linked, ForbiddenOrigin)
    assert linked.message.endswith(f"; ask {address} directly, and see what is in between: `vault-client doctor`.")
    assert len(linked.message) <= 160
    assert Guard(port=80, foreign=usual).refusal(message) is usual


@pytest.mark.parametrize(
    ("field", "passes"),
    [
        (b"Content-Length: 0", True),
        (b"Content-Length: 1", False),
        (b"Transfer-Encoding: chunked", False),
        (b"Expect: 100-continue", True),
        (b"Accept-Encoding: gzip", True),
        (b"Connection: keep-alive", True),
        (b"Amz-Sdk-Request: attempt=1; max=3", True),
    ],
)
def test_bodies_are_refused(field: bytes, passes: bool) -> None:
    """Anything that announces a body is 400; what real SDKs send passes (sdk-facts §2)."""
    assert (refused(field) is None) == passes
    assert refused(field) in {None, MALFORMED}


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"abc", b"abc"),
        (b"Bearer abc", b"abc"),
        (b"bEARER   abc", b"abc"),
        (b"Bearer", b"Bearer"),
        (b"Bearer ", b"Bearer"),
        (b"Basic abc", b"Basic abc"),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_bare_token(value: bytes, token: bytes) -> None:
    """The token as bytes: nothing that a client sends raises."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: " + value + b"\r\n\r\n"
    assert bare_token(parsed(head)) == token
    assert bare_token(parsed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")) == b""


def _sized(rig: Rig, *, line: int = 0, field: int = 0, fields: int = 0) -> bytes:
    """A good request whose request line, one field, or number of fields has exactly that size."""
    path = "/healthz"
    if line:
        path += "x" * (line - len("GET /healthz HTTP/1.1"))
    names = {f"X-{number}": "v" for number in range(fields - 3)}
    if field:
        names["X-Long"] = "v" * (field - len("X-Long"))
    return rig.request(path, **names)


@pytest.mark.parametrize(
    ("size", "above", "status"),
    [("line", 0, 404), ("line", 1, 400), ("field", 0, 200), ("field", 1, 400), ("fields", 0, 200), ("fields", 1, 400)],
)
async def test_sizes(size: str, above: int, status: int, tmp_path: Path) -> None:
    """Request line and each field up to 4 KiB, up to 64 fields; one more is 400, never 413, 431 or 505."""
    limit = 64 if size == "fields" else 4096
    async with running(tmp_path) as rig:
        reply = await rig.ask(_sized(rig, **{size: limit + above}))
        assert reply.status == status


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
async def test_far_too_long_is_still_answered(size: int, tmp_path: Path) -> None:
    """The rest of a refused request is read and dropped: no reset stops its sender, or eats the 400."""
    loop = asyncio.get_running_loop()
    async with running(tmp_path) as rig:
        for raw in (b"GET /" + b"a" * size, rig.request(Content_Length=str(size)) + b"b" * size):
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", rig.port))
                for start in range(0, len(raw), 5000):
                    await loop.sock_sendall(sock, raw[start : start + 5000])
                    await asyncio.sleep(0)
                assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"OPTIONS / RTSP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"SOURCE / ICE/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\r\nGET / RTSP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_other_protocols_and_forms(raw: bytes, tmp_path: Path) -> None:
    """Whatever is not a plain HTTP/1.1 request in origin form is 400 and closed."""
    async with running(tmp_path) as rig:
        reply = await rig.ask(raw)
        assert (reply.status, reply.header("Connection")) == (400, "close")


def _in_other_words(rig: Rig, protocol: bytes) -> bytes:
    """A request that the parser takes, but for its protocol."""
    raw = rig.request().replace(b"HTTP/1.1", protocol, 1)
    return b"SOURCE" + raw.removeprefix(b"GET") if protocol.startswith(b"ICE") else raw


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("protocol", [b"RTSP/1.1", b"ICE/1.1", b"RTSP/1.0", b"HTTP/1.1"])
async def test_other_protocols_of_the_parser(protocol: bytes, size: int, tmp_path: Path) -> None:
    """Llhttp takes RTSP and ICE and tells their version only: 400 all the same, and no keys, however the bytes are cut
    and on a kept connection too. Control: the same in HTTP/1.1 is served, whatever it says elsewhere.
    """
    async with running(tmp_path) as rig:
        reader, writer = await rig.connect()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            writer.write(rig.request(**{"User-Agent": "x RTSP/1.1", "X-1": "GET / ICE/1.1"}))
            assert (await read_reply(reader)).status == 200
        raw = _in_other_words(rig, protocol)
        for start in range(0, len(raw), size):
            writer.write(raw[start : start + size])
            await asyncio.sleep(0)
        reply = await read_reply(reader)
        writer.close()

        served = protocol == b"HTTP/1.1"
        assert reply.status == (200 if served else 400)
        assert len(rig.audit.serves) == 2 + served


@pytest.mark.parametrize("protocol", [b"RTSP/1.1", b"ICE/1.1", b"HTTP/1.1"])
async def test_other_protocols_behind_a_request_that_waits(protocol: bytes, tmp_path: Path) -> None:
    """Queued by aiohttp's own loop, behind the one that waits for its session: that one is served, then 400."""
    async with running(tmp_path, broker=StandInBroker(later=session(), release=asyncio.Event())) as rig:
        reader, writer = await rig.connect()
        writer.write(rig.request())
        await rig.broker.was_asked(1)
        writer.write(_in_other_words(rig, protocol))
        assert rig.broker.release is not None
        rig.broker.release.set()

        assert (await read_reply(reader)).status == 200
        assert (await read_reply(reader)).status == (200 if protocol == b"HTTP/1.1" else 400)
        writer.close()


_LINES = st.lists(
    st.sampled_from([b"GET / HTTP/1.1", b"GET / RTSP/1.1", b"SOURCE / ICE/1.1", b"OPTIONS /RTSP/1.1 HTTP/1.0"]),
    min_size=1,
    max_size=5,
)


@given(_LINES, st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_every_request_line_is_read(lines: list[bytes], cuts: list[int], blank: bool) -> None:
    """Any number of requests, cut anywhere: refused exactly when one line is of another protocol."""
    text = b"".join(b"\r\n" * blank + line + b"\r\nHost: RTSP/1.1\r\nX: a\r\n\r\n" for line in lines)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    found = RequestLines()
    passed = all(found.are_http(text[a:b]) for a, b in itertools.pairwise(places))

    assert passed == all(b" HTTP/" in line for line in lines)


async def test_upgrade_is_refused_whatever_follows(tmp_path: Path) -> None:
    """`Upgrade: websocket` with bytes behind it: 403, and none of them is taken for a request."""
    async with running(tmp_path) as rig:
        raw = rig.request(Upgrade="websocket", Connection="Upgrade")
        reply = await rig.ask(raw + rig.request())
        assert reply.status == 403
        assert rig.audit.serves == []


def test_table_is_long_enough() -> None:
    """security.md §2.1 item 11 asks for 30 vectors; each is there once."""
    assert len(HOSTS) >= 30
    assert all(a != b for a, b in itertools.pairwise(sorted(HOSTS)))
