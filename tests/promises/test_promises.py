"""The table of promises is whole and fits the tree; that each test notices its break is shown by `make promises`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.promises import reaped
from tests.promises.copies import Copy, Misfit
from tests.promises.promise import Break, Promise
from tests.promises.promises import BEGIN, END, PROMISES, ROOT, SECURITY, THREADS, chosen, written
from tests.promises.run import SECONDS, Case, Run, outcome

_ONE: Final = Promise("T1-one", "It is so.", "a.py: a", ("tests/test_a.py::test_a",), (Break("a.py", "yes", "no"),))
_TEST: Final = "tests/web/test_a.py::test_b"


# ---- the table ----


def test_names_are_unique_and_every_threat_has_rows() -> None:
    """T1 to T13 of security.md §1, and what issue 5 builds beside them; a name stands once."""
    assert [name for name, times in Counter(each.name for each in PROMISES).items() if times > 1] == []
    assert {each.threat for each in PROMISES} == set(THREADS)


def test_breaks_fit() -> None:
    """`old` stands exactly once in its file, so that the break is the one that was meant; it changes something."""
    edits = [(each.name, edit) for each in PROMISES for edit in each.breaks]
    assert [name for name, edit in edits if edit.path.startswith("tests/") or edit.new == edit.old] == []
    assert [(name, edit.path, edit.old) for name, edit in edits if _text(edit.path).count(edit.old) != 1] == []
    assert [each.name for each in PROMISES if not each.breaks] == []


def test_broken_programs_can_be_read() -> None:
    """A break takes a control away, not the grammar: a file that Python cannot read fails every test there is."""
    for promise in PROMISES:
        for path in {each.path for each in promise.breaks if each.path.endswith(".py")}:
            text = _text(path)
            for each in promise.breaks:
                text = text.replace(each.old, each.new) if each.path == path else text
            compile(text, f"{path} without {promise.name}", "exec", ast.PyCF_ONLY_AST)


def test_named_tests_exist() -> None:
    """File, class and function, and the case of the adversary suite where one is named."""
    assert [each.name for each in PROMISES if not each.tests] == []
    assert [(each.name, test) for each in PROMISES for test in each.tests if not _exists(test)] == []


def test_security_md_prints_the_table() -> None:
    """Byte for byte between its marks: `python -m tests.promises --write` puts it there."""
    document = SECURITY.read_text()
    assert written(document) == document
    assert document.count(BEGIN) == document.count(END) == 1


def test_a_threat_or_a_name_chooses() -> None:
    """Nothing chooses all; what is no name is an error, not an empty run that proves nothing."""
    first = PROMISES[0]
    assert chosen(()) == PROMISES
    assert chosen((first.name,)) == (first,)
    assert {each.threat for each in chosen(("T4",))} == {"T4"}
    with pytest.raises(KeyError):
        chosen(("T99",))


@cache
def _text(path: str) -> str:
    return (ROOT / path).read_text()


def _exists(test: str) -> bool:
    path, *inner = test.split("::")
    name, bracket, case = inner[-1].partition("[")
    if bracket and path == "tests/adversary/test_cases.py" and case.removesuffix("]") not in _cases():
        return False
    return (ROOT / path).is_file() and (*inner[:-1], name) in _defined(path)


@cache
def _defined(path: str) -> frozenset[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for node in ast.parse(_text(path)).body:
        if isinstance(node, ast.ClassDef):
            found |= {(node.name, each.name) for each in node.body if isinstance(each, _FUNCTIONS)}
        elif isinstance(node, _FUNCTIONS):
            found.add((node.name,))
    return frozenset(found)


_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _cases() -> frozenset[str]:
    from tests.adversary.cases import CASES  # its ground is Linux's

    return frozenset(each.name for each in CASES)


# ---- the runner ----


def _case(kind: str, message: str = "", *, name: str = "test_b", where: str = "tests.web.test_a") -> Case:
    return Case(where, name, kind, message)


@pytest.mark.parametrize(
    ("status", "cases", "word"),
    [
        (0, [_case("passed")], "passed"),
        (1, [_case("failure", "AssertionError: assert 1 == 2\n  and more")], "failed"),
        (1, [_case("passed", name="test_b[1]"), _case("failure", "assert 0", name="test_b[2]")], "failed"),
        (reaped.OVERDUE, [], "failed"),
        (1, [_case("failure", "NameError: name 'x' is not defined")], "broke the program"),
        (1, [_case("failure", "ModuleNotFoundError: No module named 'x'")], "broke the program"),
        (1, [_case("error", 'failed on setup with "OSError"')], "error in a fixture"),
        (0, [_case("skipped", "no root")], "skipped"),
        (2, [_case("error", "collection failure")], "not run"),
        (4, [], "not run"),
        (0, [], "not run"),
        (1, [_case("failure", "assert 0", name="test_bc")], "not run"),
        (1, [_case("failure", "assert 0", where="tests.web.test_c")], "not run"),
    ],
)
def test_only_a_failure_of_the_test_itself_counts(status: int, cases: list[Case], word: str) -> None:
    """A hang is one; an import, a fixture, a skip, another test's failure or no test at all is none."""
    found = outcome(_TEST, status, cases, "said")
    assert found.word == word
    assert found.line == {"passed": "", "not run": "said"}.get(word, found.line)
    assert "\n" not in found.line
    if status == reaped.OVERDUE:
        assert found.line == f"timed out after {SECONDS} s"


