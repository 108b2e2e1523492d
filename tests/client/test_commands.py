"""Every command's way in and out: what it sends, what it prints, how it ends (interface.md §3)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import CLIENT, Run
from tests.client.stub import (
    GRANT_ROW,
    IDENTITY,
    KEYS,
    PROFILE,
    PROMPT,
    SECRET,
    SERIAL,
    STATUS,
    Answer,
    Stub,
    environment,
    error,
    mfa_required,
)
from tests.client.terminal import OnTerminal
from vault_client import __version__, sessions, show
from vault_client.commands import COMMANDS

ROOT = Path(__file__).parents[2]
KEY = {"AccessKeyId": "AKIAEXAMPLE00000WXYZ", "SecretAccessKey": SECRET}


# ---- the command line itself ----


def test_version(run: Run) -> None:
    """`--version` is the project's version, written down in the client because importlib.metadata costs 20 ms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert run("--version").out == f"vault-client {project['version']}\n"
    assert __version__ == project["version"]


def test_help_lists_every_command(run: Run) -> None:
    """--help on stdout with exit 0; without a command the same on stderr with exit 2."""
    ended = run("--help")

    assert ended.status == 0
    assert set(re.findall(r"^  ([a-z-]+) ", ended.out, re.MULTILINE)) == set(COMMANDS)
    assert run().status == 2
    assert run().err == ended.out


def test_every_command_of_the_contract_is_there() -> None:
    """interface.md §3: each is here."""
    contract = (
        "add identities remove rotate import use unuse exec list status explain mfa refresh clear lock unlock grants "
        "revoke export credential-process login log doctor shell-init completion prompt"
    )

    assert set(COMMANDS) == set(contract.split())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(run: Run, stub: Stub, name: str) -> None:
    """`COMMAND --help` names its operands and each option, exit 0, without a word to the daemon."""
    ended = run(name, "--help")
    command = COMMANDS[name]

    assert ended.status == 0
    assert run("help", name).out == ended.out  # as git has it
    assert ended.out.startswith(f"usage: vault-client {name}")
    assert all(f"  --{option.replace('=', ' ')}" in ended.out for option in command.options)
    assert command.summary in ended.out
    assert max(len(line) for line in ended.out.splitlines()) <= 200
    assert stub.requests == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lst", "there is no command lst (did you mean list?): type `vault-client --help`"),
        ("xyzzy", "there is no command xyzzy: type `vault-client --help`"),
        ("use", "use: PROFILE is missing: type `vault-client use --help`"),
        ("ls", "there is no command ls (did you mean list?): type `vault-client --help`"),
        ("frobnicate", "there is no command frobnicate: type `vault-client --help`"),
        ("use a b", "use: b is one too many, or part of a name that goes in quotes: type `vault-client use --help`"),
        (
            "credential-process team prod",
            (
                "credential-process: prod is one too many, or part of a name that goes in quotes: type "
                "`vault-client credential-process --help`"
            ),
        ),
        (
            "exec team prod -- ls",
            "exec: prod is one too many, or part of a name that goes in quotes: type `vault-client exec --help`",
        ),
        ("help rotat", "there is no command rotat (did you mean rotate?): type `vault-client --help`"),
        ("list extra", "list: extra is one too many: type `vault-client list --help`"),
        ("list --frob", "list: option --frob not recognized: type `vault-client list --help`"),
        ("use p --region", "use: option --region requires argument: type `vault-client use --help`"),
        ("exec p", "exec: no CMD after --: type `vault-client exec --help`"),
        ("exec p env", "exec: no CMD after --: type `vault-client exec p -- env`"),
        ("exec --imds p env", "exec: no CMD after --: type `vault-client exec --imds p -- env`"),
        (
            "exec --region=eu-west-1 p env --imds --token-code 123456",
            "exec: no CMD after --: type `vault-client exec --region eu-west-1 --imds p -- env`",
        ),
        ("exec -- true", "exec: PROFILE is missing: type `vault-client exec --help`"),
        ("exec p --", "exec: no CMD after --: type `vault-client exec --help`"),
        ("use p\x1b[2J", "use: a name is empty or has characters that cannot be shown: type `vault-client use --help`"),
        ("use p --duration 90", "--duration 90 is no length of time: write it as 45m or 2h"),
        ("use p --duration 5m", "--duration 5m is not what AWS allows: choose from 15m to 12h"),
        ("use p --duration 13h", "--duration 13h is not what AWS allows: choose from 15m to 12h"),
        ("use p --region moon-1", "--region moon-1 is no region: give one such as eu-west-1"),
        ("use p --region eu-west", "--region eu-west is no region: give one such as eu-west-1"),
        ("use p --region eu-1-west", "--region eu-1-west is no region: give one such as eu-west-1"),
        ("use p --region eu", "--region eu is no region: give one such as eu-west-1"),
        ("use p --region x;rm-rf", "--region x;rm-rf is no region: give one such as eu-west-1"),
        ("use p --region -eu-west-1", "--region -eu-west-1 is no region: give one such as eu-west-1"),
        ("use p --region eu--1", "--region eu--1 is no region: give one such as eu-west-1"),
        ("use p --region=", "--region  is no region: give one such as eu-west-1"),
        ("exec p --imds --env -- true", "exec: --imds and --env exclude each other: choose one"),
        ("use p --shell tcsh", "--shell tcsh: the shells known are bash, zsh, sh, fish, pwsh; choose one of them"),
        ("revoke", "revoke: give one GRANT or --all: `vault-client grants` lists them"),
        ("revoke g1 --all", "revoke: give one GRANT or --all: `vault-client grants` lists them"),
        (
            "export p --format xml",
            "export: there is no format xml: choose one of env, json, process, ini, dotenv, powershell, fish",
        ),
        ("add i --stdin --from-env", "add: --stdin and --from-env exclude each other: choose one"),
    ],
)
def test_usage_errors(run: Run, stub: Stub, line: str, said: str) -> None:
    """Exit 2, one sentence, and nothing was asked of anybody."""
    ended = run(*line.split(" "))

    out = "false;\n" if line.startswith("use ") or line == "use" else ""
    assert (ended.status, ended.out, ended.err) == (2, out, f"vault-client: {said}\n")
    assert stub.requests == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["use", "x" * 100_000], "use: a name has 100000 characters, and no more than 1000 are taken"),
        (["x" * 100_000], "there is no command " + "x" * 199 + "…: type"),
        (["list", "x" * 100_000], "list: " + "x" * 199 + "…: type"),
        (["use", "p", "--duration", "9" * 100_000], "--duration " + "9" * 199 + "… is no length of time"),
        (["use", "p", "--region", "x" * 100_000], "--region " + "x" * 199 + "… is no region"),
        (["exec", "a b", "$(x)"], "exec: no CMD after --: type `vault-client exec 'a b' -- '$(x)'`"),
        (["exec", "p", "x" * 100_000], "exec: no CMD after --: type `vault-client exec p -- " + "x" * 194 + "…`"),
    ],
)
def test_a_file_given_as_an_argument_is_not_repeated(run: Run, stub: Stub, line: list[str], said: str) -> None:
    """A variable may hold 100 kB: 200 characters of it are enough to see which."""
    ended = run(*line)

    assert ended.status == 2
    assert ended.err.startswith(f"vault-client: {said}")
    assert len(ended.err) < 500
    assert stub.requests == []


