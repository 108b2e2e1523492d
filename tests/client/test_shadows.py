"""What `use` and `exec` warn of, in the caller's own files (interface.md §3, last sentence of `use`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import botocore.credentials as theirs
import pytest

from tests.client.conftest import Run
from tests.client.stub import Stub, environment
from tests.client.test_start import FORBIDDEN, PROBE, SOURCES
from vault_client import shadows
from vault_client.shell import Fish, Posix, PowerShell

CANARY = "canary-secret-of-the-file"
KEYS = f"aws_access_key_id = AKIA{CANARY}\naws_secret_access_key = {CANARY}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with ~/.aws."""
    (tmp_path / "h/.aws").mkdir(parents=True)
    return tmp_path / "h"


def warnings(ended: str) -> list[str]:
    """The warnings of a command's stderr."""
    head = "vault-client: warning: "
    return [line.removeprefix(head) for line in ended.splitlines() if line.startswith(head)]


FILES = [
    (
        "credentials",
        "# x\n[default]\n" + KEYS,
        "aws_access_key_id of [default] in {}:3",
        "rename that section to [NAME]",
    ),
    ("config", "[default]\nregion = x\nsso_session = s\n", "sso_session of [default] in {}:3", "[profile NAME]"),
    (
        "config",
        "[profile default]\ncredential_process = x\n",
        "credential_process of [profile default] in {}:2",
        "or r",
    ),
    ("config", "[default]\nrole_arn = x\n", "role_arn of [default] in {}:2", "or remove the line"),
    ("config", "[default]\nweb_identity_token_file = x\n", "web_identity_token_file of [default] in {}:2", "remove"),
    ("config", "[default]\nx\n", "{}:2: the AWS CLI cannot read this line", "mend that line"),
    ("credentials", "\ufeff[default]\n", "{}:1: the file begins with a byte order mark", "mend that line"),
    ("credentials", "[DEFAULT]\n" + KEYS + "[default]\n", "aws_access_key_id of [default] in {}:2", "remove the line"),
]


@pytest.mark.parametrize(("name", "text", "said", "remedy"), FILES, ids=range(len(FILES)))
@pytest.mark.parametrize("form", ["", "--imds"])
def test_what_goes_before_the_endpoint(
    process: Run, home: Path, name: str, text: str, said: str, remedy: str, form: str
) -> None:
    """file:line, what is preferred, what to do; once; no value; and the lines come out all the same."""
    path = home / ".aws" / name
    path.write_text(text)
    ended = process("use", "web-admin", *form.split(), "--shell", "sh", HOME=str(home))
    (warning,) = warnings(ended.err)

    assert ended.status == 0
    assert said.format(path) in warning
    assert remedy in warning.rpartition(": ")[2]
    assert CANARY not in ended.err + ended.out
    run = process("exec", "web-admin", *form.split(), "--", "true", HOME=str(home))
    assert warnings(run.err) == [warning]


HARMLESS = [
    ("config", "[default]\nregion = eu-west-1\ns3 =\n  role_arn = x\n"),
    ("config", "[profile a]\n" + KEYS),
    ("config", "[default]\n# role_arn = x\n"),
    ("credentials", "[a]\n" + KEYS),
    ("credentials", "[profile default]\n" + KEYS),
    ("credentials", "[default]\n"),
]


@pytest.mark.parametrize(("name", "text"), HARMLESS, ids=range(len(HARMLESS)))
def test_what_does_no_harm(process: Run, home: Path, name: str, text: str) -> None:
    """A region alone, another section, a comment (sdk-facts §1)."""
    (home / ".aws" / name).write_text(text)

    assert warnings(process("use", "web-admin", "--shell", "sh", HOME=str(home)).err) == []


