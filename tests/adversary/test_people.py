"""The suite's own ground: who acts is who he is said to be, and what is laid open is that alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.adversary.cases import CASES
from tests.adversary.people import OTHER, OWNER, as_user, reachable

pytestmark = [pytest.mark.adversary, pytest.mark.needs("linux", "root", "unshare")]


@pytest.mark.parametrize("uid", [OWNER, OTHER])
def test_a_child_has_every_id_of_its_user_and_no_capability(uid: int) -> None:
    """Real, effective and saved; no group of root's; nothing effective, permitted or ambient."""

    def look() -> tuple[tuple[int, ...], tuple[int, ...], list[int], list[str]]:
        lines = Path("/proc/self/status").read_text().splitlines()
        capabilities = [line.split()[1] for line in lines if line.startswith(("CapEff", "CapPrm", "CapAmb"))]
        return os.getresuid(), os.getresgid(), os.getgroups(), capabilities

    assert as_user(uid, look) == ((uid,) * 3, (uid,) * 3, [], ["0" * 16] * 3)
    assert as_user(0, look)[3] != ["0" * 16] * 3  # positive control


def test_what_a_child_raises_fails_here() -> None:
    """A probe that is broken is no denial."""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        as_user(OTHER, lambda: 1 // 0)


def test_what_is_laid_open_is_reached_and_what_lies_beside_it_is_not(tmp_path: Path) -> None:
    """Two directories below a closed one, as a checkout and its Python below /root; afterwards all is as before."""
    closed = Path(os.path.realpath(tmp_path)) / "closed"
    for name in ("one", "two/deep", "secret"):
        (closed / name).mkdir(parents=True)
        (closed / name / "file").write_text(name)
    closed.chmod(0o700)

    def reads(name: str) -> bool:
        try:
            return (closed / name / "file").read_text() == name
        except OSError:
            return False

    def all_of(uid: int) -> list[bool]:
        return [as_user(uid, lambda name=name: reads(name)) for name in ("one", "two/deep", "secret")]  # type: ignore[misc]

    assert all_of(OTHER) == [False] * 3
    with reachable(closed / "one", closed / "two/deep"):
        assert all_of(OTHER) == [True, True, False]
    assert all_of(OTHER) == [False] * 3
    assert all_of(0) == [True] * 3


def test_the_table_names_tests_that_exist(request: pytest.FixtureRequest) -> None:
    """Each row's test is a node of this suite: a document that names it names something that runs."""
    rows = [each.row() for each in CASES]
    assert all(row["promise"] and row["control"] for row in rows)
    path, _, _ = str(rows[0]["test"]).partition("::")
    assert (request.config.rootpath / path).is_file()
    assert {str(row["test"]).partition("[")[2] for row in rows} == {f"{each.name}]" for each in CASES}
