"""A real headless Chromium of the owner's, on a page of a foreign origin, and what the page could read.

The page tries every way against four targets of vaultd (credential endpoint, healthz, a door, 169.254.169.254) and
the same ways against the naive server; it posts what it read to its own origin. One run is for all cases.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.adversary import naive
from tests.adversary.ground import KEYS_PATH, ROLE_PATH, TOKEN_PATH, Ground
from tests.adversary.people import OWNER, as_process, command_of
from tests.process.harness import DEADLINE, until

PROBES = (
    "fetch-cors", "fetch-with-token", "fetch-no-cors", "fetch-put-token", "form-post", "image", "script", "iframe",
    "websocket", "event-source", "xhr", "beacon",
)  # fmt: skip
#: A page never reads an answer of these, whoever serves: they could only change something.
BLIND = ("fetch-no-cors", "beacon")
SECONDS = 90.0
_PAGE = Path(__file__).with_name("page.html")


def _started(profile: Path, url: str) -> subprocess.Popen[bytes]:
    """Every name under `test` is this machine; what Chromium has against loopback is off: vaultd stands alone."""
    profile.mkdir()
    os.chown(profile, OWNER, OWNER)
    command = [
        *command_of(OWNER), "/usr/bin/chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-extensions", f"--user-data-dir={profile}", "--host-resolver-rules=MAP *.test 127.0.0.1",
        "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,HttpsUpgrades", url,
    ]  # fmt: skip
    env = {"PATH": "/usr/bin:/bin", "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "LANG": "C.UTF-8"}
    with (profile / "stderr").open("w") as err:
        return subprocess.Popen(command, env=env, stdout=err, stderr=err, cwd="/", start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(DEADLINE)


def _reported(report: Path) -> dict[str, Any]:
    said = report.parent / "profile/stderr"
    until(report.exists, f"chromium's page reports: {said.read_text()[-1000:]}", seconds=SECONDS)
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def _origin(sock: socket.socket, page: bytes, report: Path, *, pages: int = 1000) -> Callable[[], None]:
    """The foreign origin: the page for every GET, what is posted becomes the report. Leaves after `pages` pages."""

    def serve() -> None:
        left = pages
        while left:
            connection, _ = sock.accept()
            with connection:
                connection.settimeout(2)
                try:
                    asked = _asked(connection)
                except OSError:
                    continue  # a connection that the browser opens ahead
                if asked.startswith(b"POST /report"):
                    aside = report.with_suffix(".aside")
                    aside.write_bytes(asked.partition(b"\r\n\r\n")[2])
                    aside.rename(report)
                left -= asked.startswith(b"GET / ")
                text = page if asked.startswith(b"GET / ") else b"ok"
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nAccess-Control-Allow-Origin: *\r\n"
                    b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(text) + text
                )

    return serve


def _asked(connection: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        found += _part(connection)
    head, _, rest = found.partition(b"\r\n\r\n")
    wanted = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(rest) < wanted:
        rest += _part(connection)
    return head + b"\r\n\r\n" + rest


def _part(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    if not part:
        raise ConnectionResetError
    return part


def _filled(settings: dict[str, Any]) -> bytes:
    return _PAGE.read_bytes().replace(b"{settings}", json.dumps(settings).encode())


def _report(ground: Ground, name: str) -> Path:
    place = ground.directory / name
    place.mkdir()
    os.chown(place, OWNER, OWNER)
    return place / "report.json"


def visited(ground: Ground) -> dict[str, Any]:
    """The one run: {target: {probe: what the page read}}, and what changed meanwhile."""
    if "chromium" not in ground.notes:
        ground.notes["chromium"] = json.dumps(_visit(ground))
    found: dict[str, Any] = json.loads(ground.notes["chromium"])
    return found


def _visit(ground: Ground) -> dict[str, Any]:
    report = _report(ground, "foreign")
    urls = {
        "vaultd": [
            f"http://127.0.0.1:{ground.home.port}{KEYS_PATH}",
            f"http://localhost:{ground.home.port}/healthz",
            f"http://0.0.0.0:{ground.home.port}{KEYS_PATH}",
            f"http://rebind.test:{ground.home.port}{KEYS_PATH}",
            f"http://127.0.0.1:{ground.door}{TOKEN_PATH}",
            f"http://127.0.0.1:{ground.door}{ROLE_PATH}",
            f"http://169.254.169.254{TOKEN_PATH}",
        ],
        "naive": [f"http://127.0.0.1:{ground.naive_port}{KEYS_PATH}"],
    }
    settings = {"targets": urls, "token": ground.token, "metadata": ground.metadata_token, "probes": PROBES}
    before = _state(ground)
    seen = len(ground.naive_seen.read_bytes())
    with naive.listen("127.0.0.1", 0) as sock, as_process(OWNER, _origin(sock, _filled(settings), report)):
        process = _started(report.parent / "profile", f"http://evil.test:{sock.getsockname()[1]}/")
        try:
            found = _reported(report)
        finally:
            _end(process)
    after = _state(ground)
    found["changed"] = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
    found["naive_saw"] = ground.naive_seen.read_bytes()[seen:].decode()
    return found


def _state(ground: Ground) -> dict[str, Any]:
    """What a page could have changed. A grant's last use is among it."""
    return {
        "grants": [(each["id"], each["last_used"]) for each in ground.home.ask("GET", "/v1/grants")["grants"]],
        "prompts": ground.home.ask("GET", "/v1/prompts")["prompts"],
        "asked": ground.home.asked(),
    }