def test_every_request_says_its_protocol(run: Run, stub: Stub) -> None:
    """`Vaultd-Protocol: 1` on each request."""
    run("list")

    assert stub.protocols == {"1"}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (error(426, "ProtocolMismatch", "the client speaks 1 and vaultd 2: type `vaultd restart`", 1), 1),
        (error(404, "UnknownProfile", "no profile web-admi. Did you mean web-admin?", 1), 1),
        (error(422, "BadProfile", "~/.aws/config:3: a loop a → b → a: mend source_profile", 78), 78),
        (error(503, "StsUnavailable", "AWS cannot be reached: try again", 75), 75),
        (error(403, "Locked", "vaultd is locked: type `vault-client unlock`", 1), 1),
        (error(409, "MfaRequired", "a code is needed: type `vault-client mfa`", 3), 3),
        (error(500, "InternalError", "something broke: look at `vaultd logs`", 1), 1),
    ],
)
def test_an_error_body_decides(run: Run, stub: Stub, answer: Any, status: int) -> None:
    """The daemon's sentence on stderr and its exit status, whatever the command."""
    stub.answers["POST", "/v1/grants"] = answer
    ended = run("use", "web-admin", "--shell", "sh")

    assert (ended.status, ended.out, ended.err) == (status, "false;\n", f"vault-client: {answer[1]['message']}\n")


def test_a_hostile_message_cannot_move_the_cursor(run: Run, stub: Stub) -> None:
    """Control characters in an error are shown as `?`."""
    stub.answers["GET", "/v1/profiles"] = error(404, "X", "a\x1b[2Jb\x07", 1)

    assert run("list").err == "vault-client: a?[2Jb?\n"


def test_json_prints_the_same_object(run: Run, stub: Stub) -> None:
    """A command's --json prints the control API's object (interface.md §6)."""
    plan = {"profile": "web-admin", "identity": "identity", "steps": [], "problems": []}
    stub.answers["GET", "/v1/profiles/web-admin/plan"] = (200, plan)
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY]})
    stub.answers["GET", "/v1/audit"] = (200, {"events": [{"event": "start", "seq": 1}]})

    assert json.loads(run("list", "--json").out) == {"profiles": [PROFILE]}
    assert json.loads(run("status", "--json").out) == STATUS
    assert json.loads(run("grants", "--json").out) == {"grants": [GRANT_ROW]}
    assert json.loads(run("identities", "--json").out) == {"identities": [IDENTITY]}
    assert json.loads(run("explain", "web-admin", "--json").out) == plan
    assert json.loads(run("log", "--json").out) == {"events": [{"event": "start", "seq": 1}]}


# ---- keys ----


def test_add_from_stdin(process: Run, stub: Stub) -> None:
    """One JSON object; the daemon gets it under the contract's names; the secret is shown nowhere."""
    ended = process("add", "identity", "--stdin", stdin=json.dumps({**KEY, "MfaSerial": SERIAL}))

    assert ended.status == 0
    assert stub.asked("POST", "/v1/identities") == [{"name": "identity", **KEY, "MfaSerial": SERIAL, "replace": False}]
    assert ended.err == (
        f"vault-client: stored identity: arn:aws:iam::123456789012:user/franklin, MFA device {SERIAL}\n"
        "vault-client: next: vault-client list shows the profiles; vault-client use PROFILE points this shell at one\n"
    )
    assert SECRET not in ended.out + ended.err


@pytest.mark.parametrize("text", ["", "[]", "{", '{"AccessKeyId": 1}', '{"AccessKeyId": "x", "Secret": "y"}'])
def test_add_from_bad_stdin(process: Run, stub: Stub, text: str) -> None:
    """Anything but that object is exit 2, and is not repeated."""
    ended = process("add", "identity", "--stdin", stdin=text)

    assert ended.status == 2
    assert ended.err == (
        'vault-client: stdin is not one JSON object {"AccessKeyId", "SecretAccessKey", "MfaSerial"?}: correct it and '
        "try again\n"
    )
    assert stub.asked("POST", "/v1/identities") == []


