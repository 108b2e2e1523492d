"""`export` in every format, and `credential-process`, read back by the tools they are for, with keys as long as AWS's.

Node, docker and Terraform are read back by tests/sdk/test_carried.py, where there are programs of theirs.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import botocore.session
import dotenv
import pytest

from tests.client.conftest import CLIENT, Run
from tests.client.shells import FLAGS, NAMES
from tests.client.stub import KEYS, Stub, environment, mfa_required

#: With all that base64 has, at every place, and longer than the longest token that AWS is known to give (4 kB).
SECRET = "/+wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE="
LONG = "IQoJb3JpZ2luX2VjE" + "Z+/a9=" * 900 + "=="
GIVEN = {**KEYS, "SecretAccessKey": SECRET, "Token": LONG}
WANTED = {
    "AWS_ACCESS_KEY_ID": GIVEN["AccessKeyId"],
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": LONG,
    "AWS_CREDENTIAL_EXPIRATION": GIVEN["Expiration"],
}
SHELLS = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("bash", "dash", "zsh")]
#: Each breaks a line for one of the readers of ini or dotenv.
ODD = ("a b", "a #b", "#a", "'a'", '"a"', "${HOME}", "a\\nb", "a\nb", "a\u2028b", " a", "a\r", "ü", "`a`", "a;b")


@pytest.fixture
def carried(stub: Stub) -> Stub:
    """A daemon whose session has those keys."""
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = (200, GIVEN)
    return stub


def evaluated(shell: list[str], script: str, stub: Stub) -> dict[str, str]:
    """The variables of a program started by a shell after that script."""
    done = subprocess.run(
        [*shell, "-c", f"{script}\nenv -0"], env=environment(stub, AWS_SESSION_TOKEN="old"), cwd=stub.home,
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == b""
    found = dict(line.partition("=")[::2] for line in done.stdout.decode().split("\0") if line)
    return {name: found.get(name, "") for name in WANTED}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("script", ['eval "$({})"', "eval $({})", "{} > k && . ./k"])
def test_env_in_a_shell(shell: str, script: str, carried: Stub) -> None:
    """`env` by eval with quotes, without, and from a file: what a program then has is what AWS gave."""
    line = script.format(" ".join([*CLIENT, "export", "web-admin"]))

    assert evaluated([shell, *FLAGS.get(shell, [])], line, carried) == WANTED


@pytest.mark.needs("fish")
def test_fish(carried: Stub) -> None:
    """`fish` by `| source`, which is how fish evaluates."""
    line = " ".join([*CLIENT, "export", "web-admin", "--format", "fish", "|", "source"])

    assert evaluated(["fish"], line, carried) == WANTED


def test_powershell_by_its_rules(carried: Stub, run: Run) -> None:
    """No PowerShell was to be had: each line is an assignment of a single-quoted string, where a quote is two quotes
    and nothing else means anything (about_Quoting_Rules). Control: the rule tells an unquoted value.
    """
    lines = run("export", "web-admin", "--format", "powershell").out.splitlines()
    rule = re.compile(r"\$env:([A-Z_]+) = '((?:[^'‘’‚‛]|'')*)';")

    assert {each[1]: each[2].replace("''", "'") for line in lines if (each := rule.fullmatch(line))} == WANTED
    assert not rule.fullmatch("$env:AWS_SESSION_TOKEN = $(touch PWNED);")


@pytest.mark.parametrize("profile", ["web-admin", "default", *NAMES, "a]b", "profile x", "a # b"])
def test_ini_by_botocore(profile: str, run: Run, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ini` appended to a credentials file that has other sections: botocore's loader gives that profile these keys,
    whatever it is called, and the others their own.
    """
    file = tmp_path / "credentials"
    file.write_text("[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n")
    stub.answers["GET", f"/v1/profiles/{profile}/credentials"] = (200, GIVEN)
    ended = run("export", "--format", "ini", "--", profile)
    assert ended.status == 0, ended
    file.write_text(file.read_text() + ended.out)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    assert _keys(profile) == (GIVEN["AccessKeyId"], SECRET, LONG)
    assert _keys("other") == ("AKIAOTHER", "other", None)


@pytest.mark.parametrize(
    ("profile", "told"), [("web-admin", False), ("a/b%c@d:e+f_g.h", False), ("team prod", True), ("ü", True)]
)
def test_a_section_that_most_cannot_read(profile: str, told: bool, run: Run, stub: Stub) -> None:
    """JavaScript, Java, Rust and the C++ SDKs pass over a section whose name AWS's reference does not allow (measured
    with a blank): said on stderr, and the text is printed all the same.
    """
    stub.answers["GET", f"/v1/profiles/{profile}/credentials"] = (200, GIVEN)
    ended = run("export", profile, "--format", "ini")

    assert ended.status == 0
    assert ended.out.startswith(f"[{profile}]\n")
    assert ("only botocore, the AWS CLI and Go read a section of that name" in ended.err) is told
    assert run("export", profile, "--format", "env").err == ""


