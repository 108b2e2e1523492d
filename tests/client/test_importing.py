"""`import`: what is shown, asked, said of each key and of the whole, with the daemon's answers set by the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.conftest import Run
from tests.client.stub import IDENTITY, SERIAL, Stub, error
from tests.client.terminal import OnTerminal
from vault_client import foreign
from vaultd.model import importing

OFFERS = ("POST", "/v1/imports/aws-vault")
ADOPT = ("POST", "/v1/imports/aws-vault/adopt")
DISCARD = ("POST", "/v1/imports/aws-vault/discard")
ADD = ("POST", "/v1/identities")
WRONG = error(403, "WrongPassphrase", "that passphrase does not open the keys in /k: type it again", 1)
SECRET = "canary/import+secret"
FILE = f"""\
[identity]
aws_access_key_id = AKIAFRANKLIN00000001
aws_secret_access_key = {SECRET}
mfa_serial = {SERIAL}

[team/prod]
aws_access_key_id = AKIAFRANKLIN00000002
aws_secret_access_key = {SECRET}

[short]
aws_access_key_id = AKIA

[ends]
aws_access_key_id = ASIAFRANKLIN00000003
aws_secret_access_key = {SECRET}
aws_session_token = t

[region-only]
region = eu-west-1
"""


def offer(name: str, state: str = "new", **more: Any) -> dict[str, Any]:
    return {"name": name, "identity": name, "access_key_id": "0001", "state": state, "message": "", **more}


def offers(*rows: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"keys": list(rows)}


def adopted(body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
    assert body is not None
    return 201, {**IDENTITY, "name": body["name"]}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory of aws-vault's, with something in it."""
    folder = tmp_path / ".awsvault" / "keys"
    folder.mkdir(parents=True)
    (folder / "team%2Fprod").write_text("x")
    return folder


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def told(text: str) -> list[str]:
    return [line.removeprefix("vault-client: ") for line in text.splitlines() if line.startswith("vault-client: ")]


def test_the_story_on_a_terminal(terminal: Callable[..., OnTerminal], stub: Stub, keys: Path, tmp_path: Path) -> None:
    """The passphrase without echo, a wrong one once more, the list, one consent; each key a line; then what is left."""
    stub.answers[OFFERS] = [WRONG, offers(offer("identity"), offer("team/prod", identity="team-prod"))]
    stub.answers[ADOPT] = adopted
    asking = terminal("import", "aws-vault", HOME=str(tmp_path), NO_COLOR="1")
    asking.until(f"Passphrase of aws-vault's files in {keys}: ")
    asking.type("canary-wrong\n")
    asking.until("that passphrase does not open the keys")
    asking.until("Passphrase of ")
    asking.type("canary-right\n")
    shown = asking.until("import 2 keys? [y/N] ")
    asking.type("y\n")
    ended = asking.end()

    assert ended.status == 0, ended
    rows = [line.split() for line in shown.splitlines()]
    assert ["NAME", "KEY", "IDENTITY"] in rows
    assert ["team/prod", "…0001", "team-prod", "will", "be", "stored"] in rows
    assert "canary" not in shown + ended.err
    assert [body and body["passphrase"] for body in stub.asked(*OFFERS)] == ["canary-wrong", "canary-right"]
    assert [body and (body["name"], body["passphrase"]) for body in stub.asked(*ADOPT)] == [
        ("identity", "canary-right"), ("team/prod", "canary-right"),
    ]  # fmt: skip
    assert stub.asked(*DISCARD) == []
    said = told(ended.err.replace("\r", ""))
    assert said[0].startswith("identity: stored as identity: arn:aws:iam::123456789012:user/franklin, MFA device")
    assert said[2].startswith("team/prod is called team-prod here: write source_profile = team-prod")
    assert said[3].endswith("type `vault-client import aws-vault --delete-source`")
    assert said[4].endswith("with `vault-client rotate identity`, and so for team-prod")


def test_a_wrong_passphrase_names_the_command_as_typed(process: Run, stub: Stub, keys: Path, tmp_path: Path) -> None:
    """With its options: without them the next go would look elsewhere. Control: the daemon says it bare."""
    said = "that passphrase does not open the keys in /k: type `vault-client import aws-vault` again with the right one"
    stub.answers[OFFERS] = error(403, "WrongPassphrase", said, 1)
    ran = process("import", "aws-vault", "--backend", "file", "--stdin", stdin="no\n", HOME=str(tmp_path))

    assert ran.status == 1
    assert "type `vault-client import aws-vault --backend file --stdin` again with the right one" in ran.err