def test_add_from_env(run: Run, stub: Stub) -> None:
    """The two variables; --mfa-serial beside them."""
    variables = {"AWS_ACCESS_KEY_ID": KEY["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": SECRET}
    ended = run("add", "identity", "--from-env", "--replace", "--mfa-serial", SERIAL, "--json", **variables)

    assert json.loads(ended.out) == IDENTITY
    assert stub.asked("POST", "/v1/identities") == [{"name": "identity", **KEY, "MfaSerial": SERIAL, "replace": True}]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"AWS_SESSION_TOKEN": "x"},
            (
                "AWS_SESSION_TOKEN is set, so the key in the environment is a temporary one: set a long-term key, or "
                "type it without --from-env"
            ),
        ),
        ({}, "that is no access key ID (16 or more capital letters and digits): copy it again and retry"),
        (
            {"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE00000WXYZ"},
            "that is a temporary key (ASIA…), which ends by itself: give the user's long-term key (AKIA…)",
        ),
        (
            {"AWS_ACCESS_KEY_ID": KEY["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": "two words"},
            "the secret access key is missing or has characters that no AWS key has: copy it again and retry",
        ),
    ],
)
def test_add_refuses_what_is_no_long_term_key(run: Run, stub: Stub, variables: dict[str, str], said: str) -> None:
    """Told here, before anything is sent."""
    ended = run("add", "identity", "--from-env", **variables)

    assert (ended.status, ended.err) == (1, f"vault-client: {said}\n")
    assert stub.asked("POST", "/v1/identities") == []


def test_add_from_credentials_file(run: Run, stub: Stub, tmp_path: Path) -> None:
    """The section named IDENTITY; and the reminder that the file still holds the key."""
    path = tmp_path / "credentials"
    path.write_text(
        f"[other]\n\n[identity]\naws_access_key_id = {KEY['AccessKeyId']}\naws_secret_access_key={SECRET}\n"
    )
    ended = run("add", "identity", "--from-credentials-file", AWS_SHARED_CREDENTIALS_FILE=str(path))

    assert ended.status == 0
    assert stub.asked("POST", "/v1/identities") == [{"name": "identity", **KEY, "replace": False}]
    assert f"the key is still in {path} in clear: delete its section [identity] there\n" in ended.err


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (
            "[one]\n[two]\n",
            1,
            "{path} has no section [identity] (it has: one, two): name one of them, or type the key in",
        ),
        (
            "[identity]\naws_session_token = x\n",
            1,
            "[identity] in {path} holds a temporary key: name a section with a long-term one",
        ),
        (
            "not an ini file",
            78,
            (
                "{path} cannot be read (it is not an INI file): correct it, or type the key without "
                "--from-credentials-file"
            ),
        ),
        (
            None,
            78,
            (
                "{path} cannot be read (No such file or directory): correct it, or type the key without "
                "--from-credentials-file"
            ),
        ),
    ],
)
def test_add_from_bad_credentials_file(run: Run, tmp_path: Path, content: str | None, status: int, said: str) -> None:
    """Each way in which the file can be wrong, by name."""
    path = tmp_path / "credentials"
    if content is not None:
        path.write_text(content)
    ended = run("add", "identity", "--from-credentials-file", AWS_SHARED_CREDENTIALS_FILE=str(path))

    assert (ended.status, ended.err) == (status, f"vault-client: {said.format(path=path)}\n")


@pytest.mark.parametrize("name", ["a\\b", "a/b", "-x", "x" * 129])
def test_add_refuses_a_name_that_cannot_be_stored_before_asking(process: Run, stub: Stub, name: str) -> None:
    """The daemon would refuse it after the secret was typed. Control: `test_add_from_stdin`."""
    ended = process("add", "--stdin", "--", name, stdin="{}")

    assert ended.status == 2
    assert "choose one of up to 128 characters without / and \\" in ended.err
    assert stub.requests == []


def test_add_refuses_an_existing_identity_before_asking(process: Run, stub: Stub) -> None:
    """Nobody types a secret in vain."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY]})
    ended = process("add", "identity")

    assert ended.status == 1
    assert ended.err == (
        "vault-client: identity is stored already (key …WXYZ): to put another key in its place, type `vault-client add "
        "identity --replace`\n"
    )


def test_add_without_terminal(process: Run, stub: Stub) -> None:
    """A person is needed: exit 3, and the way without one."""
    ended = process("add", "identity")

    assert ended.status == 3
    assert ended.err == (
        "vault-client: there is no terminal to ask for the key on: type `vault-client add identity` in one, or give "
        "the key as JSON with --stdin\n"
    )


def test_identities(run: Run, stub: Stub) -> None:
    """A table; or what to type when there is none."""
    empty = run("identities")
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY]})
    head, row = run("identities").out.splitlines()

    assert (empty.status, empty.err) == (0, "vault-client: no key is stored: type `vault-client add IDENTITY`\n")
    assert head.split() == ["IDENTITY", "ACCOUNT", "USER", "MFA", "DEVICE", "KEY", "AGE", "STORED"]
    assert row.split()[:4] == ["identity", "123456789012", "arn:aws:iam::123456789012:user/franklin", SERIAL]
    assert "…WXYZ" in row


def test_remove(run: Run, stub: Stub) -> None:
    """DELETE under the quoted name, and what AWS still holds."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [{**IDENTITY, "name": "team prod/ü"}]})
    stub.answers["DELETE", "/v1/identities/team prod/ü"] = (200, {})
    ended = run("remove", "team prod/ü")

    assert ended.status == 0
    assert stub.requests[-1][1] == "/v1/identities/team%20prod%2F%C3%BC"
    assert ended.err == (
        "vault-client: removed team prod/ü, its sessions and the grants that needed it; the key itself still works at "
        "AWS until it is deleted there\n"
    )


