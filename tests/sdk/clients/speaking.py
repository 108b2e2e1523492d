"""The protocol of ../README.md for the programs that are written in Python: lines in, one JSON line each out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Said = dict[str, Any]


class Failed(Exception):
    """A tool ended badly; its text is what it printed."""


def told(exc: BaseException) -> str:
    """The last lines of the traceback that a script's user would read, causes last to first as Python prints them."""
    lines: list[str] = []
    seen: BaseException | None = exc
    while seen is not None:
        lines.insert(0, "".join(traceback.format_exception_only(seen)).strip())
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(lines)


def answer(act: Callable[[], Said]) -> Said:
    """What `act` says, or how it failed."""
    began = time.monotonic()
    try:
        said = {"ok": True, **act()}
    except Failed as exc:
        said = {"ok": False, "text": str(exc)}
    except Exception as exc:  # noqa: BLE001 - whatever the SDK raises is what its user sees
        said = {"ok": False, "text": told(exc)}
    return {**said, "seconds": round(time.monotonic() - began, 3)}


def speak(client: str, version: str, *, call: Callable[[], Said], fresh: Callable[[], Said]) -> None:
    """Greet, then answer each line until `quit` or the end of stdin."""
    _say({"client": client, "version": version})
    acts = {"call": call, "fresh": fresh}
    for line in sys.stdin:
        word = line.strip()
        if word == "quit":
            return
        _say(answer(acts[word]))


def _say(what: Said) -> None:
    sys.__stdout__.write(json.dumps(what) + "\n")
    sys.__stdout__.flush()


def aws_cli(*command: str, endpoint: str) -> Said:
    """One `sts get-caller-identity` of an AWS CLI."""
    asked = (*command, "sts", "get-caller-identity", "--endpoint-url", endpoint, "--output", "json")
    done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip() or f"exit status {done.returncode}")
    sys.stderr.write(done.stderr)
    return {"arn": json.loads(done.stdout)["Arn"], "key": None, "expiration": None}
