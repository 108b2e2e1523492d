"""Daemons that serve at once: one process imports everything, and each daemon is a fork of it.

Rule: a line on stdin is a start; the answer is one line `{"pid", "told"}` once it serves, or could not. A daemon has a
session of its own and /dev/null for its streams, as `vaultd start` gives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

import boto3  # noqa: F401 (0.4 s, at each daemon's first call)

from vaultd.lifecycle import foreground
from vaultd.web import app, control  # noqa: F401 (0.2 s)


def main() -> None:
    for _ in sys.stdin:
        _reap()
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _be_the_daemon(writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.readline()
        print(json.dumps({"pid": pid, "told": json.loads(told) if told else {}}), flush=True)


def _be_the_daemon(ready: int) -> None:
    outcome = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for each in range(3):
            os.dup2(null, each)
        outcome = foreground.main(port=None, config=None, debug=False, accept_rollback=False, ready_fd=ready)
    finally:
        os._exit(outcome)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