ROTATED = {
    **IDENTITY,
    "access_key_id": "AJQ6",
    "rotation": {"stage": "inactive", "old_key": "IN01", "new_key": "AJQ6", "delete_after": "2099-11-23T20:00:00Z"},
}
FORGET = ("DELETE", "/v1/identities/identity")


def test_remove_after_a_rotation_without_a_terminal(run: Run, stub: Stub) -> None:
    """Only vaultd has the new key's secret and knows of the old key: refused, until --yes says so."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [ROTATED]})
    stub.answers[FORGET] = (200, {})
    refused = run("remove", "identity")
    asked = list(stub.asked(*FORGET))
    done = run("remove", "identity", "--yes")

    assert (refused.status, asked) == (3, [])
    lost = "…AJQ6 is stored nowhere else, and …IN01 stays Inactive and is deleted by nobody"
    assert lost in refused.err
    assert "type `vault-client rotate identity --grace 0s`\n" in refused.err
    assert refused.err.endswith("no terminal to ask on: type `vault-client remove identity --yes`\n")
    assert (done.status, len(stub.asked(*FORGET))) == (0, 1)
    assert lost in done.err


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("\n", 1), ("\x03", 130)])
@pytest.mark.parametrize(
    ("identity", "question"),
    [
        (ROTATED, "remove identity, key …AJQ6? [y/N] "),
        (IDENTITY, "remove identity, key …WXYZ (its secret may be stored nowhere else)? [y/N] "),
    ],
)
def test_remove_asks_on_a_terminal(
    terminal: Callable[..., OnTerminal],
    stub: Stub,
    identity: dict[str, object],
    question: str,
    answer: str,
    status: int,
) -> None:
    """Once, with what is lost; anything but yes removes nothing, and says how to do it after all."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [identity]})
    stub.answers[FORGET] = (200, {})
    asking = terminal("remove", "identity")
    shown = asking.until(question)
    asking.type(answer)
    ended = asking.end()

    assert ("…IN01 stays Inactive" in shown) == (identity is ROTATED)
    assert (ended.status, len(stub.asked(*FORGET))) == (status, int(status == 0)), ended
    assert ("nothing was removed" in ended.err) == (status != 0)


