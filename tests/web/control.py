"""A whole daemon in this process, on a home of its own: real files and sockets, scripted AWS, and its control API.

Rule: nothing here reads the machine's own AWS files, keyring or vaultd; what was started is stopped by its own `stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.fakes import FakeClock, FakeConsole, FakeIam, FakeStore, FakeSts
from vaultd.config import Settings, load_settings
from vaultd.daemon import Daemon, build
from vaultd.engine.seams import Clock, IdentityStore
from vaultd.files import Files
from vaultd.layout import Layout
from vaultd.lifecycle.keeping import Amazon
from vaultd.lifecycle.surroundings import Surroundings

SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
ROLE = "arn:aws:iam::234567890123:role/WebAdmin"
KEY_ID = "AKIAFRANKLIN00000001"
SECRET = "canary-identity-secret"
PROFILES = f"""\
[profile web-admin]
source_profile = identity
role_arn = {ROLE}
mfa_serial = {SERIAL}
region = eu-west-1

[profile audit]
source_profile = identity
role_arn = arn:aws:iam::345678901234:role/Audit
mfa_serial = {SERIAL}

[profile looped]
source_profile = looped-too
role_arn = {ROLE}

[profile looped-too]
source_profile = looped
role_arn = {ROLE}
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class House:
    """A home, and what a daemon in it is built from. `run()` is one start of it, to its stop."""

    root: Path
    clock: Clock = field(default_factory=FakeClock)
    store: IdentityStore = field(default_factory=FakeStore)
    iam: FakeIam = field(default_factory=lambda: FakeIam(SERIAL))
    environ: dict[str, str] = field(default_factory=dict)
    settings: str = ""
    files: Files = field(default_factory=Files)
    warm: Callable[[], Any] | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.root.chmod(0o700)
        self.console = FakeConsole()
        self.sts = FakeSts(self.clock)  # type: ignore[arg-type]  # it asks for the time only
        self.layout = Layout.find({"VAULTD_HOME": str(self.root / "v")})
        self.aws_config = self.root / "aws-config"
        self.profiles(PROFILES)

    def profiles(self, text: str) -> None:
        self.aws_config.write_text(text)
        self.aws_config.chmod(0o600)

    @property
    def surroundings(self) -> Surroundings:
        environ = {
            "HOME": str(self.root),
            "AWS_CONFIG_FILE": str(self.aws_config),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.root / "credentials"),
            **self.environ,
        }
        settings = load_settings(self.settings, path="config.toml").with_environment(environ)
        return Surroundings(
            layout=self.layout,
            files=self.files,
            environ=environ,
            settings=self._on_any_port(settings),
            clock=self.clock,
        )

    def _on_any_port(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"listen": settings.listen.model_copy(update={"port": self.port})})

    def daemon(self) -> Daemon:
        self.files.make_dirs(self.layout)
        amazon = Amazon(sts=self.sts, iam=self.iam, console=self.console, warm=self.warm)
        return build(self.surroundings, amazon=amazon, keyring=self.store, jitter=lambda: 0.0)

    @contextlib.asynccontextmanager
    async def run(self, *, accept_rollback: bool = False) -> AsyncIterator[Started]:
        daemon, told = self.daemon(), list[dict[str, Any]]()
        running = asyncio.ensure_future(daemon.run(told.append, accept_rollback=accept_rollback))
        try:
            await soon(lambda: told or running.done())
            if running.done():
                running.result()
            yield Started(self, daemon, told[0], running)
        finally:
            daemon.stop()
            async with asyncio.timeout(20):
                await running

    def audit(self) -> list[dict[str, Any]]:
        path = self.layout.audit_jsonl
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.audit() if each["event"] == name]


@dataclass
class Started:
    """A daemon that serves."""

    house: House
    daemon: Daemon
    told: dict[str, Any]
    running: asyncio.Future[None]

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        async with Line(self) as line:
            line.send(method, path, raw, **headers)
            return await line.answer()

    async def ok(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.call(method, path, body)
        assert answer.status < 300, answer
        return answer.body

    async def refused(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        answer = await self.call(method, path, body)
        assert answer.status >= 400, answer
        assert isinstance(answer.body["message"], str)
        return answer.status, answer.body

    async def add(self, name: str = "identity", **more: object) -> Any:
        body = {"name": name, "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET, **more}
        return await self.ok("POST", "/v1/identities", body)

    async def with_session(self, code: str = "123456") -> None:
        """The identity is added and its MFA session open."""
        await self.add()
        await self.ok("POST", "/v1/prompts", {"token_code": code})


class Line:
    """One connection to the control socket."""

    def __init__(self, started: Started) -> None:
        self._path = str(started.house.layout.control_sock)
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_unix_connection(self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        fields = {"Host": "vaultd", "Content-Length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body)

    async def answer(self) -> Answer:
        async with asyncio.timeout(20):
            status, headers = await self.head()
            raw = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(status, headers, json.loads(raw) if raw else None)

    async def head(self) -> tuple[int, dict[str, str]]:
        start = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = start[:-4].decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
        return int(line.split(" ")[1]), headers

    async def event(self) -> Any:
        """The next object of a chunked NDJSON stream; None at its end."""
        async with asyncio.timeout(20):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = await self.reader.readexactly(size + 2)
        return json.loads(chunk) if size else None


def strings(value: object) -> Sequence[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for part in parts for each in strings(part)]


async def soon(holds: Callable[[], object]) -> None:
    """Let the loop turn until it holds; fails after 10 s."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (what is waited for happens in the product, which knows no event of ours)
            await asyncio.sleep(0.001)