def _keys(profile: str) -> tuple[str, str, str | None]:
    found: Any = botocore.session.Session(profile=profile).get_credentials()
    frozen = found.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def test_ini_by_the_aws_cli(carried: Stub, run: Run, tmp_path: Path) -> None:
    """The AWS CLI reads each value as it was."""
    file = tmp_path / "credentials"
    file.write_text(run("export", "web-admin", "--format", "ini").out)
    places = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_CONFIG_FILE": str(tmp_path / "none")}

    def configured(name: str) -> str:
        line = [str(Path(CLIENT[0]).with_name("aws")), "configure", "get", name, "--profile", "web-admin"]
        done = subprocess.run(
            line, env={**os.environ, **places}, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.removesuffix("\n")

    assert configured("aws_session_token") == LONG
    assert configured("aws_secret_access_key") == SECRET
    assert configparser.RawConfigParser().read(file) == [str(file)]  # one section of that name, no key twice


@pytest.mark.parametrize("chosen", ["process", "json"])
def test_json_and_process(chosen: str, carried: Stub, run: Run) -> None:
    """Both are one JSON object; `process` has the five names that SDKs read, and the account."""
    found = json.loads(run("export", "web-admin", "--format", chosen).out)
    token = found.pop("SessionToken") if chosen == "process" else found.pop("Token")

    assert token == LONG
    assert found["SecretAccessKey"] == SECRET
    assert chosen == "json" or set(found) == {"Version", "AccessKeyId", "SecretAccessKey", "Expiration", "AccountId"}
    assert chosen == "json" or found["Version"] == 1


@pytest.mark.needs("jq")
def test_json_by_jq(carried: Stub, run: Run) -> None:
    """What a script does with `json`."""
    text = run("export", "web-admin", "--format", "json").out
    done = subprocess.run(["jq", "-r", ".Token"], input=text, capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout == LONG + "\n"


@pytest.mark.parametrize("profile", ["web-admin", *(name for name in NAMES if name.isascii())])
def test_process_by_botocore(profile: str, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented line, with a name in single quotes where it needs them, is run by botocore without a shell: the
    daemon is asked for exactly that profile.
    """
    stub.answers["GET", f"/v1/profiles/{profile}/credentials"] = (200, GIVEN)
    client = " ".join(shlex.quote(word) for word in CLIENT)
    dashes = "-- " if profile.startswith("-") else ""
    config = tmp_path / "config"
    config.write_text(f"[profile p]\ncredential_process = {client} credential-process {dashes}{shlex.quote(profile)}\n")
    for name, value in {**environment(stub), "AWS_CONFIG_FILE": str(config)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    assert _keys("p") == (GIVEN["AccessKeyId"], SECRET, LONG)
    assert [unquote(path) for _, path, _ in stub.requests] == [f"/v1/profiles/{profile}/credentials"]
    assert not (Path.cwd() / "PWNED").exists()


def test_dotenv_by_python_dotenv(carried: Stub, run: Run) -> None:
    """`dotenv` as python-dotenv reads it."""
    text = run("export", "web-admin", "--format", "dotenv").out

    assert dotenv.dotenv_values(stream=io.StringIO(text)) == WANTED


def test_dotenv_by_a_shell(carried: Stub, run: Run) -> None:
    """`set -a; . ./.env`, which many do, and direnv, which reads it so."""
    (carried.home / ".env").write_text(run("export", "web-admin", "--format", "dotenv").out)

    assert evaluated(["sh"], "set -a; . ./.env", carried) == WANTED


def test_nothing_in_dotenv_is_quoted(carried: Stub, run: Run) -> None:
    """Docker keeps quotes as a part of the value: each line is NAME=VALUE, and no more."""
    lines = run("export", "web-admin", "--format", "dotenv").out.splitlines()

    assert dict(line.partition("=")[::2] for line in lines) == WANTED


@pytest.mark.parametrize("chosen", ["ini", "dotenv"])
@pytest.mark.parametrize("value", ODD)
def test_what_cannot_be_carried(value: str, chosen: str, run: Run, stub: Stub) -> None:
    """What readers take differently is refused by its name, in a sentence without it; the other formats carry it."""
    token = f"{value}canary{value}"
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = (200, {**GIVEN, "Token": token})
    ended = run("export", "web-admin", "--format", chosen)

    assert (ended.status, ended.out) == (1, "")
    assert "web-admin's AWS_SESSION_TOKEN holds characters" in ended.err
    assert ended.err.endswith("take --format json\n")
    assert "canary" not in ended.err
    assert json.loads(run("export", "web-admin", "--format", "json").out)["Token"] == token


@pytest.mark.parametrize("value", ODD)
def test_shells_carry_what_others_cannot(value: str, stub: Stub) -> None:
    """The same values by `env` and `fish`: quoted whatever they hold, and nothing in them is run."""
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = (200, {**GIVEN, "Token": value})
    client = " ".join([*CLIENT, "export", "web-admin"])

    assert evaluated(["sh"], f'eval "$({client})"', stub)["AWS_SESSION_TOKEN"] == value


def test_a_tool_that_gives_up(stub: Stub) -> None:
    """Go kills the shell that it runs the line by, after 60 s: we leave the question with it, and let go of the pipe
    that it reads, instead of waiting for an answer that nobody takes. Control: while the tool lives the question is
    attended.
    """
    stub.answers["GET", "/v1/profiles/web-admin/credentials"] = mfa_required()
    line = f"{' '.join(CLIENT)} credential-process web-admin; exit $?"
    with subprocess.Popen(
        ["sh", "-c", line], env=environment(stub), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as tool:
        assert stub.attending.acquire(timeout=20)
        assert not stub.left.is_set()
        tool.kill()
        out, err = tool.communicate(timeout=20)  # ends when nobody holds the pipes

    assert stub.left.wait(20)
    assert out == ""
    assert err == "vault-client: the program that wanted the keys has given up: run it again when the code is at hand\n"