def test_why_a_key_cannot_be_imported_comes_before_the_question(
    terminal: Callable[..., OnTerminal], stub: Stub, credentials: Path
) -> None:
    """Who reads it may want to mend the file first; it is said once."""
    asking = terminal("import", "aws-credentials", AWS_SHARED_CREDENTIALS_FILE=str(credentials))
    shown = asking.until("? [y/N] ")
    asking.type("n\n")
    ended = asking.end()

    assert "short: that is no access key ID" in shown
    assert "short:" not in ended.err


@pytest.mark.parametrize("answer", ["n\n", "\n", "yess\n", "\x04"])
def test_anything_but_yes_is_no(
    terminal: Callable[..., OnTerminal], stub: Stub, credentials: Path, answer: str
) -> None:
    """Nothing was stored, nothing deleted, and how to do it after all."""
    before = credentials.read_bytes()
    asking = terminal("import", "aws-credentials", "identity", "--delete-source",
                      AWS_SHARED_CREDENTIALS_FILE=str(credentials))  # fmt: skip
    asking.until("import 1 key and delete there? [y/N] ")
    asking.type(answer)
    ended = asking.end()

    assert ended.status == (3 if answer == "\x04" else 1)
    assert "type `vault-client import aws-credentials identity --delete-source" in ended.err.replace("\r\n", " ")
    assert stub.asked(*ADD) == []
    assert credentials.read_bytes() == before


def test_ctrl_c_between_two_keys(terminal: Callable[..., OnTerminal], stub: Stub, keys: Path, tmp_path: Path) -> None:
    """What is stored stays, is named, and the same command goes on."""
    stub.answers[OFFERS] = offers(offer("identity"), offer("second"))
    stub.answers[ADOPT] = [
        adopted({"name": "identity"}),
        error(400, "BadRequest", "several", 1, mfa_serials=["a", "b"]),
    ]
    asking = terminal("import", "aws-vault", "--yes", HOME=str(tmp_path))
    asking.until("Passphrase of ")
    asking.type("p\n")
    asking.until("number of the one to use: ")
    asking.type("\x03")
    ended = asking.end()

    assert ended.status == 130
    assert (
        "stopped: stored so far: identity; second was under way and may be done, too; to go on, type `vault-client "
        "import aws-vault`"
    ) in ended.err


@pytest.mark.parametrize("question", ["Passphrase of ", "import 1 key? [y/N] "])
def test_ctrl_c_at_a_question(
    terminal: Callable[..., OnTerminal], stub: Stub, keys: Path, tmp_path: Path, question: str
) -> None:
    """Nothing half done, and said so."""
    stub.answers[OFFERS] = offers(offer("identity"))
    asking = terminal("import", "aws-vault", HOME=str(tmp_path))
    asking.until("Passphrase of ")
    if not question.startswith("Pass"):
        asking.type("p\n")
        asking.until(question)
    asking.type("\x03")
    ended = asking.end()

    assert ended.status == 130
    assert (
        "stopped: nothing was stored and nothing deleted; to go on, type `vault-client import aws-vault`" in ended.err
    )
    assert stub.asked(*ADOPT) == []


def test_several_devices_are_chosen_from(
    terminal: Callable[..., OnTerminal], stub: Stub, keys: Path, tmp_path: Path
) -> None:
    """As in `add` (aws-facts §2.2)."""
    stub.answers[OFFERS] = offers(offer("identity"))
    stub.answers[ADOPT] = [
        error(400, "BadRequest", "several", 1, mfa_serials=["a", SERIAL]),
        adopted({"name": "identity"}),
    ]
    asking = terminal("import", "aws-vault", "--yes", HOME=str(tmp_path))
    asking.until("Passphrase of ")
    asking.type("p\n")
    asking.until("number of the one to use: ")
    asking.type("2\n")

    assert asking.end().status == 0
    assert [body and body.get("MfaSerial") for body in stub.asked(*ADOPT)] == [None, SERIAL]


def test_without_a_terminal(process: Run, stub: Stub, keys: Path, tmp_path: Path) -> None:
    """Exit 3 and what to type, for the passphrase and for the consent; with --stdin and --yes it goes."""
    stub.answers[OFFERS] = offers(offer("identity"))
    stub.answers[ADOPT] = adopted

    silent = process("import", "aws-vault", HOME=str(tmp_path))
    unasked = process("import", "aws-vault", "--stdin", stdin="phrase with blanks \n", HOME=str(tmp_path))
    done = process("import", "aws-vault", "--stdin", "--yes", stdin="phrase with blanks \nmore\n", HOME=str(tmp_path))
    nothing = process("import", "aws-vault", "--stdin", "--yes", stdin="\n", HOME=str(tmp_path))

    assert silent.status == 3
    assert "type `vault-client import aws-vault --stdin --yes`" in silent.err
    assert unasked.status == 3
    assert unasked.err.endswith("type `vault-client import aws-vault --stdin --yes`\n")
    assert done.status == 0, done
    assert [body and body["passphrase"] for body in stub.asked(*ADOPT)] == ["phrase with blanks "]
    assert nothing.status == 2
    assert "stdin is empty: give the passphrase as one line" in nothing.err


