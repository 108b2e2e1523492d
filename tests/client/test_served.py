"""Which addresses `doctor` takes for vaultd's: those that the daemon says it serves (issue 4, Build 7)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import GRANT_ROW, STATUS, TOKEN, Stub
from vault_client import link
from vault_client.served import Served, place_of

METADATA, CONTAINER = "169.254.169.254", "169.254.170.2"
RELATIVE = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
DOOR = {**GRANT_ROW, "id": "g7", "kind": "lease", "imds": True, "door": {"address": METADATA, "port": 80}}


def says(stub: Stub, *grants: dict[str, Any], linked: dict[str, str | None] | None = None) -> None:
    """What the daemon says that it serves; `linked` is address → grant."""
    held = [{"address": address, "port": 80, "grant": grant} for address, grant in (linked or {}).items()]
    stub.answers["GET", "/v1/grants"] = (200, {"grants": list(grants)})
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": stub.port, "link_local": held})


def door_at(port: int, **changes: Any) -> dict[str, Any]:
    return {**GRANT_ROW, "imds": True, "door": {"address": "127.0.0.1", "port": port}, **changes}


def asked(run: Run, environ: dict[str, str]) -> tuple[list[dict[str, Any]], set[str]]:
    """The rows that are not well, and the families that vaultd serves."""
    found = json.loads(run("doctor", "--sdk", "--json", **environ).out)
    return [each for each in found["checks"] if not each["ok"]], {
        each["family"] for each in found["sdk"] if each["vaultd"]
    }


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "SHELL": "/bin/bash"}


@pytest.fixture
def metadata(stub: Stub, home: dict[str, str]) -> dict[str, str]:
    return {**home, "VAULTD_SHELL": "1", **stub.imds_grant()["set"]}


@pytest.fixture
def relative(stub: Stub, home: dict[str, str]) -> dict[str, str]:
    """A container's: the path and a token of the grant g1, whose file is in the run directory; no VAULTD_GRANT."""
    file = stub.run / "grants" / "g1.token"
    file.parent.mkdir(0o700)
    file.write_text(TOKEN)
    file.chmod(0o600)
    return {
        **home,
        RELATIVE: "/v1/credentials/web-admin",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


# ---- 169.254.170.2 ----


def test_the_container_address_that_vaultd_serves(run: Run, stub: Stub, relative: dict[str, str]) -> None:
    """Nothing to mend, above all not the variable that makes it work; whose it is, is told."""
    says(stub, GRANT_ROW, linked={CONTAINER: None})
    wrong, served = asked(run, relative)

    assert wrong == []
    assert served > {"botocore", "Ruby", "Go v1", "Java v2"}
    assert (
        f"ok   endpoint         web-admin by {CONTAINER}, which vaultd serves; the grant g1 lives"
        in run("doctor", **relative).out
    )


@pytest.mark.parametrize(
    ("grants", "linked", "change", "said", "remedy"),
    [
        ([GRANT_ROW], {}, {}, "which does not serve it now", "see `vaultd service status --link-local`, or type unset"),
        ([GRANT_ROW], {}, {RELATIVE: "/v2/x"}, "and not vaultd, which does not serve it now", f"type unset {RELATIVE}"),
        ([GRANT_ROW], {METADATA: "g7"}, {}, "which does not serve it now", "or type unset"),
        ([GRANT_ROW], {CONTAINER: None}, {RELATIVE: "/v2/x"}, "is no path of vaultd", "type unset"),
        ([], {CONTAINER: None}, {}, "not the token of a grant that lives", "vault-client use PROFILE"),
        ([GRANT_ROW], {CONTAINER: None}, {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "x"}, "not the token of a", "use"),
        ([GRANT_ROW], {CONTAINER: None}, {"AWS_CONTAINER_AUTHORIZATION_TOKEN": ""}, "not the token of a", "use"),
        ([GRANT_ROW], {CONTAINER: None}, {"VAULTD_GRANT": "g2"}, "not the token of a grant", "use"),
    ],
)
def test_the_container_address_that_serves_nothing(
    run: Run,
    stub: Stub,
    relative: dict[str, str],
    grants: list[dict[str, Any]],
    linked: dict[str, str | None],
    change: dict[str, str],
    said: str,
    remedy: str,
) -> None:
    """One thing changed in a shell that is well: one row, and nobody is said to come to vaultd."""
    says(stub, *grants, linked=linked)
    (wrong, *more), served = asked(run, {**relative, **change})

    assert {each["name"] for each in more} <= {"tokens"}, "but for the file of a grant that is not there"
    assert said in wrong["message"]
    assert remedy in wrong["remedy"]
    assert served == set()


def test_both_container_addresses(run: Run, stub: Stub, relative: dict[str, str]) -> None:
    """Well together when they are of one profile."""
    says(stub, GRANT_ROW, linked={CONTAINER: None})
    file = str(stub.run / "grants/g1.token")
    Path(file).chmod(0o600)
    both = {**relative, **stub.grant()["set"], "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": file, "VAULTD_SHELL": "1"}
    assert asked(run, both)[0] == []

    (wrong,), _ = asked(run, {**both, RELATIVE: "/v1/credentials/audit"})
    assert "are of two profiles" in wrong["message"]


# ---- 169.254.169.254 ----


def test_the_metadata_address_without_a_variable(run: Run, stub: Stub, home: dict[str, str]) -> None:
    """Every SDK finds vaultd there; one that has it in a variable, too."""
    says(stub, DOOR, linked={METADATA: "g7"})
    wrong, served = asked(run, home)
    assert (wrong, len(served)) == ([], 15)
    assert f"SDKs find web-admin at {METADATA}, which vaultd serves" in run("doctor", **home).out

    wrong, served = asked(run, {**home, "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{METADATA}/"})
    assert (wrong, len(served)) == ([], 15)


@pytest.mark.parametrize("grants", [[DOOR], []])
def test_the_metadata_address_that_is_not_held(
    run: Run, stub: Stub, home: dict[str, str], grants: list[dict[str, Any]]
) -> None:
    """A grant whose unit is stopped, or a cloud's own address: not ours."""
    says(stub, *grants)
    assert asked(run, home)[1] == set()
    says(stub, linked={METADATA: "g7"})  # revoked, and the unit was not told yet
    assert asked(run, home)[1] == set()


# ---- a port of a grant's own ----


def test_a_port_that_was_lost(run: Run, stub: Stub, metadata: dict[str, str]) -> None:
    """Another program of this user's listens where a revoked grant was: one row, and nobody comes to vaultd there.
    Control: with the grant everybody does but minio.
    """
    says(stub, door_at(stub.port))
    assert (asked(run, metadata)[0], len(asked(run, metadata)[1])) == ([], 14)

    says(stub)
    (wrong,), served = asked(run, metadata)
    assert (wrong["name"], served) == ("grant", set())
    assert "use web-admin --imds" in wrong["remedy"]
    assert "listened on by you" not in run("doctor", **metadata).out


def test_a_port_that_another_grant_has_now(run: Run, stub: Stub, metadata: dict[str, str]) -> None:
    """It is vaultd's, and it is not this shell's."""
    says(stub, door_at(stub.port, id="g9"))
    assert asked(run, metadata)[1] == set()


def test_a_container_port_that_is_not_the_daemons(run: Run, stub: Stub, relative: dict[str, str]) -> None:
    """The grant lives and a program of the user's listens, but vaultd serves elsewhere. Control: with its own port."""
    file = str(stub.run / "grants/g1.token")
    environ = {**relative, **stub.grant()["set"], "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": file}
    del environ[RELATIVE]
    says(stub, GRANT_ROW)
    assert len(asked(run, environ)[1]) == 15

    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": 1})
    assert asked(run, environ)[1] == set()


@pytest.mark.needs("linux")
@pytest.mark.parametrize("lives", [True, False])
def test_a_port_of_another_user(
    run: Run, stub: Stub, metadata: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    """No setting chooses a grant's port: another one is had by `use --imds`, and so it is said."""
    says(stub, *([door_at(stub.port)] if lives else []))
    row = f"   0: 0100007F:{stub.port:04X} 0:0 0A 0:0 0:0 0 {os.getuid() + 7} 0 9\n"
    (tmp_path / "tcp").write_text(row)
    monkeypatch.setattr(link.listeners, "__kwdefaults__", {"table": str(tmp_path / "tcp")})
    monkeypatch.setattr(link.check_listener, "__kwdefaults__", {"table": str(tmp_path / "tcp"), "again": ""})
    wrong = {each["name"]: each for each in asked(run, metadata)[0]}

    assert set(wrong) == {"endpoint"} if lives else {"endpoint", "grant"}
    assert f"is held by the user with id {os.getuid() + 7}" in wrong["endpoint"]["message"]
    assert wrong["endpoint"]["remedy"] == 'type eval "$(vault-client use web-admin --imds)"'
    ended = run("use", "web-admin", "--imds", "--shell", "sh")
    assert ended.err.endswith("not by your vaultd: type the same again, for another port\n")


# ---- the parts ----


def test_without_a_daemon_nothing_is_known() -> None:
    """No grants, no status: no address is vaultd's."""
    served = Served({"VAULTD_GRANT": "g1"})

    assert (served.grant(), served.port, served.linked) == (None, None, [])
    assert not served.container(9169)
    assert not served.metadata("127.0.0.1", 9169)
    assert not served.relative("/v1/credentials/web-admin")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:80/x", ("127.0.0.1", 80)),
        ("http://169.254.169.254", ("169.254.169.254", 80)),
        ("http://h:0/", None),
        ("http://h:65536/", None),
        ("http://h:" + "9" * 5000, None),
        ("http://u:p@h:1/", None),
        ("https://h/", None),
        ("h", None),
        ("", None),
    ],
)
def test_the_place_of_an_address(url: str, place: tuple[str, int] | None) -> None:
    """As it is written; what an SDK might read otherwise is none."""
    assert place_of(url) == place
