"""client/vault_client/credentials_file.py: a section's key taken out of the file, and every other byte left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault_client.credentials_file import KEY_LINES, Removal, sections
from vault_client.errors import Stop

KEY = b"aws_access_key_id = AKIAFRANKLIN00000001\naws_secret_access_key = canary/secret\n"
FILE = b"""\
# my keys
[default]
region = eu-west-1 ; not a comment
aws_access_key_id=AKIADEFAULT000000009
aws_secret_access_key:canary/default
mfa_serial = x
; kept

[identity]
%s
[both]
# of both
%s""" % (KEY, KEY.replace(b"\n", b"\r\n"))


def made(path: Path, content: bytes = FILE, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_a_section_that_was_a_key_goes_with_its_header(tmp_path: Path) -> None:
    """Nothing of it is left to say; the line between stays, and so does everything else, byte for byte."""
    path = made(tmp_path / "credentials")

    Removal(path, ["identity"]).apply()

    assert (tmp_path / "credentials").read_bytes() == FILE.replace(b"[identity]\n" + KEY, b"", 1)
    assert sections(path, otherwise="x").keys() == {"default", "both"}


def test_what_else_a_section_has_stays(tmp_path: Path) -> None:
    """Keys that are no secret, comments with their header, and line ends of either kind."""
    path = made(tmp_path / "credentials")

    Removal(path, ["default", "both"]).apply()

    left = FILE.replace(b"aws_access_key_id=AKIADEFAULT000000009\naws_secret_access_key:canary/default\n", b"")
    left = left.replace(KEY.replace(b"\n", b"\r\n"), b"")
    assert (tmp_path / "credentials").read_bytes() == left
    assert b"canary/default" not in left
    assert b"# of both\n" in left


def test_the_diff_shows_what_goes_and_no_secret(tmp_path: Path) -> None:
    """By line; of a key id the last 4 characters."""
    path = made(tmp_path / "credentials")

    shown = Removal(path, ["default", "identity"]).diff().splitlines()

    assert shown == [
        f"--- {path}",
        "-4    aws_access_key_id = …0009",
        "-5    aws_secret_access_key = (not shown)",
        "-9    [identity]",
        "-10   aws_access_key_id = …0001",
        "-11   aws_secret_access_key = (not shown)",
    ]


def test_mode_and_link_stay(tmp_path: Path) -> None:
    """Of a dotfile repository: the link is one still, and its target has the new content and the old mode."""
    (tmp_path / "dotfiles").mkdir()
    made(tmp_path / "dotfiles" / "aws", mode=0o640)
    (tmp_path / "credentials").symlink_to("dotfiles/aws")

    Removal(str(tmp_path / "credentials"), ["identity"]).apply()

    assert (tmp_path / "credentials").is_symlink()
    assert (tmp_path / "dotfiles" / "aws").stat().st_mode & 0o777 == 0o640
    assert b"[identity]" not in (tmp_path / "dotfiles" / "aws").read_bytes()
    assert [each.name for each in (tmp_path / "dotfiles").iterdir()] == ["aws"], "nothing is left behind"


def _foreign_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    os.lchown(path, 12345, -1)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.chmod(0o620), "may be written to by others"),
        (lambda path: os.link(path, path.with_name("second")), "has a second name (a hard link)"),
        (_fifo, "is no file"),
        (lambda path: path.unlink(), "cannot be read (No such file or directory)"),
        (lambda path: (path.unlink(), path.symlink_to(path.name)), "is a link that leads nowhere"),
        pytest.param(
            lambda path: os.chown(path, 12345, -1), "belongs to another user", marks=pytest.mark.needs("root")
        ),
        pytest.param(_foreign_link, "is another user's link", marks=pytest.mark.needs("root")),
    ],
)
def test_a_file_that_is_not_the_users_alone(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    """interface.md §1: refused by name, nothing is written; positive control: the same file before."""
    path = tmp_path / "credentials"
    Removal(made(path), ["identity"])
    make(path)

    with pytest.raises(Stop) as told:
        Removal(str(path), ["identity"])

    assert said in told.value.message
    assert told.value.exit_status == 78


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (FILE + b"no key\n", ":17: the AWS CLI cannot read this line"),
        (FILE + b"[identity]\n", ":17: this section is there twice"),
        (FILE.replace(KEY, KEY + KEY, 1), "this key is there twice"),
        (b"\xef\xbb\xbf" + FILE, ":1: the file begins with a byte order mark"),
        (FILE + b"\xff", "this is not UTF-8 text"),
        (FILE + b"#" * (1 << 20), "it has more than 1 MiB"),
    ],
)
def test_a_file_that_is_not_understood_is_not_rewritten(tmp_path: Path, content: bytes, said: str) -> None:
    """The line that is in the way is named."""
    path = made(tmp_path / "credentials", content)

    with pytest.raises(Stop, match=said) as told:
        Removal(path, ["identity"])

    assert told.value.exit_status == 78
    assert (tmp_path / "credentials").read_bytes() == content


def test_one_that_changed_meanwhile_is_left(tmp_path: Path) -> None:
    """Another program wrote it between the look and the deed: its content stays."""
    path = made(tmp_path / "credentials")
    removal = Removal(path, ["identity"])
    (tmp_path / "credentials").write_bytes(FILE + b"# new\n")

    with pytest.raises(Stop, match="was changed by another program"):
        removal.apply()

    assert (tmp_path / "credentials").read_bytes() == FILE + b"# new\n"
    assert [each.name for each in tmp_path.iterdir()] == ["credentials"]


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The old file stands, and nothing lies beside it."""
    path = made(tmp_path / "credentials")
    removal = Removal(path, ["identity"])

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Stop, match="No space left on device"):
        removal.apply()
    monkeypatch.undo()

    assert (tmp_path / "credentials").read_bytes() == FILE
    assert [each.name for each in tmp_path.iterdir()] == ["credentials"]


