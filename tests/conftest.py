"""Fixtures for every test: a scrubbed environment, a fake clock, and loud skips that fail in CI."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.fakes import FakeClock
from tests.leftovers import living_below

_SCRUBBED = (
    "AWS_",
    "VAULTD_",
    "BOTO",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "PYTHON_KEYRING",
)


def pytest_configure() -> None:
    """What started the tests may ignore signals (`nohup`, a background job); what they start must not inherit it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set up first, so the last to look: a daemon that a test forgot fails the run and says whose it was."""
    yield
    left = living_below(tmp_path_factory.getbasetemp()) if sys.platform == "linux" else []
    assert not left, "tests left these running:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def _scrub_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the machine's AWS files, proxies or vaultd; HOME is empty."""
    for name in list(os.environ):
        if name.startswith(_SCRUBBED):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs("tool")`: what is missing is a loud skip, and in CI a failure."""
    for mark in item.iter_markers("needs"):
        for need in mark.args:
            said = _missing(need)
            if said and os.environ.get("CI"):
                pytest.fail(said, pytrace=False)
            if said:
                pytest.skip(said)


def _missing(need: str) -> str | None:
    """Why the machine does not do: `root`, `linux`, `device` (a network device beside lo), or a program's name."""
    if need == "root":
        return None if os.geteuid() == 0 else "a second uid needs root: run the tests as root"
    if need == "linux":
        return None if sys.platform == "linux" else "this is about Linux: run it there"
    if need == "device":
        others = [name for _, name in socket.if_nameindex() if name != "lo"]
        return None if others else "there is no network device beside lo: type `ip link add dummy0 type dummy`"
    return None if shutil.which(need) else f"{need} is not installed: run `make system` as root"