def gained(ground: Ground, *, name: str, target: str) -> bytes:
    """What was read; of a blind way, that the naive server saw it."""
    found = visited(ground)[target][name]
    if target == "naive" and name in BLIND:
        found = [line for line in visited(ground)["naive_saw"].splitlines() if f"?probe={name} " in line]
    return json.dumps(found).encode() if found else b""


def changed(ground: Ground) -> bytes:
    found = visited(ground)["changed"]
    return json.dumps(found).encode() if found else b""


def seen_by_naive(ground: Ground) -> bytes:
    """Every one of them."""
    seen: str = visited(ground)["naive_saw"]
    return seen.encode() if all(f"?probe={name} " in seen for name in PROBES) else b""


def rebound(ground: Ground, *, to: str) -> bytes:
    """The page is loaded from its own server on a port that afterwards is vaultd's (or the naive server's): the name
    and the origin stay, what is behind them changes, as by a DNS answer of a second's life.
    """
    report = _report(ground, f"rebound-{to}")
    if to == "naive":
        with naive.listen("127.0.0.1", 0) as probe:
            port = probe.getsockname()[1]
        return _rebound_naive(ground, report, port)
    with ground.stopped():
        process = _Rebinding(ground, report, ground.home.port)
        process.load()
    try:
        return process.read()
    finally:
        process.close()


def _rebound_naive(ground: Ground, report: Path, port: int) -> bytes:
    process = _Rebinding(ground, report, port)
    try:
        process.load()
        with naive.listen("127.0.0.1", port) as sock, as_process(OWNER, lambda: naive.serve(sock)):
            return process.read()
    finally:
        process.close()


class _Rebinding:
    """Chromium on http://rebind.test:PORT/, which polls its own origin until it is not its own server any more."""

    def __init__(self, ground: Ground, report: Path, port: int) -> None:
        self._ground, self._report, self._port = ground, report, port
        self._pid = 0
        self._collector = naive.listen("127.0.0.1", 0)
        self._browser: subprocess.Popen[bytes] | None = None

    def load(self) -> None:
        settings = {
            "rebound": True, "token": self._ground.token, "metadata": self._ground.metadata_token,
            "collect": f"http://collect.test:{self._collector.getsockname()[1]}/report", "path": KEYS_PATH,
        }  # fmt: skip
        self._pid = _forked(_origin(self._collector, b"", self._report))
        with naive.listen("127.0.0.1", self._port) as sock:
            page = _forked(_origin(sock, _filled(settings), self._report, pages=1))
        self._browser = _started(self._report.parent / "profile", f"http://rebind.test:{self._port}/")
        os.waitpid(page, 0)

    def read(self) -> bytes:
        found = _reported(self._report)
        assert found["statuses"], "the page did not reach who is behind its name now"
        return json.dumps(found["read"]).encode() if found["read"] else b""

    def close(self) -> None:
        if self._browser is not None:
            _end(self._browser)
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._collector.close()


def _forked(act: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return pid