def test_the_callers_own_files_are_looked_at(process: Run, home: Path, tmp_path: Path) -> None:
    """Where the variables of this shell point, not where the daemon's did."""
    (home / ".aws/credentials").write_text("[default]\n" + KEYS)
    mine = tmp_path / "mine"
    mine.write_text("[default]\nlogin_session = x\n")
    named = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_CONFIG_FILE": str(mine)}
    (warning,) = warnings(process("use", "web-admin", "--shell", "sh", HOME=str(home), **named).err)

    assert f"login_session of [default] in {mine}:2" in warning


def test_what_the_daemon_says_is_said_once(process: Run, stub: Stub) -> None:
    """Two sources of warnings, one list."""
    stub.answers["POST", "/v1/grants"] = (201, stub.grant(warnings=["a: b", "a: b"]))

    assert warnings(process("use", "web-admin", "--shell", "sh").err) == ["a: b"]


def test_botos_files_of_old(process: Run, home: Path) -> None:
    """Botocore looks at them before the endpoint still."""
    (home / ".boto").write_text("[Credentials]\n" + KEYS)
    said = warnings(process("use", "web-admin", "--shell", "sh", HOME=str(home), AWS_CREDENTIAL_FILE="/x").err)

    assert f"{home}/.boto:2" in said[0]
    assert said[1].endswith(": unset AWS_CREDENTIAL_FILE")


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [("0", "--imds", "is 0, so that botocore never asks"), ("soon", "", "is no whole number"), ("0", "", None),
     ("5", "--imds", None), ("", "--imds", "is no whole number"), ("-1", "--imds", "is 0, so that")],
)  # fmt: skip
def test_metadata_numbers(process: Run, value: str, form: str, said: str | None) -> None:
    """What no variable of ours replaces and keeps botocore from the metadata endpoint, or from everything."""
    options = [*form.split(), "--shell", "sh"]
    found = warnings(process("use", "web-admin", *options, AWS_METADATA_SERVICE_NUM_ATTEMPTS=value).err)

    assert (len(found) == 0) if said is None else (said in found[0])


def test_static_keys_are_warned_of_by_nobody(process: Run, home: Path) -> None:
    """`exec --env` uses no endpoint: keys in the environment go before every file."""
    (home / ".aws/credentials").write_text("[default]\n" + KEYS)

    assert process("exec", "web-admin", "--env", "--", "true", HOME=str(home)).err == ""


def test_a_default_costs_no_slow_module(stub: Stub, home: Path) -> None:
    """With a file to look at `use` loads no configparser: the start-up's budget stays (performance.md)."""
    (home / ".aws/credentials").write_text("[default]\n" + KEYS)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(SOURCES), "use", "web-admin", "--shell", "sh"],
        env=environment(stub, HOME=str(home)), capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    found = set(done.stderr.rpartition("loaded: ")[2].split())

    assert "aws_access_key_id of [default]" in done.stderr  # control: the file was looked at
    assert "vault_client.shadows" in found
    assert not found & FORBIDDEN


def test_what_to_type_in_each_shell() -> None:
    """The remedy is in the caller's own shell's words."""
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    said = [shadows.in_variables(environ, shell)[0].remedy for shell in (Posix(), Fish(), PowerShell())]

    assert said == [
        "type unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY",
        "type set -e AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY",
        "type Remove-Item Env:AWS_ACCESS_KEY_ID, Env:AWS_SECRET_ACCESS_KEY",
    ]


def test_the_sources_are_botocores() -> None:
    """Control: every key by which botocore takes a [default] for a source is one that is warned of."""
    known = {theirs.SharedCredentialProvider.ACCESS_KEY, theirs.AssumeRoleProvider.ROLE_CONFIG_VAR,
             "sso_role_name", "sso_account_id", "credential_process", "login_session",
             theirs.AssumeRoleProvider.WEB_IDENTITY_TOKE_FILE_VAR}  # fmt: skip

    assert known <= set(shadows.SOURCES)
    assert os.environ.get("AWS_PROFILE") is None  # scrubbed by the autouse fixture
