"""Takes each control away and runs the tests that are named for it: each must pass before, and fail then.

Rule: only a failure of the test itself counts (or a hang, ended after SECONDS). A file that cannot be imported, a
fixture that fails, a program that no longer starts because a name is missing: that is a break too coarse to prove
anything, and is told as such.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from tests.promises import reaped
from tests.promises.copies import Copy, Misfit, copied
from tests.promises.promise import Promise
from tests.promises.reaped import OVERDUE

#: Of one run of one test.
SECONDS: Final = 180
#: A test that fails by one of these shows a broken program, not a missed promise.
_BROKEN: Final = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError")
#: Whoever brings up networks and users of the machine, one at a time.
_ALONE: Final = ("tests/adversary/", "tests/link_local/", "tests/service/")


T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What one test did: `word` is passed, failed, skipped, or what kept it from being a test at all."""

    word: str
    line: str = ""

    @property
    def told(self) -> str:
        return f"{self.word}: {self.line}" if self.line else self.word


@dataclass(frozen=True)
class Row:
    promise: Promise
    test: str
    intact: Outcome
    broken: Outcome

    @property
    def proven(self) -> bool:
        return self.intact.word == "passed" and self.broken.word == "failed"

    def told(self) -> str:
        mark = "ok  " if self.proven else "OPEN"
        return f"{mark} {self.promise.name} · {self.test} · intact: {self.intact.told} · broken: {self.broken.told}"


class Stopped(Exception):
    """The run was interrupted: what was under way shows nothing."""


@dataclass
class Run:
    """One run over some promises: the copies, the programs that it started, and what was found."""

    root: Path
    jobs: int
    said: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    _programs: set[subprocess.Popen[str]] = field(default_factory=set)
    _alone: threading.Lock = field(default_factory=threading.Lock)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def over(self, promises: Sequence[Promise]) -> list[Row]:
        """A row for each test of each promise; an interrupt ends what runs."""
        with tempfile.TemporaryDirectory(prefix="vp-", ignore_cleanup_errors=True) as directory:
            Path(directory).chmod(0o755)  # the other user of tests/adversary comes by; it is source code
            free: queue.Queue[Copy] = queue.Queue()
            for number in range(self.jobs):
                free.put(copied(self.root, Path(directory) / str(number)))
            intact: dict[str, Outcome] = {}
            files = _by_file([test for each in promises for test in each.tests])
            self._shared(free, files, lambda copy, tests: intact.update(self._tested(copy, tests)))
            for test, found in intact.items():
                if found.word != "passed":
                    self.said(f"OPEN {test} · intact: {found.told}")
            self.said(f"intact: {sum(each.word == 'passed' for each in intact.values())} of {len(intact)} tests pass")
            self._shared(free, promises, lambda copy, each: self._broken(copy, each, intact))
        return self.rows

    def _shared(self, free: queue.Queue[Copy], work: Sequence[T], act: Callable[[Copy, T], None]) -> None:
        def one(each: T) -> None:
            copy = free.get()
            try:
                act(copy, each)
            finally:
                free.put(copy)

        with ThreadPoolExecutor(self.jobs) as threads:
            try:
                for done in [threads.submit(one, each) for each in work]:
                    done.result()
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        with self._starting:
            self._stopped = True
            for each in self._programs:
                each.terminate()

    def _broken(self, copy: Copy, promise: Promise, intact: dict[str, Outcome]) -> None:
        for test in promise.tests:
            try:
                with copy.broken(promise.breaks):
                    found = self._tested(copy, (test,), "-x")[test]
            except Misfit as misfit:
                found = Outcome("misfit", str(misfit))
            row = Row(promise, test, intact[test], found)
            self.rows.append(row)
            self.said(row.told())

    def _tested(self, copy: Copy, tests: Sequence[str], *options: str) -> dict[str, Outcome]:
        """What each of the tests does in the copy as it stands now."""
        with self._turn(tests), tempfile.NamedTemporaryFile(suffix=".xml") as report:
            command = [
                copy.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", "--tb=short", "-m", "",
                f"--junitxml={report.name}", *options, *tests,
            ]  # fmt: skip
            limit = str(SECONDS * len(tests))
            status, said = self._ended([sys.executable, "-I", reaped.__file__, limit, *command], copy)
            cases = [] if status == OVERDUE else _cases(Path(report.name))
        return {test: outcome(test, status, cases, said) for test in tests}

    @contextmanager
    def _turn(self, tests: Sequence[str]) -> Iterator[None]:
        with self._alone if any(each.startswith(_ALONE) for each in tests) else nullcontext():
            yield

    def _ended(self, command: list[str], copy: Copy) -> tuple[int, str]:
        """The reaper is a file of our tree, the rest happens in the copy; what is missing on the machine fails (CI)."""
        with self._started(command, copy) as program:
            said = program.communicate()[0]
        with self._starting:
            self._programs.discard(program)
        if self._stopped:
            raise Stopped
        return program.returncode, said

    def _started(self, command: list[str], copy: Copy) -> subprocess.Popen[str]:
        with self._starting:
            if self._stopped:
                raise Stopped
            program = subprocess.Popen(
                command,
                cwd=copy.root,
                env={**os.environ, "CI": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self._programs.add(program)
        return program


def _by_file(tests: Sequence[str]) -> list[tuple[str, ...]]:
    """Each test once; those of a file together, since they share what is slow to set up."""
    files: dict[str, dict[str, None]] = {}
    for test in tests:
        files.setdefault(test.split("::", 1)[0], {})[test] = None
    return [tuple(each) for each in files.values()]


@dataclass(frozen=True)
class Case:
    """One line of pytest's report: `where` is module and class, `name` with its parameters."""

    where: str
    name: str
    #: passed, failure, error or skipped.
    kind: str
    message: str


def _cases(report: Path) -> list[Case]:
    text = report.read_text()
    return [_case(each) for each in ET.fromstring(text).iter("testcase")] if text else []


def _case(element: ET.Element) -> Case:
    where, name = element.get("classname", ""), element.get("name", "")
    for kind in ("failure", "error", "skipped"):
        if (found := element.find(kind)) is not None:
            return Case(where, name, kind, found.get("message", ""))
    return Case(where, name, "passed", "")


def outcome(test: str, status: int, cases: Sequence[Case], said: str) -> Outcome:
    """What the report says of one node id; a test with parameters fails when one of them does."""
    if status == OVERDUE:
        return Outcome("failed", f"timed out after {SECONDS} s")
    if status not in {0, 1}:
        return Outcome("not run", _last(said))
    mine = [each for each in cases if _is_of(each, test)]
    for kind, word in (("failure", "failed"), ("error", "error in a fixture"), ("skipped", "skipped")):
        for each in mine:
            if each.kind == kind:
                return _judged(word, each.message)
    return Outcome("passed") if mine else Outcome("not run", _last(said))


def _judged(word: str, message: str) -> Outcome:
    line = next(iter(message.splitlines()), "").strip()[:160]
    if word == "failed" and line.startswith(_BROKEN):
        return Outcome("broke the program", line)
    return Outcome(word, line)


def _is_of(case: Case, test: str) -> bool:
    path, *inner, name = test.split("::")
    where = ".".join([path.removesuffix(".py").replace("/", "."), *inner])
    return case.where == where and (case.name == name or case.name.startswith(f"{name}["))


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "pytest said nothing"
