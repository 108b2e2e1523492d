"""A network of its own for the module, an emulator and a daemon in it, and both ways of handing the sockets over."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from tests.link_local.manager import SYSTEMD, Manager
from tests.link_local.network import own_network
from tests.process.harness import Emulator, Home, short_directory, stop, until
from vaultd.command import service
from vaultd.host.link_local import PLACES

ACTIVATOR = Path(__file__).with_name("activator.py")


@pytest.fixture(scope="module")
def _network() -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture(scope="module")
def shared_emulator(_network: None) -> Iterator[Emulator]:
    with Emulator.running(moto=True) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    shared_emulator.ctl("reset", {})
    return shared_emulator


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@pytest.fixture
def cold(directory: Path, emulator: Emulator) -> Iterator[Home]:
    made = Home.make(directory, emulator)
    yield made
    made.stop()


@pytest.fixture
def home(cold: Home, emulator: Emulator) -> Iterator[Home]:
    """A running daemon with franklin's key and a session of web-admin."""
    with cold.daemon():
        assert cold.add(emulator).status == 0
        assert cold.client("refresh", "web-admin", "--token-code", emulator.code()).status == 0
        yield cold


@dataclass
class Unit:
    """The socket of one dialect and what hands it over, started; both end with the block."""

    stop: Callable[[], None]
    restart: Callable[[], None]
    journal: Callable[[], str]


#: Starts `vaultd link-local DIALECT [PROFILE]` with its socket in a home, as a service manager would.
Starter = Callable[..., AbstractContextManager[Unit]]


@contextmanager
def _by_activator(home: Home, dialect: str, *profile: str) -> Iterator[Unit]:
    place = PLACES[dialect]
    command = [sys.executable, "-I", "-m", "vaultd", "link-local", dialect, *profile]
    log = home.directory / f"{dialect}.journal"
    running: list[subprocess.Popen[str]] = []

    def start() -> None:
        with log.open("a") as out:
            given = [sys.executable, str(ACTIVATOR), place.address, str(place.port), dialect, *command]
            running.append(subprocess.Popen(given, env=home.env, stderr=out, text=True, cwd="/"))

    def end() -> None:
        while running:
            process = running.pop()
            stop(process)
            process.wait()

    def restart() -> None:
        end()
        start()

    start()
    try:
        yield Unit(end, restart, log.read_text)
    finally:
        end()


def install(home: Home, profile: str, *more: str, root: Path) -> tuple[int, str]:
    """`vaultd service install --link-local` in this process, for a machine that is not one of a cloud."""
    (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    machine = service.Machine(environ=home.env, root=root)
    said = io.StringIO()
    with redirect_stdout(said):
        status = service.run("install", profile, ecs="--ecs" in more, machine=machine)
    return status, said.getvalue()


@contextmanager
def _by_systemd(home: Home, dialect: str, *profile: str) -> Iterator[Unit]:
    assert install(home, *(profile or ("web-admin",)), "--ecs", root=home.directory / "machine")[0] == 0
    units, unit = home.state / "units", PLACES[dialect].unit
    with short_directory() as place:
        journal = place / "journal"  # there is no journald here
        journal.touch()
        (units / f"{unit}.service.d").mkdir(exist_ok=True)
        (units / f"{unit}.service.d/journal.conf").write_text(f"[Service]\nStandardError=append:{journal}\n")
        with Manager.running(units, place / "run") as manager:

            def ctl(*words: str) -> None:
                done = manager.ctl(*words)
                assert done.status == 0, (done, manager.ctl("status", f"{unit}*"), journal.read_text())

            def end() -> None:
                ctl("stop", f"{unit}.service", f"{unit}.socket")

            ctl("restart", f"{unit}.socket", f"{unit}.service")
            yield Unit(end, lambda: ctl("restart", f"{unit}.service"), journal.read_text)


def _started_with(starter: Starter) -> Starter:
    @contextmanager
    def started(home: Home, dialect: str, *profile: str, waits: bool = True) -> Iterator[Unit]:
        with starter(home, dialect, *profile) as unit:
            if waits:
                until(lambda: served(home, dialect), f"{dialect} is handed over: {unit.journal()}")
            yield unit

    return started


def served(home: Home, dialect: str) -> bool:
    """The daemon has taken the listener and has not left it since."""
    log = (home.state / "vaultd.log").read_text()
    address = PLACES[dialect].address
    return log.rfind(f"take listener address={address} ") > log.rfind(f"leave listener address={address}")


@pytest.fixture(scope="session")
def no_systemd() -> str:
    """Why a manager does not run here, for the loud skip; the tests' own activator then has to do, in CI as well."""
    if not SYSTEMD.exists():
        return "systemd is not installed, the activator has to do: run `make system` as root"
    try:
        with short_directory() as place:
            (units := place / "units").mkdir()
            with Manager.running(units, place / "run"):
                return ""
    except (OSError, AssertionError) as exc:
        return f"systemd is there and does not run here, the activator has to do: {exc}"


@pytest.fixture(params=["activator", "systemd"])
def starts(request: pytest.FixtureRequest) -> Starter:
    """The tests' own activator always, and the units as they are installed wherever systemd runs."""
    if request.param == "activator":
        return _started_with(_by_activator)
    if why := request.getfixturevalue("no_systemd"):
        pytest.skip(why)
    return _started_with(_by_systemd)


@pytest.fixture
def activates() -> Starter:
    """Where the way does not matter."""
    return _started_with(_by_activator)


def curl(*words: str) -> tuple[str, str]:
    """(status, body) of one request without a proxy."""
    done = subprocess.run(
        ["curl", "-s", "--noproxy", "*", "-m", "5", "-w", "\n%{http_code}", *words],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return status, body


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops that the daemon runs on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