def test_a_break_is_taken_back(tmp_path: Path) -> None:
    """What was committed is there again, also after an error; stale compiled files do not outlive either edit."""
    copy = _tree(tmp_path)
    compiled = tmp_path / "__pycache__/a.cpython-311.pyc"

    def act() -> None:
        with copy.broken(_ONE.breaks):
            assert (tmp_path / "a.py").read_text() == "no\n"
            assert not compiled.exists()
            compiled.write_text("of the broken one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        act()
    assert (tmp_path / "a.py").read_text() == "yes\n"
    assert not compiled.exists()


@pytest.mark.parametrize("old", ["maybe", ""])
def test_a_break_that_does_not_fit_is_told(tmp_path: Path, old: str) -> None:
    """Not there, or there more than once: nothing is broken, and so nothing proven."""
    with pytest.raises(Misfit), _tree(tmp_path).broken((Break("a.py", old, "no"),)):
        pass


_TESTS: Final = """
import a
def test_sees_it(): assert a.SAID == "yes"
def test_sees_nothing(): assert a.SAID
def test_needs_more(): from a import More
"""


def test_a_survivor_is_found(tmp_path: Path) -> None:
    """The whole way of one promise: of two tests that pass, one notices; and one that never passed proves nothing."""
    copy = _tree(tmp_path, 'SAID = "yes"\n')
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "test_a.py").write_text(_TESTS)
    names = ("test_a.py::test_sees_it", "test_a.py::test_sees_nothing", "test_a.py::test_needs_more")
    said: list[str] = []
    run = Run(tmp_path, 1, said.append)
    run._broken(copy, replace(_ONE, tests=names), run._tested(copy, names))

    assert [each.proven for each in run.rows] == [True, False, False]
    assert [(each.intact.word, each.broken.word) for each in run.rows] == [
        ("passed", "failed"), ("passed", "passed"), ("broke the program", "broke the program"),
    ]  # fmt: skip
    assert said[0].startswith("ok   T1-one · test_a.py::test_sees_it · intact: passed · broken: failed: AssertionError")
    assert said[1] == "OPEN T1-one · test_a.py::test_sees_nothing · intact: passed · broken: passed"


def _tree(directory: Path, text: str = "yes\n") -> Copy:
    (directory / "a.py").write_text(text)
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__/a.cpython-311.pyc").write_text("of the whole one")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    for words in (["init", "-q"], ["add", "a.py"], [*who, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", "-C", str(directory), *words], check=True, capture_output=True)
    return Copy(directory)


#: A daemon of a test's: in a session of its own, its parent gone, and deaf to every polite word.
_DAEMON: Final = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
os.close(1)
time.sleep(600)
"""


@pytest.mark.needs("linux")
@pytest.mark.parametrize(("after", "seconds", "status"), [("sys.exit(3)", "30", 3), ("time.sleep(600)", "3", 124)])
def test_nothing_is_left_behind(after: str, seconds: str, status: int) -> None:
    """Whether the command ends or is over its time, what it started has ended with it."""
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {_DAEMON!r}]); {after}"
    command = [sys.executable, "-I", reaped.__file__, seconds, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    if done.stdout:
        with pytest.raises(ProcessLookupError):
            os.kill(int(done.stdout), 0)
    assert done.stdout or status == reaped.OVERDUE