def test_each_outcome_is_a_line(run: Run, stub: Stub, keys: Path, tmp_path: Path) -> None:
    """One that fails leaves the others done; exit 1; no failure are a temporary key and one that is there."""
    stub.answers[OFFERS] = offers(
        offer("one"), offer("two"), offer("three"), offer("there", "same"), offer("other", "taken"),
        offer("torn", "wrong", message="it is damaged"), offer("ends", "temporary", message="it is a temporary key"),
    )  # fmt: skip
    refused = error(403, "IdentityBroken", "AWS does not accept that key: check it", 1)
    stub.answers[ADOPT] = lambda body: refused if body["name"] == "two" else adopted(body)

    ran = run("import", "aws-vault", "--yes", "--json", "--backend", "secret-service")

    assert ran.status == 1
    outcomes = {each["name"]: each for each in json.loads(ran.out)["imports"]}
    assert {name: each["outcome"] for name, each in outcomes.items()} == {
        "one": "stored", "two": "failed", "three": "stored", "there": "same", "torn": "failed", "other": "failed",
        "ends": "skipped",
    }  # fmt: skip
    assert not any(each["deleted"] for each in outcomes.values())
    said = told(ran.err)
    assert (
        "two: not stored: AWS does not accept that key: correct or delete it in aws-vault's collection awsvault of the "
        "Secret Service and type `vault-client import aws-vault --backend secret-service --json`"
    ) in said, "nothing was typed with `add`"
    assert "torn: it is damaged" in said
    assert any(
        line.startswith("other: not stored, as another key is stored as other, which stays in use; to see ")
        for line in said
    )
    assert "vault-client remove" not in ran.err, "it may be the only one that works"  # fmt: skip
    assert stub.asked(*OFFERS) == [{"backend": "secret-service", "place": "awsvault", "names": []}]


def test_a_name_that_is_not_there(run: Run, stub: Stub, keys: Path, tmp_path: Path) -> None:
    """The nearest names, and the others are done."""
    stub.answers[OFFERS] = offers(offer("identity"))
    stub.answers[ADOPT] = adopted
    ran = run("import", "aws-vault", "identity", "idemtity", "--yes", "--backend", "secret-service")

    assert ran.status == 1
    assert "idemtity: no such key is there (did you mean identity?): type `vault-client import aws-vault` to see" in (
        ran.err.replace("; type", ": type")
    )
    assert len(stub.asked(*ADOPT)) == 1


def test_deleting_says_what_became_of_it(run: Run, stub: Stub) -> None:
    """Shown first; one that is not deleted is a failure, and its key is stored all the same."""
    stub.answers[OFFERS] = offers(offer("one"), offer("two", "same"), offer("three", "taken"))
    stub.answers[ADOPT] = adopted
    changed = error(409, "NotImported", "one has changed: type the same again", 1)
    stub.answers[DISCARD] = lambda body: changed if body["name"] == "one" else (200, {})

    ran = run("import", "aws-vault", "--yes", "--delete-source", "--json", "--backend", "secret-service")

    assert ran.status == 1
    assert [(each["outcome"], each["deleted"]) for each in json.loads(ran.out)["imports"]] == [
        ("failed", False), ("same", True), ("failed", False),
    ]  # fmt: skip
    assert "-one (…0001)\n-two (…0001)\n" in ran.err
    assert "one: stored as one" in ran.err
    assert "and not deleted in aws-vault's collection awsvault of the Secret Service: one has changed" in ran.err
    assert [body and body["name"] for body in stub.asked(*DISCARD)] == ["one", "two"], "never one of another's"


def test_a_locked_daemon_ends_it(run: Run, stub: Stub) -> None:
    """Every other key would be told the same."""
    stub.answers[OFFERS] = offers(offer("one"), offer("two"))
    stub.answers[ADOPT] = error(403, "Locked", "vaultd is locked; run `vault-client unlock`", 1)

    ran = run("import", "aws-vault", "--yes", "--backend", "secret-service")

    assert ran.status == 1
    assert len(stub.asked(*ADOPT)) == 1
    assert ran.err.count("vault-client unlock") == 1


