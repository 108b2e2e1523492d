"""The matrix at the end of a run that played it; the programs' cache, before a scrubbed HOME hides it."""

from __future__ import annotations

import os
import signal

import pytest

from tests.sdk.build import cache
from tests.sdk.table import TABLE

#: Programs are looked up in tests, too, whose HOME is an empty one (tests/conftest.py).
os.environ.setdefault("SDK_CACHE", str(cache()))
#: A shell makes what it puts into the background deaf to Ctrl-C, down to the terminals here that are to cancel.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of the issue, whatever became of the tests."""
    if table := config.stash.get(TABLE, None):
        terminalreporter.section("the SDK matrix")
        terminalreporter.write_line(table)
