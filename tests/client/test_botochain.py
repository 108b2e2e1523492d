"""`doctor --sdk` against the real botocore: the same environment and files, the same source (issue 4, Build 7)."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.credentials import LoginProvider
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.session import Session

from vault_client.botochain import walk
from vault_client.scene import Scene

KEYS = "aws_access_key_id = AKIACANARY\naws_secret_access_key = canary-secret\n"
ROLE = "role_arn = arn:aws:iam::123456789012:role/r\n"
SSO = "sso_account_id = 123456789012\nsso_role_name = r\nsso_start_url = https://x\nsso_region = us-east-1\n"
THIRD = "[profile t]\n" + KEYS
SESSION = "[sso-session s]\nsso_start_url = https://x\nsso_region = u\n"
PROCESS = """credential_process = echo '{"Version": 1, "AccessKeyId": "AKIACANARY", "SecretAccessKey": "x"}'\n"""
FULL = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9169/v1/credentials/p"}
TOKEN = {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"}
OFF = {"AWS_EC2_METADATA_DISABLED": "true"}
ENV = {"AWS_ACCESS_KEY_ID": "AKIACANARY", "AWS_SECRET_ACCESS_KEY": "canary-secret"}
WEB = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/w"}
ANSWER = {"AccessKeyId": "A", "SecretAccessKey": "S", "Token": "T", "Expiration": "2099-01-01T00:00:00Z"}

#: (variables, config, credentials): one rule each.
CASES: list[tuple[dict[str, str], str | None, str | None]] = [
    ({}, None, None),
    (OFF, None, None),
    ({"AWS_EC2_METADATA_DISABLED": "True"}, None, None),
    ({"AWS_EC2_METADATA_DISABLED": "1"}, None, None),
    (FULL | OFF, None, None),
    (FULL | TOKEN, "[default]\nregion = us-east-1\n", None),
    (FULL, "[default]\n" + KEYS, None),
    (FULL, None, "[default]\n" + KEYS),
    (FULL, None, "[default]\naws_access_key_id = A\n"),
    (FULL, None, "[default]\naws_secret_access_key = A\n"),
    (FULL, "[default]\naws_access_key_id = A\n", None),
    (FULL, "[profile default]\n" + KEYS, None),
    (FULL, "[default]\nregion = x\n[profile default]\n" + KEYS, None),
    (FULL, "[profile default]\n" + KEYS + "[default]\nregion = x\n", None),
    (FULL, "[profile a]\n" + KEYS, None),
    (FULL | {"AWS_PROFILE": "a"}, "[profile a]\n" + KEYS, None),
    (FULL | {"AWS_PROFILE": "a"}, "[profile a]\nregion = x\n", None),
    (FULL | {"AWS_PROFILE": "a"}, "[a]\n" + KEYS, None),
    (FULL | {"AWS_PROFILE": "a"}, None, "[a]\n" + KEYS),
    (FULL | {"AWS_PROFILE": "a"}, None, "[profile a]\n" + KEYS),
    (FULL | {"AWS_PROFILE": "a b"}, '[profile "a b"]\n' + KEYS, None),
    (FULL | {"AWS_PROFILE": "a"}, '[profile "a]\n' + KEYS, None),
    (FULL | {"AWS_PROFILE": "nope"}, None, None),
    (FULL | {"AWS_PROFILE": ""}, None, None),
    (FULL | {"AWS_PROFILE": "a", "AWS_DEFAULT_PROFILE": "b"}, "[profile a]\n" + KEYS + "[profile b]\n", None),
    (FULL | {"AWS_DEFAULT_PROFILE": "nope", "AWS_PROFILE": "a"}, "[profile a]\n" + KEYS, None),
    (ENV | FULL, None, "[default]\n" + KEYS),
    (ENV | {"AWS_PROFILE": "nope"}, None, None),
    (ENV | {"AWS_PROFILE": "a"}, "[profile a]\n" + KEYS, None),
    ({"AWS_ACCESS_KEY_ID": "A"} | FULL, None, None),
    ({"AWS_SECRET_ACCESS_KEY": "A"} | FULL, None, None),
    ({"AWS_ACCESS_KEY_ID": ""} | FULL, None, None),
    (WEB | FULL, None, None),
    ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"} | FULL, None, None),
    ({"AWS_WEB_IDENTITY_TOKEN_FILE": ""} | FULL, "[default]\nweb_identity_token_file = /t\n" + ROLE, None),
    (FULL, "[default]\nweb_identity_token_file = /t\n" + ROLE, None),
    (FULL, "[default]\nweb_identity_token_file = /t\n", None),
    (WEB | FULL, "[default]\n" + ROLE + "source_profile = s\n[profile s]\n" + KEYS, None),
    (FULL, "[default]\n" + SSO, None),
    (FULL, "[default]\nsso_account_id = 1\n", None),
    (FULL, "[default]\nsso_start_url = https://x\n", None),
    (FULL, "[default]\nsso_session = s\n[sso-session s]\nsso_start_url = https://x\nsso_region = u\n", None),
    (FULL, "[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n" + SESSION, None),
    (FULL, "[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\nsso_region = o\n" + SESSION, None),
    (FULL, "[default]\nsso_session = nope\nsso_account_id = 1\nsso_role_name = r\n", None),
    (FULL, "[default]\n" + SSO, "[default]\n" + KEYS),
    (FULL, "[default]\n" + PROCESS, None),
    (FULL, "[default]\n" + PROCESS + KEYS, None),
    (FULL, "[default]\n" + PROCESS, "[default]\n" + KEYS),
    (FULL, "[default]\n" + KEYS, "[default]\n" + PROCESS),
    (FULL, "[default]\nlogin_session = arn\n", None),
    (FULL, "[default]\nlogin_session = arn\n" + PROCESS, None),
    (FULL, "[default]\n" + ROLE, None),
    (FULL, "[default]\n" + ROLE + "source_profile = nope\n", None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\n[profile s]\nregion = x\n", None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\n", "[s]\n" + KEYS),
    (FULL, "[default]\n" + ROLE + "source_profile = default\n", None),
    (FULL, "[default]\n" + ROLE + "source_profile = default\n" + KEYS, None),
    (FULL | WEB, "[default]\n" + ROLE + "source_profile = default\naws_secret_access_key = x\n", None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\n[profile s]\n" + ROLE + "source_profile = default\n", None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\n[profile s]\n" + ROLE + "source_profile = t\n" + THIRD, None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\n[profile s]\n" + SSO, None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\n[profile s]\n" + PROCESS, None),
    (FULL, "[default]\n" + ROLE + "source_profile = s\ncredential_source = Environment\n[profile s]\n" + KEYS, None),
    (FULL, "[default]\n" + ROLE + "credential_source = EcsContainer\n", None),
    ({}, "[default]\n" + ROLE + "credential_source = EcsContainer\n", None),
    (FULL, "[default]\n" + ROLE + "credential_source = ecscontainer\n", None),
    (OFF, "[default]\n" + ROLE + "credential_source = Ec2InstanceMetadata\n", None),
    ({}, "[default]\n" + ROLE + "credential_source = Ec2InstanceMetadata\n", None),
    ({}, "[default]\n" + ROLE + "credential_source = Environment\n", None),
    (ENV, "[default]\n" + ROLE + "credential_source = Environment\n", None),
    ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"} | FULL, None, None),
    ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ""}, None, None),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/x"}, None, None),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost:1/x"}, None, None),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[::1]:1/x"}, None, None),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://example.com/x"}, None, None),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": ""}, None, None),
    (FULL | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nonexistent"}, None, None),
    (FULL | {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "t\n"}, None, None),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9/"}, None, None),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "nonsense"}, None, None),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": ""}, None, None),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, None, None),
    (FULL | {"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "five"}, None, None),
    (FULL | {"AWS_METADATA_SERVICE_TIMEOUT": "soon"}, None, None),
    (FULL | {"AWS_METADATA_SERVICE_NUM_ATTEMPTS": ""}, None, None),
    (FULL, "[default]\nmetadata_service_timeout = soon\n", None),
    (FULL, "[default]\nregion\n", None),
    (FULL, "region = x\n", None),
    (FULL, "[default]\nregion = x\nregion = y\n", None),
    (FULL, "[default]\nregion = x\n[default]\nregion = y\n", None),
    (FULL, "\ufeff[default]\nregion = x\n", None),
    (FULL, "[default]\ns3 =\n  a = b\n", "[default]\n" + KEYS),
    (FULL, "[default]\ns3 =\n  nonsense\n", None),
    (FULL, "[DEFAULT]\n" + KEYS + "[default]\nregion = x\n", None),
    (FULL, None, "[default\n"),
    (FULL | {"AWS_CONFIG_FILE": "", "AWS_SHARED_CREDENTIALS_FILE": ""}, "[default]\n" + KEYS, "[default]\n" + KEYS),
    (FULL | {"AWS_CONFIG_FILE": "~/AWS_CONFIG_FILE"}, "[default]\n" + KEYS, None),
    (FULL | {"AWS_SHARED_CREDENTIALS_FILE": "$HOME/AWS_SHARED_CREDENTIALS_FILE"}, None, "[default]\n" + KEYS),
    (FULL | {"AWS_CREDENTIAL_FILE": "/nonexistent"}, None, None),
    (FULL | {"BOTO_CONFIG": "{home}/boto"}, None, None),
    (FULL | {"AWS_CREDENTIAL_FILE": "{home}/ec2"}, None, None),
]  # fmt: skip


def theirs(profile: str | None = None) -> str | None:
    """The real botocore's choice in os.environ; `error` for whatever it refuses."""
    try:
        found = Session(profile=profile).get_credentials()
    except (BotoCoreError, ValueError, OSError, KeyError):
        return "error"
    return None if found is None else found.method


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An environment for both of us; no request leaves botocore, whose choice is what is asked."""
    monkeypatch.setattr(URLLib3Session, "send", _answer)
    monkeypatch.setattr(LoginProvider, "load", _login)
    (tmp_path / "boto").write_text("[Credentials]\n" + KEYS)
    (tmp_path / "ec2").write_text("AWSAccessKeyId=A\nAWSSecretKey=S\n")

    def build(variables: dict[str, str], config: str | None, credentials: str | None) -> dict[str, str]:
        for name in [name for name in os.environ if name.startswith(("AWS_", "BOTO_"))]:
            monkeypatch.delenv(name)
        paths = {"AWS_CONFIG_FILE": config, "AWS_SHARED_CREDENTIALS_FILE": credentials}
        given = {name: value.replace("{home}", str(tmp_path)) for name, value in variables.items()}
        for name, text in paths.items():
            given.setdefault(name, str(tmp_path / name))
            (tmp_path / name).unlink(missing_ok=True)
            if text is not None:
                (tmp_path / name).write_text(text)
        for name, value in {**given, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        return dict(os.environ)

    return build


def _answer(_: URLLib3Session, request: AWSPreparedRequest) -> AWSResponse:
    """The one way of botocore to a network: both endpoints answer at once, and nothing leaves."""
    url = str(request.url)
    role_list = url.endswith("/security-credentials/")
    text = "t" if url.endswith("/api/token") else "r" if role_list else json.dumps({"Code": "Success", **ANSWER})
    return AWSResponse(url, 200, HTTPHeaders(), Raw(text.encode()))


class Raw(io.BytesIO):
    """What urllib3 gives botocore to read a body from."""

    def stream(self) -> Iterator[bytes]:
        """All of it."""
        yield self.read()


def _login(self: Any) -> Any:
    """LoginProvider needs the CRT and a cached token; whether it is its turn is what is compared."""
    from botocore.credentials import Credentials

    profile = self._load_config().get("profiles", {}).get(self._profile_name, {})
    return Credentials("A", "S", method="login") if "login_session" in profile else None


def ours(environ: dict[str, str], profile: str | None = None) -> str | None:
    """Our verdict in the same words."""
    found = walk(Scene(environ, chosen=profile))
    assert "canary" not in found.where.lower()
    return "error" if found.error else found.method


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("profile", [None, "a", "default"])
def test_the_same_source(scene: Any, case: tuple[dict[str, str], str | None, str | None], profile: str | None) -> None:
    """Each rule of the chain, with and without a profile that was asked for by name."""
    environ = scene(*case)

    assert ours(environ, profile) == theirs(profile)


def test_the_cases_tell_the_sources_apart(scene: Any) -> None:
    """Control: every method of botocore's is somebody's answer, errors and nothing included."""
    found = {ours(scene(*case)) for case in CASES}

    assert found == {
        None, "error", "env", "assume-role", "assume-role-with-web-identity", "sso", "shared-credentials-file", "login",
        "custom-process", "config-file", "ec2-credentials-file", "boto-config", "container-role", "iam-role",
    }  # fmt: skip


PARTS = ["", KEYS, ROLE, ROLE + "source_profile = b\n", ROLE + "credential_source = EcsContainer\n", SSO, PROCESS,
         "login_session = l\n", "web_identity_token_file = /t\n" + ROLE, "region = x\n"]  # fmt: skip
VARIABLES = [{}, ENV, WEB, FULL, FULL | TOKEN, OFF, {"AWS_PROFILE": "a"}, {"AWS_DEFAULT_PROFILE": "b"}]


def test_any_mixture(scene: Any) -> None:
    """400 random mixtures of all that a file and an environment may hold, drawn with a fixed seed."""
    draw = random.Random(4)
    wrong, seen = [], set()
    for _ in range(400):
        variables = {**draw.choice(VARIABLES), **draw.choice(VARIABLES)}
        config, credentials = (
            "".join(f"[{head}]\n{draw.choice(PARTS)}" for head in heads if draw.random() < 0.7)
            for heads in (["default", "profile a", "profile b"], ["default", "a", "b"])
        )
        profile = draw.choice([None, None, "a"])
        environ = scene(variables, config, credentials)
        answers = ours(environ, profile), theirs(profile)
        seen.add(answers[1])
        if len(set(answers)) > 1:
            wrong.append((answers, variables, config, credentials, profile))

    assert wrong == []
    assert len(seen) >= 8


def test_the_seed_makes_mixtures() -> None:
    """Control: the parts are many enough that 400 draws are no handful."""
    assert len(list(itertools.product(PARTS, PARTS, VARIABLES))) > 400