def test_nothing_there(run: Run, stub: Stub, tmp_path: Path) -> None:
    """Is no failure; a file that is not there is one."""
    stub.answers[OFFERS] = offers()
    empty = run("import", "aws-vault", "--backend", "secret-service")
    absent = run("import", "aws-credentials", AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"))

    assert empty.status == 0
    assert told(empty.err) == [
        "aws-vault's collection awsvault of the Secret Service holds no long-term key: nothing is to be done"
    ]
    assert absent.status == 78
    assert "cannot be read (No such file or directory)" in absent.err


def test_the_credentials_file(run: Run, stub: Stub, credentials: Path) -> None:
    """Each section with a key: stored by the way of `add`, with the device that the section names."""
    stub.answers[ADD] = adopted
    ran = run("import", "aws-credentials", "--yes", "--json", AWS_SHARED_CREDENTIALS_FILE=str(credentials))

    assert ran.status == 1, "one is no key"
    assert [(each["name"], each["identity"], each["outcome"]) for each in json.loads(ran.out)["imports"]] == [
        ("identity", "identity", "stored"), ("team/prod", "team-prod", "stored"), ("short", "short", "failed"),
        ("ends", "ends", "skipped"),
    ]  # fmt: skip
    assert stub.asked(*ADD) == [
        {"name": "identity", "AccessKeyId": "AKIAFRANKLIN00000001", "SecretAccessKey": SECRET, "MfaSerial": SERIAL},
        {"name": "team-prod", "AccessKeyId": "AKIAFRANKLIN00000002", "SecretAccessKey": SECRET},
    ]
    assert SECRET not in ran.out + ran.err
    assert credentials.read_text() == FILE


def test_a_key_that_another_identity_has(run: Run, stub: Stub, credentials: Path) -> None:
    """The list says whose it is; a rotation's old key is not stored, and not called wrong. Only what ends like a stored
    key is compared.
    """
    rotated = {
        **IDENTITY,
        "name": "prod",
        "access_key_id": "0001",
        "rotation": {"stage": "inactive", "old_key": "0002"},
    }
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [rotated]})
    stub.answers["POST", "/v1/identities/identity/compare"] = (200, {"same": False, "like": "prod", "old": False})
    stub.answers["POST", "/v1/identities/team-prod/compare"] = (200, {"same": False, "like": "prod", "old": True})
    stub.answers[ADD] = adopted
    ran = run("import", "aws-credentials", "identity", "team/prod", "--yes", "--json",
              AWS_SHARED_CREDENTIALS_FILE=str(credentials))  # fmt: skip

    lines = [" ".join(each.split()) for each in ran.err.splitlines()]
    assert "identity …0001 identity will be stored; same key as prod" in lines
    assert "team/prod …0002 team-prod the old key of prod" in lines
    old = (f"it is the old key of prod, which was rotated, and is not stored again: once nothing uses it any more, "
           f"delete it in {credentials}")  # fmt: skip
    assert told(ran.err).count(f"team/prod: {old}") == 1
    assert [(each["name"], each["outcome"], each["message"]) for each in json.loads(ran.out)["imports"]][1:] == [
        ("team/prod", "failed", old)
    ]
    assert [each and each["name"] for each in stub.asked(*ADD)] == ["identity"]


def test_what_aws_vaults_keys_are_like(run: Run, stub: Stub) -> None:
    """The same, of what the daemon lists."""
    stub.answers[OFFERS] = offers(
        offer("default", like="identity", old=False), offer("identity", "taken", like="identity", old=True)
    )
    stub.answers[ADOPT] = adopted
    ran = run("import", "aws-vault", "--yes", "--backend", "secret-service")

    assert ran.status == 1
    assert "will be stored; same key as identity" in ran.err
    assert any(each.startswith("identity: it is the old key of identity, which") for each in told(ran.err))
    assert [each and each["name"] for each in stub.asked(*ADOPT)] == ["default"]


@pytest.mark.parametrize(("same", "gone"), [(True, True), (False, False)])
def test_deleting_in_the_credentials_file(run: Run, stub: Stub, credentials: Path, same: bool, gone: bool) -> None:
    """Only after the store said that it has that very key."""
    stub.answers[ADD] = adopted
    stub.answers["POST", "/v1/identities/identity/compare"] = (200, {"same": same})
    ran = run("import", "aws-credentials", "identity", "--delete-source", "--yes",
              AWS_SHARED_CREDENTIALS_FILE=str(credentials))  # fmt: skip

    assert ran.status == (0 if gone else 1), ran
    assert "-2    aws_access_key_id = …0001\n-3    aws_secret_access_key = (not shown)\n" in ran.err
    left = FILE.replace(f"aws_access_key_id = AKIAFRANKLIN00000001\naws_secret_access_key = {SECRET}\n", "", 1)
    assert credentials.read_text() == (left if gone else FILE)
    assert stub.asked("POST", "/v1/identities/identity/compare") == [
        {"AccessKeyId": "AKIAFRANKLIN00000001", "SecretAccessKey": SECRET}
    ]


