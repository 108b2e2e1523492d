"""`import` against the real daemon, its keeper in a process of its own, and the strict STS: stores of aws-vault and the
credentials file, to the end and over a kill.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.harness import Emulator, Home
from tests.store.aws_vault.craft import item, message
from tests.store.aws_vault.make import PASSPHRASE, stored

pytestmark = pytest.mark.process
FRANKLIN = ("AKIASTRICTFRANKLIN01", "strict/franklin+tutorial/secret+key00001")
ROBOT = ("AKIASTRICTROBOTKEY01", "strict/robot+without/a+device/secret0001")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator.running() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, emulator: Emulator) -> Iterator[Home]:
    """A daemon that logs all it can, and holds nothing yet."""
    emulator.ctl("reset", {})
    with Home.make(tmp_path, emulator, VAULTD_LOG="debug").daemon() as running:
        yield running


def sealed(name: str, key: tuple[str, str]) -> str:
    """A file of aws-vault's, as the Go writer's are (tests/store/aws_vault)."""
    return message(item(name, AccessKeyID=key[0], SecretAccessKey=key[1]), rounds=8192).decode()


def everything(home: Home) -> bytes:
    """All that the daemon wrote in its home."""
    return b"".join(each.read_bytes() for each in home.directory.joinpath("vaultd").rglob("*") if each.is_file())


def test_aws_vault_to_the_end(home: Home, tmp_path: Path, emulator: Emulator) -> None:
    """Stored, verified, its device found, in use; then deleted there on the second go, which stores nothing anew. What
    fails is one line and exit 1; the passphrase and the secrets are in nothing that was written or printed.
    """
    keys = stored(tmp_path, {"identity": sealed("identity", FRANKLIN), "team%2Frobot": sealed("team/robot", ROBOT),
                             "wrong": sealed("wrong", (FRANKLIN[0], "not/the+secret"))})  # fmt: skip
    first = home.client("import", "aws-vault", "--stdin", "--yes", "--json", stdin=PASSPHRASE + "\n")

    assert first.status == 1, first
    outcomes = {each["name"]: each for each in first.json()["imports"]}
    assert {name: each["outcome"] for name, each in outcomes.items()} == {
        "identity": "stored", "team/robot": "stored", "wrong": "failed",
    }  # fmt: skip
    assert "AWS does not accept that key: correct or delete it in aws-vault's files" in outcomes["wrong"]["message"]
    listed = {each["name"]: each for each in home.link("GET", "/v1/identities")["identities"]}
    assert listed["identity"]["mfa_serial"] == "arn:aws:iam::123456789012:mfa/franklin"
    assert listed["team-robot"]["user_arn"] == "arn:aws:iam::123456789012:user/robot"
    assert "team/robot is called team-robot here: write source_profile = team-robot" in first.err
    assert len(list(keys.iterdir())) == 3
    assert home.use("web-admin", emulator)["VAULTD_PROFILE"] == "web-admin"

    calls = emulator.count("GetCallerIdentity")
    options = ("--delete-source", "--stdin", "--yes", "--json")
    again = home.client("import", "aws-vault", "identity", "team/robot", *options, stdin=PASSPHRASE + "\n")

    assert again.status == 0, again
    assert [(each["outcome"], each["deleted"]) for each in again.json()["imports"]] == [("same", True)] * 2
    assert [each.name for each in keys.iterdir()] == ["wrong"]
    assert emulator.count("GetCallerIdentity") == calls, "nothing was stored anew"
    for secret in (PASSPHRASE, FRANKLIN[1], ROBOT[1], "not/the+secret"):
        for text in (first.out, first.err, again.out, again.err):
            assert secret not in text
        assert secret.encode() not in everything(home)
    assert home.events("identity.add") == 2


def test_a_wrong_passphrase_stores_nothing(home: Home, tmp_path: Path) -> None:
    """Told at once, exit 1; positive control: the right one."""
    keys = stored(tmp_path, {"identity": sealed("identity", FRANKLIN)})
    wrong = home.client("import", "aws-vault", "--stdin", "--yes", "--delete-source", stdin="correct horse\n")

    assert wrong.status == 1
    assert "that passphrase does not open the keys in" in wrong.err
    assert home.link("GET", "/v1/identities")["identities"] == []
    assert (keys / "identity").exists()
    right = home.client("import", "aws-vault", "--stdin", "--yes", "--delete-source", stdin=PASSPHRASE + "\n")
    assert right.status == 0, right
    assert not (keys / "identity").exists()


def test_the_credentials_file(home: Home, tmp_path: Path) -> None:
    """Its sections, one of them temporary; deleted are the key's lines and nothing else."""
    path = tmp_path / ".aws/credentials"
    keys = [f"aws_access_key_id = {pair[0]}\naws_secret_access_key = {pair[1]}\n" for pair in (FRANKLIN, ROBOT)]
    ends = "aws_access_key_id = ASIA0000000000000000\naws_secret_access_key = s\naws_session_token = t\n"
    text = f"# mine\n[identity]\n{keys[0]}\n[robot]\nregion = eu-west-1\n{keys[1]}[ends]\n{ends}[none]\nregion = x\n"
    path.write_text(text)
    path.chmod(0o600)

    ran = home.client("import", "aws-credentials", "--delete-source", "--yes", "--json")

    assert ran.status == 0, ran
    outcomes = {each["name"]: (each["outcome"], each["deleted"]) for each in ran.json()["imports"]}
    assert outcomes == {"identity": ("stored", True), "robot": ("stored", True), "ends": ("skipped", False)}
    assert path.read_text() == f"# mine\n\n[robot]\nregion = eu-west-1\n[ends]\n{ends}[none]\nregion = x\n"
    assert FRANKLIN[1] not in ran.err + ran.out
    assert "put a new key in its place with `vault-client rotate identity`, and so for robot" in ran.err


