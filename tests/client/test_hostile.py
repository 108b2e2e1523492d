"""Files and variables that somebody else chose: `use`, `exec` and `doctor` neither hang at them, nor fail, nor tell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.client.conftest import Run
from vault_client import families
from vault_client.awsfiles import MOST_BYTES, AwsFile, AwsFiles, profile_of
from vault_client.botochain import walk
from vault_client.scene import Scene
from vault_client.shadows import in_files

URL = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
CANARY = "c4naryOfAPassword"


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / ".aws").mkdir(exist_ok=True)
    return {"HOME": str(tmp_path), **more}


def work(environ: dict[str, str]) -> int:
    """How many sections and keys doctor handles: what its time is made of."""
    files = AwsFiles(environ)
    in_files(environ, files)
    scene = Scene(environ, files=files)
    return sum(len(section) for section in [*scene.configured.values(), *scene.credentials.values()])


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_CREDENTIAL_FILE": "{fifo}"},
        {URL: "http://127.0.0.1:9169/v1/credentials/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{fifo}"},
        {"BOTO_CONFIG": "{fifo}"},
        {"AWS_CONFIG_FILE": "{fifo}", "AWS_SHARED_CREDENTIALS_FILE": "{fifo}"},
    ],
    ids=["AWS_CREDENTIAL_FILE", "token file", "BOTO_CONFIG", "AWS files"],
)
def test_a_fifo_is_not_waited_for(process: Run, tmp_path: Path, variables: dict[str, str]) -> None:
    """Nobody writes into it, and a reader would wait for ever; what somebody writes is not taken away either."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    given = {name: value.format(fifo=fifo) for name, value in variables.items()}

    done = process("doctor", "--sdk", **environ(tmp_path, **given))

    assert done.status in {0, 1}, done
    assert "SDK" in done.out


def test_a_token_file_that_is_a_pipe_keeps_what_is_in_it(tmp_path: Path) -> None:
    """Process substitution: who reads it first has the token, and that is not to be doctor."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"token")
        named = {
            URL: "http://127.0.0.1:1/v1/credentials/x",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"/dev/fd/{reading}",
        }
        assert walk(Scene(environ(tmp_path, **named))).method == "container-role"
        assert os.read(reading, 100) == b"token"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("name", [URL, ENDPOINT])
@pytest.mark.parametrize("port", ["9" * 5000, "99999", "1" * 6])
def test_a_port_that_is_none_is_a_row(process: Run, tmp_path: Path, name: str, port: str) -> None:
    """int() takes no more than 4,300 digits: a row of doctor, and no traceback."""
    done = process("doctor", **environ(tmp_path, **{name: f"http://127.0.0.1:{port}/"}))
    assert done.status == 1, done
    assert "Traceback" not in done.err
    assert "BAD  endpoint" in done.out


@pytest.mark.parametrize("name", [URL, ENDPOINT])
@pytest.mark.parametrize(
    "url",
    [
        "http://user:{canary}@host/",
        "user:{canary}@host",
        "//user:{canary}@host",
        "http://user:x/{canary}@host/",
        "http://user:{canary}/x@host/",
        "http://host?token={canary}",
        "http://host#{canary}",
        "http:///{canary}",
        "http://[{canary}",
    ],
)
def test_of_an_address_only_the_host_is_told(tmp_path: Path, name: str, url: str) -> None:
    """security.md §1 T10: what is in front of the host and behind it may be a secret."""
    given = {name: url.format(canary=CANARY), "AWS_METADATA_ENDPOINT": url.format(canary=CANARY)}
    told = [(row.source, row.where) for row in families.rows(Scene(environ(tmp_path, **given)))]
    assert CANARY.lower() not in str(told).lower()
    assert {source for source, _ in told} & {"container", "metadata"}


def test_a_header_of_a_megabyte_names_no_profile(tmp_path: Path) -> None:
    """Time grows with the square of its length in shlex: 4 MB of one header were an hour, and for every `use`."""
    assert profile_of('profile "' + "a" * 500 + '"') == "a" * 500
    assert profile_of('profile "' + "a" * 5000 + '"') is None
    given = environ(tmp_path)
    (tmp_path / ".aws/config").write_text('[profile "' + "a" * (MOST_BYTES - 100) + '"]\nx = 1\n')
    assert work(given) == 0


def test_default_keys_times_sections_are_bounded(tmp_path: Path) -> None:
    """Each section gets a copy of [DEFAULT] by configparser: a file of 1 MiB would be 10,000,000,000 keys."""
    given = environ(tmp_path)
    keys = "".join(f"k{number} = 1\n" for number in range(20_000))
    sections = "".join(f"[profile p{number}]\n" for number in range(20_000))
    (tmp_path / ".aws/config").write_text(f"[DEFAULT]\n{keys}{sections}")

    file = AwsFile(str(tmp_path / ".aws/config"))

    assert "[DEFAULT]" in file.trouble
    assert work(given) == 0
    assert walk(Scene(given)).error


def test_default_keys_of_a_usual_file_are_everybodys(tmp_path: Path) -> None:
    """The same with as many as a person writes."""
    given = environ(tmp_path)
    sections = "".join(f"[profile p{number}]\n" for number in range(2_000))
    (tmp_path / ".aws/config").write_text(f"[DEFAULT]\nregion = eu-west-1\n{sections}")
    assert work(given) == 2_000
    assert not AwsFile(str(tmp_path / ".aws/config")).trouble


def test_a_chain_of_thousands_is_an_error_and_no_traceback(process: Run, tmp_path: Path) -> None:
    """The recursion of botocore ends there, too; a look-up of a profile does not go through all the others."""
    chain = "".join(f"[profile p{number}]\nrole_arn = x\nsource_profile = p{number + 1}\n" for number in range(10_000))
    given = environ(tmp_path, AWS_PROFILE="p0")
    (tmp_path / ".aws/config").write_text(chain)

    done = process("doctor", "--sdk", **given)

    assert done.status == 1, done
    assert "the chain of source_profile is too long" in done.out