PUT = ("POST", "/v1/identities")
FROM_ENV = {"AWS_ACCESS_KEY_ID": KEY["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": SECRET}


def test_add_replace_over_a_rotation_without_a_terminal(run: Run, stub: Stub) -> None:
    """As `remove`: what only vaultd has of the rotation goes where the daemon takes the key, so --yes has to say so."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [ROTATED]})
    stub.answers[PUT] = (201, {**IDENTITY, "warnings": ["the rotation of identity is forgotten: x; type `y`"]})
    refused = run("add", "identity", "--replace", "--from-env", **FROM_ENV)
    asked = list(stub.asked(*PUT))
    done = run("add", "identity", "--replace", "--from-env", "--yes", **FROM_ENV)

    assert (refused.status, asked) == (3, [])
    lost = "…AJQ6 is stored nowhere else, and …IN01 stays Inactive and is deleted by nobody"
    assert lost in refused.err
    assert "type `vault-client rotate identity --grace 0s`\n" in refused.err
    assert refused.err.endswith("no terminal to ask on: type `vault-client add identity --replace --yes`\n")
    assert (done.status, len(stub.asked(*PUT))) == (0, 1)
    assert lost in done.err
    assert "warning: the rotation of identity is forgotten" in done.err

    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY]})
    assert run("add", "identity", "--replace", "--from-env", **FROM_ENV).status == 0, "control: nothing is lost"


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("\n", 1), ("\x03", 130)])
def test_add_replace_over_a_rotation_asks_on_a_terminal(
    terminal: Callable[..., OnTerminal], stub: Stub, answer: str, status: int
) -> None:
    """Before a secret is typed; anything but yes stores nothing."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [ROTATED]})
    stub.answers[PUT] = (201, IDENTITY)
    asking = terminal("add", "identity", "--replace")
    shown = asking.until("replace the key of identity, key …AJQ6? [y/N] ")
    assert "Access key ID" not in shown
    asking.type(answer)
    if status == 0:
        asking.until("Access key ID: ")
        asking.type(KEY["AccessKeyId"] + "\n")
        asking.until("Secret access key: ")
        asking.type(SECRET + "\n")
    ended = asking.end()

    assert (ended.status, len(stub.asked(*PUT))) == (status, int(status == 0)), ended
    assert ("nothing was stored" in ended.err) == (status != 0)


# ---- sessions ----


def test_mfa_when_the_session_lives(run: Run, stub: Stub) -> None:
    """Nothing is asked, and until when is said where known."""
    stub.answers["POST", "/v1/prompts"] = (200, {"live": True})
    ended = run("mfa", "identity")

    said = "vault-client: no question about identity is open, and the MFA session lives already\n"
    assert (ended.status, ended.err) == (0, said)
    assert stub.asked("POST", "/v1/prompts") == [{"identity": "identity"}]
    assert run("mfa").err == "vault-client: no question is open, and the MFA session lives already\n"


def test_mfa_of_several_identities(run: Run, stub: Stub) -> None:
    """None pending and several identities: 2, naming them."""
    said = "several identities: name one of a, b"
    stub.answers["POST", "/v1/prompts"] = error(400, "BadRequest", said, 2)
    ended = run("mfa")

    assert (ended.status, ended.err) == (2, f"vault-client: {said}\n")
    assert stub.asked("POST", "/v1/prompts") == [{}]


def test_mfa_with_a_code(run: Run, stub: Stub) -> None:
    """The code goes along; a daemon that hands the question back gets it there."""
    stub.answers["POST", "/v1/prompts"] = [(200, {}), (201, PROMPT)]
    first = run("mfa", "--token-code", "123456")
    second = run("mfa", "--token-code", "123456")

    assert first.err == "vault-client: the MFA session is open\n"
    assert second.err == "vault-client: the MFA session of identity is open: its profiles need no code for now\n"
    assert stub.asked("POST", "/v1/prompts") == [{"token_code": "123456"}] * 2
    assert stub.asked("POST", "/v1/prompts/q1") == [{"token_code": "123456"}]


def test_mfa_tells_of_the_next_question(run: Run, stub: Stub) -> None:
    """The oldest is answered first: whoever came for another one is told that it waits. Control: none is open."""
    stub.answers["POST", "/v1/prompts"] = (201, PROMPT)
    wish = {**PROMPT, "id": "q2", "kind": "consent", "profile": "oth\x1ber"}
    stub.answers["GET", "/v1/prompts"] = [(200, {"prompts": [wish]}), (200, {"prompts": []})]
    opened = "vault-client: the MFA session of identity is open: its profiles need no code for now\n"
    first, last = run("mfa", "--token-code", "123456"), run("mfa", "--token-code", "123456")

    assert (first.status, last.status) == (0, 0)
    assert first.err == f"{opened}vault-client: another question is open, for oth?er: type `vault-client mfa`\n"
    assert last.err == opened


def test_mfa_with_a_wrong_code(run: Run, stub: Stub) -> None:
    """Exit 1 with the daemon's sentence."""
    stub.answers["POST", "/v1/prompts"] = mfa_required()
    ended = run("mfa", "--token-code", "123456")

    assert (ended.status, ended.err) == (1, "vault-client: web-admin needs a code: type `vault-client mfa identity`\n")


def test_refresh(run: Run, stub: Stub) -> None:
    """A new session, and until when."""
    ended = run("refresh", "web-admin", "--token-code", "123456")

    assert ended.status == 0
    assert re.fullmatch(r"vault-client: web-admin has a new session until 2099-11-2\d \d\d:00\n", ended.err)
    assert stub.asked("POST", "/v1/profiles/web-admin/refresh") == [{"token_code": "123456"}]


def test_clear(run: Run, stub: Stub) -> None:
    """One profile's role sessions, or everything."""
    assert "dropped the sessions of web-admin" in run("clear", "web-admin").err
    assert "dropped all sessions, MFA sessions too" in run("clear").err
    assert [path for _, path, _ in stub.requests] == ["/v1/sessions?profile=web-admin", "/v1/sessions"]


def test_lock(run: Run, stub: Stub) -> None:
    """Says what still lives."""
    ended = run("lock")

    assert ended.err == (
        "vault-client: locked: nothing is served until `vault-client unlock`. Keys that were handed out live until "
        "they expire\n"
    )
    assert stub.asked("POST", "/v1/lock") == [{}]


def test_unlock_asks_nothing_of_a_keyring(run: Run, stub: Stub) -> None:
    """The keyring asks for itself."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "store": "keyring", "locked": True})
    ended = run("unlock")

    assert (ended.status, ended.err) == (0, "vault-client: unlocked: sessions that still live are served again\n")
    assert stub.asked("POST", "/v1/unlock") == [{}]


def test_unlock_when_open(run: Run, stub: Stub) -> None:
    """Nothing to do is exit 0."""
    ended = run("unlock")

    assert (ended.status, ended.err) == (0, "vault-client: it is not locked\n")
    assert stub.asked("POST", "/v1/unlock") == []


def test_unlock_from_stdin(process: Run, stub: Stub) -> None:
    """The passphrase as one line; blanks at its ends belong to it."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "locked": True})
    ended = process("unlock", "--stdin", stdin=" pass phrase \nrest")

    assert ended.status == 0
    assert stub.asked("POST", "/v1/unlock") == [{"passphrase": " pass phrase "}]


def test_unlock_with_nothing_on_stdin(process: Run, stub: Stub) -> None:
    """No line, no request."""
    ended = process("unlock", "--stdin")

    assert (ended.status, ended.err) == (2, "vault-client: stdin is empty: give the passphrase as one line\n")
    assert stub.asked("POST", "/v1/unlock") == []


@pytest.mark.parametrize(("given", "said"), [
    (b"\xff\xfe\n", "not UTF-8 text"), (b"a" * 10_000 + b"\n", "too long for a passphrase"),
])  # fmt: skip
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_unlock_with_what_is_no_passphrase(stub: Stub, given: bytes, said: str, locale: str) -> None:
    """Said of stdin, not of the JSON that would have been made of it; nothing is sent, whatever the locale reads."""
    command = [*CLIENT, "unlock", "--stdin"]
    seen = environment(stub, LC_ALL=locale)
    ended = subprocess.run(command, input=given, env=seen, capture_output=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr.decode() == f"vault-client: what stdin gave is {said}: give the passphrase as one line\n"
    assert stub.asked("POST", "/v1/unlock") == []


@pytest.mark.parametrize("command", ["status", "status --json", "grants", "list", "list --json", "unlock"])
def test_a_look_at_a_daemon_that_hangs(run: Run, stub: Stub, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It needs nobody but the daemon, so it does not wait as long as for AWS. Control: one that answers."""
    assert run(*command.split()).status == 0
    monkeypatch.setattr(show, "LOOK", 0.05)
    monkeypatch.setattr(sessions, "LOOK", 0.05)
    over = threading.Event()

    def hang(_: object) -> Answer:
        over.wait(20)
        return 200, STATUS

    for path in ("/v1/status", "/v1/grants", "/v1/profiles"):
        stub.answers["GET", path] = hang
    ended = run(*command.split())
    over.set()

    assert (ended.status, ended.out) == (69, "")  # no object that says what nobody knows
    assert "vaultd does not answer" in ended.err


def test_unlock_without_terminal(process: Run, stub: Stub) -> None:
    """The file store needs a person: exit 3, and the way without one."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "locked": True})
    ended = process("unlock")

    assert ended.status == 3
    assert ended.err == (
        "vault-client: there is no terminal to ask for the passphrase on: type `vault-client unlock` in one, or give "
        "it with --stdin\n"
    )


def test_revoke(run: Run, stub: Stub) -> None:
    """One grant; an unknown one is the daemon's 1."""
    unknown = error(404, "UnknownGrant", "no grant nope: type `vault-client grants`", 1)
    stub.answers["DELETE", "/v1/grants/nope"] = unknown

    assert run("revoke", "g1").err == "vault-client: revoked g1; keys that it was handed live until they expire\n"
    ended = run("revoke", "nope")
    assert (ended.status, ended.err) == (1, "vault-client: no grant nope: type `vault-client grants`\n")


def test_revoke_all_prints_the_policy(run: Run, stub: Stub) -> None:
    """What we cannot end, AWS can: the policy is on stdout, to be pasted."""
    ended = run("revoke", "--all")
    statement = json.loads(ended.out)["Statement"][0]

    assert ended.status == 0
    assert stub.asked("DELETE", "/v1/grants") == [None]
    assert statement["Effect"] == "Deny"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"]
    )
    assert "attach this policy to the roles or users:" in ended.err


# ---- keys carried elsewhere ----

LINES = {
    "env": "export AWS_ACCESS_KEY_ID='ASIAEXAMPLE000000001';",
    "fish": "set -gx AWS_ACCESS_KEY_ID 'ASIAEXAMPLE000000001';",
    "powershell": "$env:AWS_ACCESS_KEY_ID = 'ASIAEXAMPLE000000001';",
    "dotenv": "AWS_ACCESS_KEY_ID=ASIAEXAMPLE000000001",
    "ini": "[web-admin]\naws_access_key_id = ASIAEXAMPLE000000001\naws_secret_access_key = " + SECRET,
}


@pytest.mark.parametrize("chosen", list(LINES))
def test_export_formats(run: Run, chosen: str) -> None:
    """Each text format has all three values."""
    ended = run("export", "web-admin", "--format", chosen)

    assert ended.status == 0
    assert ended.out.startswith(LINES[chosen])
    assert SECRET in ended.out
    assert KEYS["Token"] in ended.out


def test_export_json_and_process(run: Run) -> None:
    """`json` is the endpoint's body; process is what the AWS CLI reads from credential_process; env is the default."""
    process = json.loads(run("export", "web-admin", "--format", "process").out)

    assert json.loads(run("export", "web-admin", "--format", "json").out) == KEYS
    assert process == {
        "Version": 1,
        "AccessKeyId": KEYS["AccessKeyId"],
        "SecretAccessKey": SECRET,
        "SessionToken": KEYS["Token"],
        "Expiration": "2099-11-22T20:00:00Z",
        "AccountId": "234567890123",
    }
    assert json.loads(run("credential-process", "web-admin").out) == process
    assert run("export", "web-admin").out == run("export", "web-admin", "--format", "env").out


def test_credential_process_waits_for_somebody(run: Run, stub: Stub) -> None:
    """It asks the daemon, waits without being an asker, and goes on when the question was answered elsewhere."""
    path = "/v1/profiles/web-admin/credentials"
    stub.answers["GET", path] = [mfa_required(), (200, KEYS)]
    stub.finish("answered")
    ended = run("credential-process", "web-admin")

    assert ended.status == 0
    assert json.loads(ended.out)["AccessKeyId"] == KEYS["AccessKeyId"]
    assert stub.asked("GET", "/v1/prompts/q1?wait&attend") == [None]
    assert stub.asked("POST", "/v1/prompts/q1") == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("expired", "nobody answered the question for identity in time: type `vault-client mfa identity`"),
        (
            "cancelled",
            "the question for identity was cancelled elsewhere: wait 30 s, then type `vault-client mfa identity`",
        ),
    ],
)
def test_credential_process_gives_up_with_3(run: Run, stub: Stub, outcome: str, said: str) -> None:
    """No answer: exit 3, nothing on stdout."""
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = mfa_required()
    stub.finish(outcome)
    ended = run("credential-process", "web-admin")

    assert (ended.status, ended.out, ended.err) == (3, "", f"vault-client: {said}\n")


