"""The emulator on a socket: `StrictSts` in the test's own loop, `StrictStsThread` in a thread for sync tests."""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.strict_sts.calls import Call
from tests.strict_sts.clocks import TimeSource
from tests.strict_sts.control import Control
from tests.strict_sts.emulator import Emulator, Key
from tests.strict_sts.faults import Fault
from tests.strict_sts.front import Front
from tests.strict_sts.moto_plane import MotoPlane

HERE = Path(__file__).parent
WORLD = HERE / "world.yaml"
FRANKLIN = "arn:aws:iam::123456789012:user/franklin"
ROBOT = "arn:aws:iam::123456789012:user/robot"
SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
T = TypeVar("T")


def role(name: str) -> str:
    """The ARN of a role of the scenarios."""
    return f"arn:aws:iam::{'345678901234' if name == 'Audit' else '234567890123'}:role/{name}"


@dataclass(kw_only=True)
class Options:
    """What both forms take."""

    world: Path = WORLD
    clock: TimeSource | None = None
    moto: str | None = None
    with_moto: bool = False
    time_scale: float = 1.0
    tls: tuple[Path, Path] | None = None
    knobs: Mapping[str, object] = field(default_factory=dict)
    templates: Mapping[str, Path] = field(default_factory=dict)
    port: int = 0


class Desk:
    """What a test may ask of, and do to, a running emulator; the methods are told in README.md."""

    url: str

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def _done(self, action: Callable[[], T]) -> T:
        """Runs in the emulator's own thread; one state, one thread."""
        return action()

    def _release(self) -> None:
        """Lets go of hanging calls."""

    @property
    def moto_url(self) -> str | None:
        """The data plane's address, for another emulator to share; None without one."""
        return None

    @property
    def env(self) -> dict[str, str]:
        urls = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_IAM"), self.url)
        return {**urls, "VAULTD_FEDERATION_URL": f"{self.url}/federation"}

    @property
    def clock(self) -> Any:
        """The logical clock: a LogicalClock, or whatever was injected."""
        return self._emulator.state.clock

    def totp(self, serial: str = SERIAL, *, step: int = 0) -> str:
        return self._emulator.totp(serial, step)

    def key(self, user: str = "franklin") -> Key:
        return self._emulator.key(user)

    def seed(self, serial: str = SERIAL) -> str:
        return self._emulator.state.world.devices[serial].seed

    def calls(self, op: str | None = None, *, since: int = 0) -> list[Call]:
        return self._done(lambda: self._emulator.log.calls(op, since=since))

    def counts(self, *, since: int = 0) -> Counter[str]:
        return self._done(lambda: self._emulator.log.counts(since=since))

    def audit(self) -> list[dict[str, Any]]:
        return self._done(lambda: list(self._emulator.log.records))

    def fault(self, kind: str, **how: Any) -> None:
        """`op akid account region nth when times arg`, see faults.Fault."""
        fault = Fault(kind, **how)
        self._done(lambda: self._emulator.faults.plant(fault))

    def mutate(self, **what: Mapping[str, Any]) -> None:
        self._done(lambda: self._emulator.mutate(what))

    def revoke(
        self, *, akid: str | None = None, user: str | None = None, kind: str | None = None, as_: str = "expired"
    ) -> int:
        return self._done(lambda: self._emulator.state.sessions.revoke(akid=akid, user=user, kind=kind, as_=as_))

    def set_knobs(self, **knobs: object) -> None:
        self.mutate(knobs=knobs)

    def wire_skew(self, seconds: float) -> None:
        self._emulator.state.wire.skew = timedelta(seconds=seconds)

    def load_world(
        self,
        path: Path = WORLD,
        *,
        templates: Mapping[str, Path] | None = None,
        knobs: Mapping[str, object] | None = None,
    ) -> None:
        self._done(lambda: self._emulator.load_world(path, templates=templates, knobs=knobs))

    def reset(self) -> None:
        self._done(self._release)
        self._done(self._emulator.reset)


class StrictSts(Desk):
    """An emulator that serves inside `async with`."""

    def __init__(self, **options: Any) -> None:
        self._options = Options(**options)
        o = self._options
        super().__init__(
            Emulator(world=o.world, clock=o.clock, time_scale=o.time_scale, knobs=o.knobs, templates=o.templates)
        )
        self._front: Front | None = None
        self._runner: web.AppRunner | None = None
        self._moto: MotoPlane | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start(self._options)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _start(self, options: Options) -> None:
        if options.moto or options.with_moto:
            self._moto = MotoPlane(options.moto) if options.moto else await MotoPlane.start()
            await self._moto.seed(self._emulator.state.world.applications)
        self._front = Front(self._emulator, self._moto)
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.add_routes(Control(self._emulator, self._front.release).routes())
        app.router.add_route("*", "/{any:.*}", self._front.serve)
        # handler_cancellation: a hanging call ends when its client leaves; fields: session tokens may have 8 KB
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.1,
            max_field_size=65536,
            max_line_size=65536,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", options.port, ssl_context=_tls(options.tls)).start()
        scheme, host = ("https", "localhost") if options.tls else ("http", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self._runner.addresses[0][1]}"

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        if self._runner:
            await _closed(self._runner)
        if self._moto:
            await self._moto.stop()

    @property
    def moto_url(self) -> str | None:
        return self._moto.url if self._moto else None

    def _release(self) -> None:
        if self._front:
            self._front.release()


class StrictStsThread(Desk):
    """An emulator that serves inside `with`, from a thread of its own."""

    def __init__(self, **options: Any) -> None:
        self._inner = StrictSts(**options)
        super().__init__(self._inner._emulator)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="strict-sts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._inner.__aenter__(), self._loop).result(90)
        except BaseException:
            self._end()
            raise
        self.url = self._inner.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._inner.__aexit__(kind, exc, trace), self._loop).result(30)
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _done(self, action: Callable[[], T]) -> T:
        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    @property
    def moto_url(self) -> str | None:
        return self._inner.moto_url

    def _release(self) -> None:
        self._inner._release()


async def _closed(runner: web.AppRunner) -> None:
    """A kept TLS connection waits for a goodbye that never comes: what outlives the clean-up is aborted."""
    server = runner.server
    transports = [each.transport for each in server.connections if each.transport] if server else []
    await runner.cleanup()
    for transport in transports:
        transport.abort()
    for _ in range(3):  # connection_lost runs in the loop's next turns
        await asyncio.sleep(0)


def _tls(files: tuple[Path, Path] | None) -> ssl.SSLContext | None:
    if files is None:
        return None
    terms = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    terms.load_cert_chain(*files)
    return terms