def test_another_key_under_the_name(home: Home, tmp_path: Path, emulator: Emulator) -> None:
    """Neither replaced nor, with --delete-source, deleted where it lies; the same key would be."""
    assert home.add(emulator).status == 0
    keys = stored(tmp_path, {"identity": sealed("identity", ROBOT)})
    ran = home.client("import", "aws-vault", "--stdin", "--yes", "--delete-source", stdin=PASSPHRASE + "\n")

    assert ran.status == 1
    assert "another key is stored as identity, which stays in use; to see that, type" in ran.err
    assert (keys / "identity").exists()
    body = {"backend": "file", "place": str(keys), "passphrase": PASSPHRASE, "name": "identity"}
    with pytest.raises(Exception, match="is not what is stored here, so it is not deleted there"):
        home.link("POST", "/v1/imports/aws-vault/discard", body)
    assert (keys / "identity").exists()
    (keys / "identity").write_text(sealed("identity", FRANKLIN))
    home.link("POST", "/v1/imports/aws-vault/discard", body)
    assert not (keys / "identity").exists()


def test_locked(home: Home, tmp_path: Path) -> None:
    """A locked daemon says what to type, once, and nothing is read."""
    stored(tmp_path, {"identity": sealed("identity", FRANKLIN)})
    home.link("POST", "/v1/lock")

    ran = home.client("import", "aws-vault", "--stdin", "--yes", stdin=PASSPHRASE + "\n")

    assert ran.status == 1
    assert ran.err.count("vault-client unlock") == 1


def test_killed_in_the_middle(home: Home, tmp_path: Path, emulator: Emulator) -> None:
    """The daemon dies while AWS is asked about the second key: the first is there, and the same command goes on."""
    keys = stored(tmp_path, {"identity": sealed("identity", FRANKLIN), "robot": sealed("robot", ROBOT)})
    assert home.client("import", "aws-vault", "identity", "--stdin", "--yes", stdin=PASSPHRASE + "\n").status == 0
    home.kill()

    away = home.client("import", "aws-vault", "--stdin", "--yes", stdin=PASSPHRASE + "\n")
    assert away.status == 69
    with home.daemon():
        ran = home.client(
            "import", "aws-vault", "--stdin", "--yes", "--delete-source", "--json", stdin=PASSPHRASE + "\n"
        )

    assert ran.status == 0, ran
    assert [each["outcome"] for each in json.loads(ran.out)["imports"]] == ["same", "stored"]
    assert list(keys.iterdir()) == []
