"""Both dialects at --debug, on every listener: what is refused, held and served leaves no canary, and quotes nothing.

A daemon in a network of its own, so that both link-local addresses are there: the credential endpoint, a door, the two
handed-over sockets, control.sock and doors.sock get the same broken requests, each full of live tokens. Then every
reply, the log at DEBUG, the audit, the run directory, argv and environ are scanned (security.md §0.5, §2.2 item 23).
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.leaks.canary import Canaries
from tests.link_local.conftest import _by_activator, served
from tests.link_local.network import own_network
from tests.process.harness import DEADLINE, Emulator, Home, short_directory, until

pytestmark = [pytest.mark.process, pytest.mark.needs("linux", "root", "ip", "unshare")]

SETTINGS = '[prompt]\nhold = "always"\n'
IMDS, ECS = ("169.254.169.254", 80), ("169.254.170.2", 80)
Address = tuple[str, int] | str
KEYS = "/latest/meta-data/iam/security-credentials/web-admin"
TTL = "X-aws-ec2-metadata-token-ttl-seconds: 600"

#: Requests that no client of ours makes; {t} is a live token, in places where parsers quote what they could not read.
BROKEN: dict[str, str] = {
    "a header without colon": "GET {p} HTTP/1.1\r\nHost: {h}\r\n{t}\r\n\r\n",
    "NUL in a name": "GET {p} HTTP/1.1\r\nHost: {h}\r\nAuthorization\x00: {t}\r\n\r\n",
    "NUL in a value": "GET {p} HTTP/1.1\r\nHost: {h}\r\nAuthorization: {t}\x00\r\n\r\n",
    "a folded line": "GET {p} HTTP/1.1\r\nHost: {h}\r\nAuthorization: x\r\n {t}\r\n\r\n",
    "a bare carriage return": "GET {p} HTTP/1.1\r\nHost: {h}\r\nAuthorization: {t}\rx\r\n\r\n",
    "a space before the colon": "GET {p} HTTP/1.1\r\nHost: {h}\r\nAuthorization : {t}\r\n\r\n",
    "a method": "{t} {p} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "a path": "GET /{t} HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "a query": "GET {p}?{t} HTTP/1.1\r\nHost: {h}\r\nX-aws-ec2-metadata-token: {t}\r\n\r\n",
    "an absolute target": "GET http://{t}/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
    "a version": "GET {p} HTTP/{t}\r\nHost: {h}\r\n\r\n",
    "a Host": "GET {p} HTTP/1.1\r\nHost: {t}\r\n\r\n",
    "two Hosts": "GET {p} HTTP/1.1\r\nHost: {h}\r\nHost: {t}\r\n\r\n",
    "an Origin": "GET {p} HTTP/1.1\r\nHost: {h}\r\nOrigin: http://{t}\r\n\r\n",
    "a cookie": "GET {p} HTTP/1.1\r\nHost: {h}\r\nCookie: {t}\r\n\r\n",
    "a length": "GET {p} HTTP/1.1\r\nHost: {h}\r\nContent-Length: {t}\r\n\r\n",
    "a body": "PUT {p} HTTP/1.1\r\nHost: {h}\r\nContent-Length: 43\r\n\r\n{t}",
    "a chunk": "PUT {p} HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n{t}\r\n",
    "a TTL": "PUT /latest/api/token HTTP/1.1\r\nHost: {h}\r\nX-aws-ec2-metadata-token-ttl-seconds: {t}\r\n\r\n",
    "a field that is too long": "GET {p} HTTP/1.1\r\nHost: {h}\r\nX: {t}" + "x" * 5000 + "\r\n\r\n",
    "half a head": "GET {p} HTTP/1.1\r\nAuthorization: {t}",
    "a wrong token": "GET {p} HTTP/1.1\r\nHost: {h}\r\nAuthorization: {t}x\r\nX-aws-ec2-metadata-token: {t}x\r\n\r\n",
    "no HTTP": "{t}\n{t}\n",
}


@dataclass
class Evidence:
    """`open`: what must hold no canary. `carried`: what the contract lets hold some. `broken`: how many were sent."""

    home: Home
    emulator: Emulator
    canaries: list[Canaries] = field(default_factory=list)
    open: dict[str, bytes] = field(default_factory=dict)
    carried: list[bytes] = field(default_factory=list)
    broken: int = 0

    def hits(self, content: bytes) -> set[str]:
        return {hit.canary for each in self.canaries for hit in each.scan(content)}

    def keys(self, body: bytes) -> None:
        """What was served, from now on to be found nowhere else."""
        told = json.loads(body)
        self.canaries.append(Canaries(secret_key=told["SecretAccessKey"], session_token=told["Token"]))
        self.carried.append(body)


def exchange(address: Address, sent: bytes) -> bytes:
    """All that comes back for these bytes."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(address)
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: received(sock), b""))


