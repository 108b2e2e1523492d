"""The caller's AWS files: lines, faults, and no value that could be a secret."""

from __future__ import annotations

import configparser
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.configloader import load_config
from hypothesis import example, given
from hypothesis import strategies as st

from vault_client import awsfiles
from vault_client.awsfiles import AwsFile, AwsFiles, profile_of

PIECES = st.sampled_from([
    "[default]", "[profile a]", "[DEFAULT]", "[]", "[x", " [default]", "[a] b]", "a = 1", "b: 2", "  a = 3", "s3 =",
    "  c = d", "\tc", "# c", "  ; c", "", "   ", "word", "= x", "A=4", "a b = c", "secret = canary", "\r",
])  # fmt: skip


def read(text: str, tmp_path: Path) -> AwsFile:
    """A file of that text."""
    path = tmp_path / "f"
    path.write_bytes(text.encode())
    return AwsFile(str(path))


@given(lines=st.lists(PIECES, max_size=9))
@example(lines=["[default]", "a = 1", "", "  [x]", "b = 2"])
@example(lines=["[DEFAULT]", "a = 1", "[DEFAULT]", "a = 2"])
@example(lines=["[default]", "\r", "a = 1"])
def test_lines_and_faults_are_configparsers(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Same sections, same keys, refused where it refuses: the scan of `use` sees what the AWS CLI sees."""
    found = read("\n".join(lines), tmp_path_factory.getbasetemp())
    parser, as_read = configparser.RawConfigParser(), io.StringIO("\n".join(lines), newline=None).read()
    try:
        parser.read_string(as_read)
    except configparser.Error:
        assert found.fault is not None
        return

    assert found.fault is None
    assert {name: set(found.keys(name)) for name in found.heads if name != "DEFAULT"} == {
        name: set(parser.options(name)) for name in parser.sections()
    }
    text = ["", *as_read.split("\n")]
    for keys in found.where.values():
        assert all(text[line].strip().lower().startswith(key) for key, line in keys.items())


@pytest.mark.parametrize(
    "header",
    ["default", "profile a", "profile  a", 'profile "a b"', 'profile "a', "profile", "profile a b", "profilea b",
     "sso-session a", "profile default", "a", "profile\ta"],
)  # fmt: skip
def test_headers_are_botocores(header: str, tmp_path: Path) -> None:
    """Which profile a header of the config file names, or none."""
    path = tmp_path / "config"
    path.write_text(f"[{header}]\nregion = x\n")

    assert [name for name in [profile_of(header)] if name is not None] == list(load_config(str(path))["profiles"])


def test_what_cannot_be_read_is_said_without_a_byte_of_it(tmp_path: Path) -> None:
    """A BOM, a line without a key, a twin, Latin-1, a huge file: file:line and a reason; never the line."""
    twice = read("[a]\nx = canary\nx = canary\n", tmp_path).fault
    assert twice == (3, "this key is there twice")
    assert read("[a]\nx = 1\n[a]\n", tmp_path).fault == (3, "this section is there twice")
    assert read("\ufeff[a]\nx = 1\n", tmp_path).fault == (1, "the file begins with a byte order mark")
    assert read("[a]\nx = 1\ncanary\n", tmp_path).fault == (3, "the AWS CLI cannot read this line")
    (tmp_path / "latin").write_bytes(b"[a]\nx = \xe9\n")
    assert AwsFile(str(tmp_path / "latin")).fault == (2, "this is not UTF-8 text")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(awsfiles.MOST_BYTES + 1)
    huge = AwsFile(str(tmp_path / "huge"))
    assert (huge.fault, huge.unread) == (None, "it has more than 1 MiB")


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A FIFO would hang `use`; the AWS CLI sees no file there either."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "none", tmp_path / "none" / "x"):
        file = AwsFile(str(path))
        assert (file.heads, file.fault, file.unread, file.values()) == ({}, None, "", {})


@pytest.mark.needs("root")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Its reason is told; the reader here is another user, because root reads everything."""
    path = tmp_path / "config"
    path.write_text("[default]\n")
    path.chmod(0)
    for parent in list(path.parents)[:-1]:
        if parent.stat().st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from vault_client.awsfiles import AwsFile; "
    code += "import os; os.setuid(65534); print(AwsFile(sys.argv[2]).unread)"
    sources = Path(awsfiles.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(sources), str(path)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "Permission denied\n"


def test_no_secret_is_kept_as_a_value(tmp_path: Path) -> None:
    """Only what the chain turns on; of the rest, that it is there."""
    file = read(
        "[default]\naws_secret_access_key = canary\ncredential_process = canary\nsource_profile = b\n", tmp_path
    )

    assert file.values() == {"default": {"aws_secret_access_key": "", "credential_process": "", "source_profile": "b"}}


def test_paths_are_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables, `~` and `$NAME` as the AWS CLI opens them."""
    monkeypatch.setenv("WHERE", "w")
    home = {"HOME": "/h"}

    assert AwsFiles(home).config.path == "/h/.aws/config"
    assert AwsFiles({**home, "AWS_CONFIG_FILE": "~/c"}).config.path == "/h/c"
    assert AwsFiles({**home, "AWS_SHARED_CREDENTIALS_FILE": "/$WHERE/c"}).credentials.path == "/w/c"