def test_a_key_that_is_there_already(run: Run, stub: Stub, credentials: Path) -> None:
    """The same one is not stored again; another one under that name is not replaced."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY, {**IDENTITY, "name": "team-prod"}]})
    stub.answers["POST", "/v1/identities/identity/compare"] = (200, {"same": True})
    stub.answers["POST", "/v1/identities/team-prod/compare"] = (200, {"same": False})
    ran = run(
        "import", "aws-credentials", "identity", "team/prod", "--yes", AWS_SHARED_CREDENTIALS_FILE=str(credentials)
    )

    assert ran.status == 1
    assert "identity: is stored already" in told(ran.err)
    assert stub.asked(*ADD) == []


@pytest.mark.parametrize(
    ("environ", "options", "wanted"),
    [
        ({}, [], ("file", "HOME/.awsvault/keys")),
        ({"AWS_VAULT_BACKEND": "secret-service"}, [], ("secret-service", "awsvault")),
        ({"AWS_VAULT_BACKEND": "secret-service"}, ["--backend", "file"], ("file", "HOME/.awsvault/keys")),
        ({"AWS_VAULT_FILE_DIR": "~/elsewhere/"}, ["--backend", "file"], ("file", "HOME/elsewhere")),
        ({"AWS_VAULT_FILE_DIR": "/nowhere"}, [], ("secret-service", "awsvault")),
        (
            {"AWS_VAULT_SECRET_SERVICE_COLLECTION_NAME": "mine"},
            ["--backend", "secret-service"],
            ("secret-service", "mine"),
        ),
    ],
)
def test_where_aws_vault_keeps_them(
    process: Run, stub: Stub, keys: Path, tmp_path: Path, environ: dict[str, str], options: list[str],
    wanted: tuple[str, str],
) -> None:  # fmt: skip
    """As aws-vault itself finds it: option, environment, what is there."""
    stub.answers[OFFERS] = offers()
    ran = process("import", "aws-vault", "--stdin", *options, stdin="p\n", HOME=str(tmp_path), **environ)

    assert ran.status == 0, ran
    (body,) = stub.asked(*OFFERS)
    assert body is not None
    assert (body["backend"], body["place"].replace(str(tmp_path), "HOME")) == wanted
    assert ("passphrase" in body) == (wanted[0] == "file")


@pytest.mark.parametrize(
    ("arguments", "environ", "status", "said"),
    [
        (["import"], {}, 2, "aws-credentials|aws-vault is missing"),
        (["import", "granted"], {}, 2, "imported from aws-credentials or aws-vault, not from granted"),
        (["import", "aws-vault", "--backend", "kwallet"], {}, 2, "--backend is file or secret-service, not kwallet"),
        (["import", "aws-credentials", "--backend", "file"], {}, 2, "--backend is for aws-vault: leave it out"),
        (["import", "aws-credentials", "--stdin"], {}, 2, "--stdin is for aws-vault: leave it out"),
        (["import", "aws-vault"], {"AWS_VAULT_BACKEND": "pass"}, 1,
         "`aws-vault exec --no-session NAME -- vault-client add NAME --from-env`"),
        (["import", "aws-vault"], {"AWS_VAULT_BACKEND": "x y"}, 1, "AWS_VAULT_BACKEND='x y' is no backend"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(
    run: Run, stub: Stub, arguments: list[str], environ: dict[str, str], status: int, said: str
) -> None:
    """Nothing was asked of the daemon."""
    ran = run(*arguments, **environ)

    assert ran.status == status
    assert said in ran.err
    assert stub.requests == []


@given(st.text(st.sampled_from("ab/\\-. é\x1b%,"), max_size=12) | st.just("n" * 129))
def test_both_sides_call_it_the_same(name: str) -> None:
    """The client names a section as the daemon names a key of aws-vault's; what the client refuses may be fewer."""
    ours, theirs = foreign.called(name), importing.called(name) or ""

    assert ours == theirs


def test_the_help(process: Run) -> None:
    """Names both sources and that there may be names."""
    assert (
        "usage: vault-client import aws-credentials|aws-vault [NAME…] [--delete-source]"
        in process("import", "--help").out
    )
