"""The programs of tests/sdk/clients as the play sees them: started, asked line by line, ended.

Rule: a program is started in a session of its own and ended by its pid however a test ends; whatever it does (answers,
dies, says nothing) comes back as an `Answer`, never as an exception, because a dying SDK is a finding.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.sdk.build import outdir

Dialect = Literal["ecs", "imds"]
DIALECTS: tuple[Dialect, ...] = ("ecs", "imds")
#: A hold may take 120 s, and object_store goes on trying for 180 s (sdk-facts §3).
DEADLINE = 230.0
#: How many programs work at the same time: the machine that runs this has two processors.
BATCH = 6

#: Every client of the matrix, in the order of its table.
CLIENTS: tuple[str, ...] = (
    "boto3",
    "aiobotocore",
    "cli-v1",
    "cli-v2",
    "js-v3",
    "js-v2",
    "go-v2",
    "go-v1",
    "java-v2",
    "rust",
    "awscrt",
    "pyarrow",
    "obstore",
    "curl",
)
#: Those that read `credential_process` in ~/.aws/config, and with them the library of Terraform, which is of the Go
#: SDK's chain and in no other respect another client.
CARRIED: tuple[str, ...] = (*(each for each in CLIENTS if each not in {"obstore", "curl"}), "go-base")


@dataclass(frozen=True)
class Answer:
    """What one `call` or `fresh` came to.

    `text` is what the SDK told its user, `stderr` what it printed meanwhile, `seconds` the program's own measure (ours
    where it could not answer). `ended`: the program is gone (its exit status, negative for a signal), or None.
    """

    ok: bool
    arn: str | None = None
    key: str | None = None
    expiration: str | None = None
    text: str = ""
    seconds: float = 0.0
    stderr: str = ""
    ended: int | None = None

    @property
    def shown(self) -> str:
        """Everything that the user could have read, in one line, JSON's escapes undone."""
        return " ".join(f"{self.text} {self.stderr}".replace('\\"', '"').split())


class Program:
    """One running program. Not for two threads at once."""

    def __init__(self, name: str, process: subprocess.Popen[str], stderr: Path) -> None:
        self.name = name
        self.version = ""
        self._process = process
        self._stderr = stderr
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"reader of {name}", daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def running(cls, name: str, environment: Mapping[str, str], *, where: Path | None = None) -> Iterator[Program]:
        """OUTDIR/run with exactly that environment; `where` is another OUTDIR than the built one's."""
        with tempfile.TemporaryDirectory() as room, (Path(room) / "stderr").open("ab") as stderr:
            cwd = Path(room) / "cwd"
            cwd.mkdir()
            process = subprocess.Popen(
                (str((where or outdir(name)) / "run"),),
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            program = cls(name, process, Path(stderr.name))
            try:
                program._greeted()
                yield program
            finally:
                program.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, *, deadline: float = DEADLINE) -> Answer:
        """One signed call of the client that is kept for the program's life."""
        return self.ask("call", deadline=deadline)

    def fresh(self, *, deadline: float = DEADLINE) -> Answer:
        """The same with a new client and a new credential chain."""
        return self.ask("fresh", deadline=deadline)

    def ask(self, line: str, *, deadline: float = DEADLINE) -> Answer:
        began, heard = time.monotonic(), self._stderr.stat().st_size
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            said = self._lines.get(timeout=deadline)
        except BrokenPipeError:
            said = None
        except queue.Empty:
            self.end(grace=0)
            return Answer(ok=False, text=f"no answer in {deadline} s", seconds=deadline, stderr=self._since(heard))
        took = time.monotonic() - began
        if said is None:
            ended = self._process.wait(10)
            return Answer(ok=False, seconds=took, stderr=self._since(heard), ended=ended)
        return self._answer(said, took, self._since(heard))

    def end(self, *, grace: float = 5.0) -> int:
        """`quit`, then SIGKILL to it and what it started; gives the exit status."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write("quit\n")
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own: nobody else is in that group
        status = self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def _greeted(self) -> None:
        try:
            first = self._lines.get(timeout=60)
        except queue.Empty:
            first = None
        if first is None:
            raise AssertionError(f"{self.name} did not start: {self._since(0)[-2000:]}")
        self.version = str(json.loads(first)["version"])

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed under us at the end
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _since(self, place: int) -> str:
        return self._stderr.read_bytes()[place:].decode(errors="replace")

    @staticmethod
    def _answer(line: str, took: float, stderr: str) -> Answer:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            return Answer(ok=False, text=f"not JSON on stdout: {line!r}", seconds=took, stderr=stderr)
        return Answer(
            ok=bool(said["ok"]),
            arn=said.get("arn"),
            key=said.get("key"),
            expiration=said.get("expiration"),
            text=str(said.get("text") or ""),
            seconds=float(said["seconds"]),
            stderr=stderr,
        )


def asked(programs: Sequence[Program], line: str, *, at_once: int = BATCH, deadline: float = DEADLINE) -> list[Answer]:
    """One line to each, `at_once` of them working at a time; the answers in the programs' order."""
    with ThreadPoolExecutor(max_workers=max(1, at_once)) as pool:
        return list(pool.map(lambda each: each.ask(line, deadline=deadline), programs))