def received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def ask(address: tuple[str, int], line: str, *fields: str) -> tuple[int, bytes]:
    """One good request."""
    host = f"Host: {address[0]}:{address[1]}"
    lines = [f"{line} HTTP/1.1", host, "Connection: close", *fields, "", ""]
    head, _, body = exchange(address, "\r\n".join(lines).encode()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """The story is lived once."""
    with own_network(), Emulator.running() as emulator, short_directory() as directory:
        home = Home.make(directory, emulator, settings=SETTINGS, VAULTD_LOG="debug")
        found = Evidence(home, emulator)
        with home.daemon("--debug"):
            assert home.add(emulator).status == 0
            with _by_activator(home, "imds", "web-admin") as metadata, _by_activator(home, "ecs") as container:
                until(lambda: served(home, "imds") and served(home, "ecs"), "both addresses are served")
                _live(found)
                found.open["journals"] = (metadata.journal() + container.journal()).encode()
            _after(found)
        yield found


def _live(found: Evidence) -> None:
    home, code = found.home, found.emulator.code()
    found.canaries.append(Canaries(token_code=code))
    token = home.use("web-admin", found.emulator)["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    found.canaries.append(Canaries(grant_token=token))
    grant = home.link("POST", "/v1/grants", {"profile": "web-admin", "kind": "lease", "imds": True})
    port = int(grant["set"]["AWS_EC2_METADATA_SERVICE_ENDPOINT"].rstrip("/").rpartition(":")[2])
    endpoint, door = ("127.0.0.1", home.port), ("127.0.0.1", port)
    metadata = {each: _metadata_token(found, each) for each in (door, IMDS)}
    for each in (endpoint, ECS):
        status, body = ask(each, "GET /v1/credentials/web-admin", f"Authorization: {token}")
        assert status == 200, body
        found.keys(body)
    for each, live in metadata.items():
        status, body = ask(each, f"GET {KEYS}", f"X-aws-ec2-metadata-token: {live}")
        assert status == 200, body
        found.keys(body)
    run = home.directory / "vaultd/run"
    listeners: list[Address] = [endpoint, ECS, door, IMDS, str(run / "control.sock"), str(run / "doors.sock")]
    for address in listeners:
        for live in (token, *metadata.values()):
            _break(found, address, live)
    _hold(found, token)


def _metadata_token(found: Evidence, address: tuple[str, int]) -> str:
    status, body = ask(address, "PUT /latest/api/token", TTL, "Content-Length: 0")
    assert status == 200, body
    found.canaries.append(Canaries(metadata_token=body.decode()))
    found.carried.append(body)
    return body.decode()


def _break(found: Evidence, address: Address, live: str) -> None:
    host = "vaultd" if isinstance(address, str) else f"{address[0]}:{address[1]}"
    for name, request in BROKEN.items():
        sent = request.format(p=KEYS, h=host, t=live).encode("latin-1")
        found.open[f"answer of {address} to {name} {len(live)} {found.broken}"] = exchange(address, sent)
        found.broken += 1


def _hold(found: Evidence, token: str) -> None:
    """One held request that ends in keys, and one that a lock ends blank."""
    home = found.home
    assert home.client("clear").status == 0
    line = f"GET /v1/credentials/web-admin HTTP/1.1\r\nHost: 127.0.0.1:{home.port}\r\nUser-Agent: curl/8\r\n"
    request = f"{line}Authorization: {token}\r\n\r\n".encode()
    code = found.emulator.code(step=1)
    found.canaries.append(Canaries(token_code=code))
    with _held(home, request) as sock:
        assert home.client("mfa", "--token-code", code).status == 0
        found.keys(_dripped(sock))
    assert home.client("clear").status == 0
    with _held(home, request) as sock:
        assert home.client("lock").status == 0
        found.open["a hold that was ended"] = blank = _rest(sock)
        assert re.fullmatch(rb"(1\r\n \r\n)*0\r\n\r\n", blank), blank


@contextlib.contextmanager
def _held(home: Home, request: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", home.port), timeout=DEADLINE) as sock:
        sock.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1) or pytest.fail(f"it was closed: {head!r}")
        assert head.startswith(b"HTTP/1.1 200 "), head
        yield sock


def _rest(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: received(sock), b""))


def _dripped(sock: socket.socket) -> bytes:
    """The body without its chunks' frames."""
    raw, body = _rest(sock), b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        body, raw = body + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
    return body.strip()


def _after(found: Evidence) -> None:
    home = found.home
    stored = json.loads((home.state / "grants.json").read_text())["grants"]
    found.canaries += [Canaries(metadata_key=each["metadata_key"]) for each in stored if each["metadata_key"]]
    found.carried.append((home.state / "grants.json").read_bytes())
    for command in (("status",), ("grants",), ("grants", "--json"), ("log",), ("log", "--json"), ("doctor",)):
        home.client(*command)
    home.run("vaultd", "check")
    home.run("vaultd", "logs")
    for part in ("cmdline", "environ"):
        found.open[f"{part} of the daemon"] = Path(f"/proc/{home.pid()}/{part}").read_bytes()
    for number, ran in enumerate(home.ran):
        if "AWS_CONTAINER_AUTHORIZATION_TOKEN" not in ran.out:  # the stdout of `use` is a carrier
            found.open[f"output {number}"] = repr(ran).encode()
    for path in home.directory.rglob("*"):
        if path.is_file() and path.suffix != ".token" and path.name != "grants.json":
            found.open[str(path)] = path.read_bytes()


def test_nothing_is_left(evidence: Evidence) -> None:
    """0 hits in replies to what was refused, log, audit, state, run directory, argv, environ and outputs."""
    assert {name: found for name, each in evidence.open.items() if (found := evidence.hits(each))} == {}


def test_what_was_sent_was_refused_and_not_quoted(evidence: Evidence) -> None:
    """23 broken requests with three live tokens at six sockets; the answers are constants, or there is none."""
    answers = {name: each for name, each in evidence.open.items() if name.startswith("answer of ")}
    statuses = {each[9:12] for each in answers.values() if each.startswith(b"HTTP/1.1 ")}
    others = {each for each in answers.values() if each and not each.startswith(b"HTTP/1.1 ")}

    assert len(answers) == evidence.broken == len(BROKEN) * 3 * 6
    assert {b"400", b"403", b"404"} <= statuses <= {b"400", b"401", b"403", b"404", b"405"}
    assert {json.loads(each)["code"] for each in others} == {"BadRequest"}, "doors.sock speaks no HTTP"


def test_the_log_was_at_debug_and_only_ours_spoke(evidence: Evidence) -> None:
    """The root is at DEBUG; botocore, urllib3, asyncio and aiohttp stay at WARNING, and said nothing of a request."""
    log = (evidence.home.state / "vaultd.log").read_text()
    speakers = set(re.findall(r"^\S+Z (?:DEBUG|INFO) ([\w.]+):", log, re.MULTILINE))

    assert re.search(r"^\S+Z DEBUG ", log, re.MULTILINE), "control: it is the highest verbosity"
    assert evidence.emulator.count("AssumeRole") > 0, "control: botocore was at work"
    assert not {each for each in speakers if re.match(r"botocore|boto3|urllib3|asyncio|aiohttp|jeepney", each)}
    assert "Error handling request" not in log


def test_control_the_carriers_hold_them(evidence: Evidence) -> None:
    """Each kind is found where the contract has it: in good replies, and the key in grants.json."""
    held = evidence.hits(b"\n".join(evidence.carried))

    assert {"secret_key", "session_token", "metadata_token", "metadata_key"} <= held
    log = (evidence.home.state / "vaultd.log").read_bytes()
    for each in evidence.canaries:
        for kind, value in each.values.items():
            assert kind in evidence.hits(log + f" said {value} here\n".encode()), "a leak into the log would be found"