# ---- what is shown ----


def test_list(run: Run, stub: Stub) -> None:
    """Profile, account, role, identity, MFA, state, time left; or what to do when there is none."""
    head, row = run("list").out.splitlines()
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": []})

    assert head.split() == ["PROFILE", "ACCOUNT", "ROLE", "IDENTITY", "MFA", "SESSION", "LEFT"]
    assert row.split() == ["web-admin", "234567890123", "WebAdmin", "identity", "franklin", "fresh", "55m"]
    assert run("list").err == (
        "vault-client: there is no profile: write one to ~/.aws/config (`vault-client explain PROFILE` then tells its "
        "plan)\n"
    )


def test_list_tells_where_the_reasons_are(run: Run, stub: Stub) -> None:
    """`error` without why is half a word; control: rows without one, and scripts, are told nothing."""
    bad = {**PROFILE, "state": "error", "last_error": {"code": "BadProfile", "message": "mend it", "time": None}}
    assert run("list").err == ""
    for rows, said in (([bad], "1 profile is"), ([PROFILE, bad, bad], "2 profiles are")):
        stub.answers["GET", "/v1/profiles"] = (200, {"profiles": rows})
        assert run("list").err == f"vault-client: {said} in error: for why, type `vault-client status`\n"
        assert run("list", "--json").err == ""