@pytest.mark.parametrize(
    "body",
    [
        b"[identity]\naws_access_key_id = AKIAFRANKLIN00000001\naws_secret_access_key =\n  canary/secret\n",
        b"[identity]\nregion = x\naws_secret_access_key = canary\n  /secret\naws_access_key_id = AKIAFRANKLIN0001\n",
    ],
)
def test_a_secret_that_goes_on_below(tmp_path: Path, body: bytes) -> None:
    """Without its first line the rest would be another key's value, or none: refused, and the file is as it was."""
    path = made(tmp_path / "credentials", FILE.replace(b"[identity]\n" + KEY, b"") + body)
    before = (tmp_path / "credentials").read_bytes()

    with pytest.raises(Stop, match="would say something else without those lines"):
        Removal(path, ["identity"]).apply()

    assert (tmp_path / "credentials").read_bytes() == before


_WORDS = st.text("abc =:;#[]", max_size=6)
_LINES = st.one_of(
    st.sampled_from(["", "# a comment", "; another", "region = x", "aws_access_key_id = AKIA",
                     "aws_secret_access_key=s", "Aws_Secret_Access_Key : s", "  deeper",
                     "mfa_serial = y", "[default]"]),
    _WORDS.map(lambda word: f"key = {word}"),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    bodies=st.lists(st.lists(_LINES, max_size=5), min_size=1, max_size=4),
    which=st.integers(0, 3),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_the_file(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[list[str]], which: int, end: str
) -> None:
    """Either it is refused and as it was, or exactly the key lines of that section are gone: each line that is left is
    one of the file's, in its order, and every other section says what it said.
    """
    folder = tmp_path_factory.mktemp("f")
    names = [f"s{number}" for number in range(len(bodies))]
    text = "".join(
        f"[{name}]{end}" + "".join(line + end for line in body) for name, body in zip(names, bodies, strict=True)
    )
    path, name = made(folder / "credentials", text.encode()), names[which % len(names)]
    try:
        removal = Removal(path, [name])
        removal.apply()
    except Stop:
        assert (folder / "credentials").read_bytes() == text.encode()
        return
    before, after = (
        text.encode().splitlines(keepends=True),
        (folder / "credentials").read_bytes().splitlines(keepends=True),
    )
    assert [line for number, line in enumerate(before, 1) if number not in removal.gone] == after
    found = sections(path, otherwise="x")
    assert not set(KEY_LINES) & set(found.get(name, {}))


def test_one_that_changes_while_the_new_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`aws configure` writes while ours is on its way to the disk, which takes its time: its content stays."""
    path = made(tmp_path / "credentials")
    removal, sync = Removal(path, ["identity"]), os.fsync

    def slow(number: int) -> None:
        (tmp_path / "credentials").write_bytes(FILE + b"[new]\n" + KEY)
        sync(number)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(Stop, match="was changed by another program"):
        removal.apply()

    assert (tmp_path / "credentials").read_bytes() == FILE + b"[new]\n" + KEY
    assert [each.name for each in tmp_path.iterdir()] == ["credentials"]


def test_a_link_that_was_turned_meanwhile(tmp_path: Path) -> None:
    """The target that was looked at is another file now, of the same content, and of others to write: it is left."""
    path = made(tmp_path / "credentials")
    removal = Removal(path, ["identity"])
    (tmp_path / "credentials").unlink()
    made(tmp_path / "elsewhere", mode=0o666)
    os.link(tmp_path / "elsewhere", tmp_path / "credentials")

    with pytest.raises(Stop):
        removal.apply()

    assert (tmp_path / "credentials").read_bytes() == FILE


@pytest.mark.parametrize("make", [_fifo, lambda path: (path.unlink(), path.symlink_to("/dev/zero"))])
def test_what_is_no_file_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A FIFO would be waited for, and a device read for ever; so would a file that is none of the AWS CLI's."""
    path = tmp_path / "credentials"
    made(path)
    make(path)
    with pytest.raises(Stop, match="it is no file"):
        sections(str(path), otherwise="type the key in")

    path.unlink()
    made(path, FILE + b"#" * (1 << 20))
    with pytest.raises(Stop, match="it has more than 1 MiB"):
        sections(str(path), otherwise="type the key in")
