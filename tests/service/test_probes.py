"""Each directive that we claim is enforced here: a directive that does nothing is a claim that is not true."""

from __future__ import annotations

import os
import pwd
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.link_local.manager import Manager, groups
from tests.process.harness import ROOT
from tests.service.conftest import USER, needs_systemd
from tests.service.probes import CHECKOUT, PLAIN, STRICT, Bench

pytestmark = [pytest.mark.process, needs_systemd]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Below /run: PrivateTmp hides /tmp and /var/tmp."""
    uid, gid = pwd.getpwnam(USER)[2:4]
    before = groups()
    with tempfile.TemporaryDirectory(prefix="vaultd-", dir="/run") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for each in ("units", "place"):
            (directory / each).mkdir()
            os.chown(directory / each, uid, gid)
        with Manager.running(directory / "units", directory / "run", user=USER) as manager:
            yield Bench(manager, directory / "units", directory / "place")
    assert groups() == before


@pytest.mark.parametrize("directives", PLAIN)
def test_a_directive_is_enforced(bench: Bench, directives: str) -> None:
    """security.md §2.3: with it the probe sees it, and without it the same probe does not."""
    assert bench.run(directives, PLAIN[directives]) == 0
    assert bench.run("", PLAIN[directives]) == 1


@pytest.mark.parametrize("directives", STRICT)
def test_a_directive_of_the_strict_drop_in_is_enforced(bench: Bench, directives: str, tmp_path: Path) -> None:
    """In a user namespace of the unit's own; without any of it the same probe sees nothing."""
    tmp_path.chmod(0o755)
    script = STRICT[directives].replace(
        "@TMP@", str(next(each for each in tmp_path.parents if each.parent == Path("/tmp")))
    )
    filled = directives.replace("@HERE@", str(bench.place))

    assert bench.run(f"PrivateUsers=yes\n{filled}\n{CHECKOUT}", script) == 0
    assert bench.run("", script) == 1


def test_nothing_is_claimed_without_a_probe() -> None:
    """Every directive of the drop-in, and each line of the unit's sandbox, is one that was probed."""
    strict = (ROOT / "systemd/vaultd-strict.conf").read_text()
    service = (ROOT / "systemd/vaultd.service").read_text()
    lines = service[service.index("UMask=") : service.index("[Install]")].splitlines()
    probed = {line for each in PLAIN for line in each.splitlines()}

    claimed = {line for line in lines if line and not line.startswith("#")}
    assert {each for each in claimed - probed if not each.startswith("RestrictAddressFamilies=")} == set()
    names = {line.split("=")[0] for each in STRICT for line in each.splitlines()} | {"PrivateUsers"}
    assert set(re.findall(r"^([A-Z]\w+)=", strict, re.MULTILINE)) == names