@pytest.mark.parametrize(("profiles", "status"), [([PROFILE], 0), ([], 78)])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_list_tells_a_broken_config(
    run: Run, stub: Stub, profiles: list[object], status: int, options: tuple[str, ...]
) -> None:
    """Rows of before the file broke are shown, with a word; without any the list is no answer, but 78."""
    said = "~/.aws/config:2: this is not UTF-8 text; save it as UTF-8."
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": profiles, "trouble": [said]})
    ended = run("list", *options)

    assert (ended.status, ended.err) == (status, f"vault-client: {said}\n")
    assert ("web-admin" in ended.out) is bool(profiles)


def test_explain_tells_the_last_error(run: Run, stub: Stub) -> None:
    """Its message says `run vault-client explain`, but not there, where something has gone wrong. Control: of another
    profile's, nothing.
    """
    said = "AWS refused: sts:AssumeRole; run `vault-client explain web-admin`"
    error = {"code": "RoleDenied", "message": said, "time": None}
    rows = [{**PROFILE, "last_error": error}, {**PROFILE, "profile": "other"}]
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": rows})
    for name in ("web-admin", "other"):
        plan: dict[str, Any] = {"profile": name, "identity": "identity", "steps": [], "problems": []}
        stub.answers["GET", f"/v1/profiles/{name}/plan"] = (200, plan)

    shown = run("explain", "web-admin").out
    assert shown.endswith("\nthe last try failed:\n  - AWS refused: sts:AssumeRole\n")
    assert "nothing is known that would go wrong" not in shown
    other = run("explain", "other").out
    assert "the last try" not in other
    assert "nothing is known that would go wrong" in other


def test_a_shell_by_eval_is_held_by_no_dead_process(run: Run, stub: Stub) -> None:
    """The process that asked for the lines is gone. Control: who lives, a subshell say, is shown."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid, holder in ((dead.pid, "a shell, by eval"), (os.getpid(), f"zsh ({os.getpid()})")):
        peer = {"pid": pid, "uid": 0, "exe": "/bin/zsh", "argv0": "zsh", "started": None}
        stub.answers["GET", "/v1/grants"] = (200, {"grants": [{**GRANT_ROW, "kind": "shell", "peer": peer}]})

        assert f"  {holder}  " in run("grants").out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"created": True}, "made a new store: nothing opens it but this passphrase"),
        ({"open": True}, "it was open already, so the passphrase was not checked"),
        ({}, "unlocked: sessions that still live are served again"),
    ],
)
def test_unlock_says_what_it_did(process: Run, stub: Stub, answer: dict[str, bool], said: str) -> None:
    """A new store is not the old one, and an open one tells nothing about a passphrase."""
    stub.answers["POST", "/v1/unlock"] = (200, answer)

    assert process("unlock", "--stdin", stdin="secret\n").err.startswith(f"vault-client: {said}")


@pytest.mark.parametrize("answer", [{"live": True}, {}])
def test_mfa_says_until_when(run: Run, stub: Stub, answer: dict[str, Any]) -> None:
    """Whether it lived already or has just been opened."""
    stub.answers["POST", "/v1/prompts"] = (200, {**answer, "expiration": "2099-11-22T20:00:00Z"})

    assert " until 2099-11-22 " in run("mfa", "identity", "--token-code", "123456").err


def test_status(run: Run, stub: Stub) -> None:
    """Healthy: one line, identities, profiles, grants."""
    text = run("status").out

    assert text.startswith(
        "vaultd 0.1.0 · pid 42 · http://127.0.0.1:9169 · store file · unlocked\nidentities: identity\n"
    )
    assert "web-admin" in text
    assert "terraform (4711)" in text
    assert "clock" not in text
    assert "lost" not in text


def test_status_tells_what_is_wrong(run: Run, stub: Stub) -> None:
    """Lock, clock, lost audit lines, a broken config file, open questions, a profile's last error."""
    refused = {"code": "RoleDenied", "message": "AWS refused WebAdmin: look at its trust policy", "time": None}
    stub.answers["GET", "/v1/status"] = (
        200,
        {
            **STATUS,
            "locked": True,
            "clock_skew_seconds": -421.0,
            "lost_audit_lines": 3,
            "trouble": "~/.aws/config:7: no section [profile x]: mend it",
            "prompts": [PROMPT],
            "identities": [],
            "profiles": [{**PROFILE, "state": "error", "last_error": refused}],
        },
    )
    lines = run("status").out.splitlines()

    assert lines[0].endswith(" · locked: type `vault-client unlock`")
    assert lines[1] == "clock is 7 minutes behind AWS: AWS refuses signatures from 15 minutes on, so set the clock"
    assert lines[2] == "3 audit lines could not be written: free space for /x/vaultd.log"
    assert lines[3] == "~/.aws/config:7: no section [profile x]: mend it"
    assert lines[4] == (
        "web-admin waits for a code (asked by zsh (pid 4711, /usr/bin/zsh)): type `vault-client mfa identity`"
    )
    assert lines[5] == "identities: none: type `vault-client add IDENTITY`"
    assert "web-admin: AWS refused WebAdmin: look at its trust policy" in lines


def test_grants(run: Run, stub: Stub) -> None:
    """Who, which profile, since when, last use; or how one is made."""
    head, row = run("grants").out.splitlines()
    stub.answers["GET", "/v1/grants"] = (200, {"grants": []})

    assert head.split("  ")[0] == "GRANT"
    assert row.split()[:5] == ["g1", "web-admin", "exec", "terraform", "(4711)"]
    assert "never" in row
    assert run("grants").err == (
        "vault-client: nobody holds a token: `vault-client use PROFILE` or `vault-client exec PROFILE -- CMD` makes "
        "one\n"
    )


def test_grants_with_a_door(run: Run, stub: Stub) -> None:
    """Where it is served, in `grants`, in `status`, and as the daemon's own object in --json."""
    doors = [{"address": "127.0.0.1", "port": 39433}, {"address": "169.254.169.254", "port": 80}]
    listed = [
        {**GRANT_ROW, "kind": "shell", "imds": True, "door": doors[0]},
        {**GRANT_ROW, "id": "g2", "kind": "lease", "imds": True, "door": doors[1]},
        {**GRANT_ROW, "id": "g3"},
    ]
    stub.answers["GET", "/v1/grants"] = (200, {"grants": listed})
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "grants": listed})

    for text in (run("grants").out, run("status").out):
        assert "  shell · imds 127.0.0.1:39433  " in text
        assert "  lease · imds 169.254.169.254:80  " in text
        assert "g3     web-admin  exec  " in text
    assert [each["door"] for each in json.loads(run("grants", "--json").out)["grants"]] == [*doors, None]


def test_help_of_one_command(run: Run) -> None:
    """An option is told as this command means it, and the dialects are shown by example."""
    assert "only this profile's lines\n" in run("log", "--help").out
    assert "doctor" not in run("log", "--help").out
    assert "--profile P               --sdk for a tool that is told --profile P\n" in run("doctor", "--help").out
    assert (
        '\nFor example:\n  eval "$(vault-client use PROFILE)"\n  eval "$(vault-client use --imds PROFILE)"\n'
        in run("use", "--help").out
    )
    assert "vault-client exec --imds PROFILE -- CMD\n" in run("exec", "--help").out


def test_explain(run: Run, stub: Stub) -> None:
    """Step by step, the source of each value, and what would go wrong."""
    value = {"field": "role_arn", "value": "arn:aws:iam::2:role/R", "source": "~/.aws/config:4"}
    plan: dict[str, Any] = {
        "profile": "web-admin",
        "identity": "identity",
        "steps": [
            {"kind": "mfa_session", "source": "identity key", "values": []},
            {"kind": "assume_role", "source": "mfa_session", "values": [value]},
        ],
        "problems": ["region us-east-9 is unknown: choose another"],
    }
    callers = {"protected": True, "allow_executables": ["/usr/bin/aws", "~/x.py"], "relays": ["ssh"]}
    stub.answers["GET", "/v1/profiles/web-admin/plan"] = [
        (200, plan),
        (200, {**plan, "problems": []}),
        (200, {**plan, "callers": callers}),
        (200, {**plan, "callers": {"protected": False, "allow_executables": None, "relays": []}}),
    ]
    lines = run("explain", "web-admin").out.splitlines()

    assert lines[0] == "web-admin of identity identity"
    assert lines[1] == "1. GetSessionToken with an MFA code, signed with the identity key"
    assert lines[2] == "2. AssumeRole, signed with the mfa session"
    assert lines[3].split() == ["role_arn", "arn:aws:iam::2:role/R", "~/.aws/config:4"]
    assert lines[-2:] == ["what would go wrong:", "  - region us-east-9 is unknown: choose another"]
    assert run("explain", "web-admin").out.endswith("\nnothing is known that would go wrong\n")
    policies = run("explain", "web-admin").out.splitlines()
    assert policies[4:10] == [
        "   its session now: fresh, 55m left",
        "",
        "which programs are given its keys:",
        "  - only /usr/bin/aws, ~/x.py (allow_executables)",
        "  - each program only after a person has allowed it (protected)",
        "  - also ssh, which others may stand behind (relays)",
    ]
    assert run("explain", "web-admin").out.splitlines() == lines, "control: any program of this user"


SERVE = {
    "time": "2026-11-22T19:00:00Z",
    "event": "credentials.serve",
    "profile": "web-admin",
    "peer": {"pid": 7, "uid": 1, "exe": "/usr/bin/python3.11", "argv0": "/opt/tf/terraform", "started": "x"},
    "decision": "allow",
    "count": 3,
    "seq": 9,
}


def test_log(run: Run, stub: Stub) -> None:
    """One line an event: when, what, for whom, why."""
    stub.answers["GET", "/v1/audit?profile=web-admin"] = (200, {"events": [SERVE]})

    assert run("log", "--profile", "web-admin").out == (
        "2026-11-22T19:00:00Z  credentials.serve   web-admin  terraform (7)  decision=allow  count=3\n"
    )


def test_log_follows_without_gap_or_double(process: Run, stub: Stub) -> None:
    """-f subscribes before it reads the past, shows a line once, and only the profile that was asked for."""
    stub.answers["GET", "/v1/audit?profile=web-admin"] = (200, {"events": [SERVE]})
    stub.emit(SERVE)
    stub.emit({**SERVE, "seq": 10, "profile": "other"})
    stub.emit({**SERVE, "seq": 11})
    stub.events.put(None)
    ended = process("log", "-f", "--json", "--profile", "web-admin")

    assert [json.loads(line)["seq"] for line in ended.out.splitlines()] == [9, 11]
    assert [path for _, path, _ in stub.requests] == ["/v1/events", "/v1/audit?profile=web-admin"]
    assert (ended.status, ended.err) == (69, "vault-client: vaultd has stopped: type `vaultd start`\n")


def test_status_watch(process: Run, stub: Stub) -> None:
    """A line whenever something changed, until the daemon stops."""
    seen: list[int] = []

    def status(_: object) -> Answer:
        seen.append(1)
        if len(seen) == 1:
            return 200, STATUS
        stub.events.put(None)
        return 200, {**STATUS, "locked": True}

    stub.answers["GET", "/v1/status"] = status
    stub.emit(SERVE)
    ended = process("status", "--watch", "--json")

    assert [json.loads(line)["locked"] for line in ended.out.splitlines()] == [False, True]
    assert (ended.status, ended.err) == (69, "vault-client: vaultd has stopped: type `vaultd start`\n")
