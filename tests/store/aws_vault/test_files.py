"""vaultd/store/aws_vault.py and jwe.py over directories: what the Go writer made, and what it never would."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.store.aws_vault.craft import item, key, message, segment
from tests.store.aws_vault.make import FIXTURES, KEYS, PASSPHRASE, TEMPORARY, stored
from vaultd.engine.seams import ForeignKey, ForeignStore
from vaultd.errors import BadRequest, FileRefused, NotFound, NotImported, Unwritable, VaultdError, WrongPassphrase
from vaultd.files import Files
from vaultd.model.secret import Secret
from vaultd.store import aws_vault
from vaultd.store.aws_vault import AwsVault


async def read(
    keys: Path, *names: str, passphrase: str | None = PASSPHRASE, files: Files | None = None
) -> dict[str, ForeignKey]:
    source = ForeignStore("file", str(keys))
    secret = None if passphrase is None else Secret(passphrase)
    found = await AwsVault(files or Files(), clock=FakeClock()).read(source, passphrase=secret, names=names)
    assert [each.name for each in found] == sorted(each.name for each in found)
    return {each.name: each for each in found}


def opened(found: dict[str, ForeignKey]) -> dict[str, tuple[str, str]]:
    return {
        name: (each.key.access_key_id, each.key.secret_access_key.reveal())
        for name, each in found.items()
        if each.key is not None
    }


def listed(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Everything in a directory: to compare that nothing was touched."""
    return {
        each.name: (each.read_bytes() if each.is_file() else b"", each.lstat().st_mode, each.lstat().st_mtime_ns)
        for each in folder.iterdir()
    }


async def test_what_the_go_writer_made(tmp_path: Path) -> None:
    """Every long-term key, under its own name; the temporary one says so, sessions and tokens are not there."""
    keys = stored(tmp_path)
    before = listed(keys)

    found = await read(keys)

    assert opened(found) == KEYS
    assert set(found) == {*KEYS, TEMPORARY}
    assert found[TEMPORARY].wrong.startswith("it is a temporary key")
    assert len(before) == len(found) + 2, "control: a session and a token lie there"
    assert listed(keys) == before, "nothing is written, and no access time is a matter"


async def test_only_those_that_are_named(tmp_path: Path) -> None:
    """By the name that aws-vault shows; one that is not there is left out. A name is never a path."""
    keys = stored(tmp_path)
    (tmp_path / "escape").write_text(key("../../escape"))

    assert opened(await read(keys, "50% off", "nobody")) == {"50% off": KEYS["50% off"]}
    assert opened(await read(keys, "../../escape")) == {"../../escape": KEYS["../../escape"]}
    assert await read(keys, "nobody") == {}
    assert await read(keys, "50%25 off") == {}, "that is its file's name, not its own"


async def test_a_wrong_passphrase_is_not_damage(tmp_path: Path) -> None:
    """WrongPassphrase says nothing of damage, and damage nothing of the passphrase being wrong."""
    keys = stored(tmp_path)

    with pytest.raises(WrongPassphrase) as told:
        await read(keys, passphrase="correct horse")

    assert "that passphrase does not open the keys" in told.value.message
    assert "damage" not in told.value.message
    assert told.value.message.endswith("again with the one that aws-vault asks for")
    with pytest.raises(BadRequest, match="field passphrase"):
        await read(keys, passphrase=None)
    assert await read(stored(tmp_path / "empty", {}), passphrase=None) == {}, "nothing there, nothing to open"


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _flipped(text: str, at: int) -> str:
    """One bit of a segment's first bytes."""
    parts = text.split(".")
    parts[at] = ("A" if parts[at][0] != "A" else "B") + parts[at][1:]
    return ".".join(parts)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "it is damaged: it is cut or not a file of aws-vault's"),
        (lambda text: "", "it is damaged: it is cut or not a file of aws-vault's"),
        (lambda text: text + "!", "it is damaged: it is cut or not a file of aws-vault's"),
        (lambda text: text[:-8], "it is damaged: it is cut or not a file of aws-vault's"),
        (lambda text: text * 100, "it is damaged: it has more than 64 KiB"),
        (lambda text: _flipped(text, 0), "it is damaged: its header is damaged"),
        (lambda text: _flipped(text, 1), "that passphrase opens others and not this one"),
        (lambda text: _flipped(text, 2), "it is damaged: the passphrase fits and the rest does not"),
        (lambda text: _flipped(text, 3), "it is damaged: the passphrase fits and the rest does not"),
        (lambda text: _flipped(text, 4), "it is damaged: the passphrase fits and the rest does not"),
    ],
)
async def test_one_damaged_file(tmp_path: Path, damage: Callable[[str], str], said: str) -> None:
    """It says what and how to go on; the others are read as ever."""
    files = json.loads((FIXTURES / "file.json").read_text())
    keys = stored(tmp_path, files | {"identity": damage(files["identity"])})

    found = await read(keys)

    assert found["identity"].wrong.startswith(said)
    assert found["identity"].wrong.endswith("type `vault-client add identity` with the key itself")
    assert opened(found) == {name: pair for name, pair in KEYS.items() if name != "identity"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"p2c": 1_300_001}, "it wants more than 1300000 rounds of PBKDF2"),
        ({"p2c": 10**30}, "it wants more than 1300000 rounds of PBKDF2"),
        ({"p2c": 0}, "its header is damaged (p2c)"),
        ({"p2c": True}, "its header is damaged (p2c)"),
        ({"p2c": 8192.0}, "its header is damaged (p2c)"),
        ({"p2c": None}, "its header is damaged (p2c)"),
        ({"p2s": None}, "its header is damaged (p2s)"),
        ({"p2s": "c2FsdA"}, "its header is damaged (p2s)"),
        ({"p2s": "A" * 400}, "its header is damaged (p2s)"),
        ({"p2s": "€€€€€€€€€€€€€€€€"}, "it is cut or not a file of aws-vault's"),
        ({"alg": "dir"}, "it is not sealed by PBES2-HS256+A128KW and A256GCM"),
        ({"alg": "none"}, "it is not sealed by PBES2-HS256+A128KW and A256GCM"),
        ({"enc": "A128CBC-HS256"}, "it is not sealed by PBES2-HS256+A128KW and A256GCM"),
        ({"zip": "DEF"}, "its header has fields that aws-vault does not write"),
        ({"crit": ["p2c"]}, "its header has fields that aws-vault does not write"),
    ],
)
async def test_a_hostile_header_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], said: str
) -> None:
    """Refused before a key is derived; positive control: the same message with an honest header is read."""
    assert opened(await read(stored(tmp_path / "control", {"mine": key("mine")})))["mine"][1] == "canary/crafted"
    keys = stored(tmp_path, {"mine": message(item("mine"), header=fields).decode()})
    derived: list[object] = []

    def derive(*given: object) -> bytes:
        derived.append(given)
        return bytes(16)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", derive)

    found = await read(keys)

    assert found["mine"].wrong.startswith(f"it is damaged: {said}"), found
    assert not derived


async def test_what_all_of_them_cost_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each count is below the cap, and together they are not: those beyond are told to be named alone."""
    monkeypatch.setattr(aws_vault, "MOST_ROUNDS", 25)
    keys = stored(tmp_path, {name: message(item(name), rounds=10).decode() for name in ("a", "b", "c")})

    found = await read(keys)

    assert set(opened(found)) == {"a", "b"}
    assert found["c"].wrong.endswith("takes too long; type `vault-client import aws-vault c`")
    assert set(opened(await read(keys, "c"))) == {"c"}


async def test_ten_thousand_entries(tmp_path: Path) -> None:
    """Too many keys: named ones are read all the same. As many sessions: nothing of them is opened."""
    names = [f"key-{number}" for number in range(10_000)]
    many = stored(tmp_path / "keys", dict.fromkeys(names, "x") | {"mine": key("mine")})
    sessions = {f"sts.AssumeRole,{segment(name.encode()).decode()},,1": "x" for name in names}

    with pytest.raises(BadRequest) as told:
        await read(many)

    assert "has 10001 keys, and 500 are read at once" in told.value.message
    assert told.value.message.endswith("type `vault-client import aws-vault NAME…`")
    assert set(opened(await read(many, "mine"))) == {"mine"}
    assert set(await read(stored(tmp_path / "sessions", sessions | {"mine": key("mine")}))) == {"mine"}


async def test_more_names_than_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without end is not listed without end."""
    monkeypatch.setattr(aws_vault, "MOST_NAMES", 3)

    with pytest.raises(BadRequest, match="has more than 3 files"):
        await read(stored(tmp_path, dict.fromkeys("abcd", "x")), "a")
    assert len(await read(stored(tmp_path / "control", dict.fromkeys("abc", "x")))) == 3


@pytest.mark.parametrize(
    "name",
    [
        "session,x,y,12", "session:x:y:z", "x session (12)", "oidc:https://x/start",
        "sts.GetSessionToken,aWRlbnRpdHk,,4099060800", "sts.AssumeRole,aWQ,YQ,0",
    ],
)  # fmt: skip
async def test_sessions_are_left_out_by_name(tmp_path: Path, name: str) -> None:
    """Their five forms; a key whose name only looks so is one."""
    files = {name.replace("/", "%2F"): "x", "a,b,c,d": key("a,b,c,d"), "a,!,c,1": key("a,!,c,1")}

    assert set(opened(await read(stored(tmp_path, files)))) == {"a,b,c,d", "a,!,c,1"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (item("another"), "what is in it was written for another name"),
        (b"[]", "it is damaged"),
        (b"\xff", "it is damaged"),
        (b"[" * 100_000, "it is damaged: it has more than 64 KiB"),
        (b"[" * 40_000, "it is damaged"),
        (b'{"Key": "mine", "Data": "e30"}', "it is damaged"),
        (b'{"Key": "mine", "Data": 7}', "it is damaged"),
        (b'{"Key": "mine", "Data": "W10="}', "it is damaged"),
        (item("mine", SessionToken="t"), "it is a temporary key"),
        (item("mine", AccessKeyID="akia"), "it holds no access key id"),
        (item("mine", AccessKeyID=["AKIACRAFTED000000001"]), "it holds no access key id"),
        (item("mine", AccessKeyID="AKIACRAFTED000000001\n"), "it holds no access key id"),
        (item("mine", SecretAccessKey=""), "it holds no secret access key"),
        (item("mine", SecretAccessKey="two words"), "it holds no secret access key"),
        (item("mine", SecretAccessKey="\ud800"), "it holds no secret access key"),
    ],
)
async def test_what_is_sealed_and_no_key(tmp_path: Path, content: bytes, said: str) -> None:
    """The passphrase fits; what it opens is not what aws-vault stores under that name."""
    found = await read(stored(tmp_path, {"mine": message(content).decode()}))

    assert found["mine"].key is None
    assert found["mine"].wrong.startswith(said), found
    assert "canary" not in found["mine"].wrong


async def test_fields_in_any_case(tmp_path: Path) -> None:
    """Go's decoder takes them in any; newer versions add AccountID."""
    content = item("mine", AccessKeyID="", SecretAccessKey="", accesskeyid="AKIALOWER00000000001", AccountID="1")

    found = await read(stored(tmp_path, {"mine": message(content).decode()}))

    assert found["mine"].wrong.startswith("it holds no secret access key"), "the last of two spellings counts"


# ---- whose they are ----


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _hard(path: Path) -> None:
    os.link(path, path.parent.parent / "second")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_link, "is a link"),
        (_hard, "has a second name (a hard link)"),
        (_fifo, "is a FIFO"),
        (_directory, "is a directory"),
        (lambda path: path.chmod(0o644), "may be read by others: run `chmod 600"),
        (lambda path: path.chmod(0o620), "may be written to by others: run `chmod 600"),
    ],
)
async def test_a_file_that_is_not_the_users_alone(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    """Refused by name, never followed; the others go on."""
    keys = stored(tmp_path, {"mine": key("mine"), "sound": key("sound")})
    make(keys / "mine")

    found = await read(keys, "mine", "sound")

    assert said in found["mine"].wrong
    assert str(keys / "mine") in found["mine"].wrong
    assert set(opened(found)) == {"sound"}


@pytest.mark.needs("root")
async def test_another_users_file_and_directory(tmp_path: Path) -> None:
    """security.md §2.2 item 24."""
    keys = stored(tmp_path, {"mine": key("mine"), "sound": key("sound")})
    os.chown(keys / "mine", 12345, -1)

    assert "belongs to another user" in (await read(keys))["mine"].wrong
    os.chown(keys, 12345, -1)
    with pytest.raises(FileRefused, match="belongs to another user"):
        await read(keys)


async def test_the_directory(tmp_path: Path) -> None:
    """Absent, a file, writable by others: one sentence. A link of the user's own is followed, as for his config."""
    keys = stored(tmp_path, {"mine": key("mine")})
    (tmp_path / "link").symlink_to(keys)
    (tmp_path / "file").write_text("x")

    assert set(opened(await read(tmp_path / "link"))) == {"mine"}
    with pytest.raises(NotFound, match="set AWS_VAULT_FILE_DIR") as told:
        await read(tmp_path / "nothing")
    assert told.value.message.endswith("with --backend secret-service")
    with pytest.raises(FileRefused, match="is a file"):
        await read(tmp_path / "file")
    with pytest.raises(BadRequest, match="field place"):
        await read(Path("relative"))
    keys.chmod(0o770)
    with pytest.raises(FileRefused, match="may be written to by others"):
        await read(keys)


async def test_two_files_of_one_name(tmp_path: Path) -> None:
    """`a` and `%61` are one name: which of them is meant is not guessed."""
    found = await read(stored(tmp_path, {"a": key("a"), "%61": key("a"), "b%zz%": key("b%zz%")}))

    assert found["a"].wrong.startswith("2 files have that name")
    assert set(opened(found)) == {"b%zz%"}, "what is no escape stays as it is"


async def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """aws-vault writes UTF-8; anything else is nobody's key, and the rest is read."""
    keys = stored(tmp_path, {"mine": key("mine")})
    (keys / "mine").rename(os.fsdecode(os.fsencode(keys) + b"/\xff"))
    (keys / "sound").write_text(key("sound"))
    (keys / "sound").chmod(0o600)

    assert set(opened(await read(keys))) == {"sound"}


# ---- deleting ----


async def test_a_file_is_deleted_only_as_it_was_read(tmp_path: Path) -> None:
    """One that aws-vault has written anew since then stays; twice is fine; nothing else is touched."""
    keys = stored(tmp_path)
    vault, source = AwsVault(Files(), clock=FakeClock()), ForeignStore("file", str(keys))
    found = await read(keys)
    before = set(listed(keys))

    await vault.drop(source, found["team/prod"])
    await vault.drop(source, found["team/prod"])
    assert before - set(listed(keys)) == {"team%2Fprod"}

    (keys / "identity").write_text(key("identity"))
    with pytest.raises(NotImported) as told:
        await vault.drop(source, found["identity"])
    assert told.value.message.endswith("type `vault-client import aws-vault identity`")
    assert (keys / "identity").exists()


async def test_a_disk_that_takes_no_deletion(tmp_path: Path) -> None:
    """Told by the path; the file is there."""

    def full(operation: str, path: Path) -> None:
        if operation == "unlink":
            raise OSError(30, "read-only")

    keys = stored(tmp_path, {"mine": key("mine")})
    found = await read(keys)

    with pytest.raises(Unwritable, match="cannot be deleted by vaultd, and its key is stored") as told:
        await AwsVault(Files(fault=full), clock=FakeClock()).drop(ForeignStore("file", str(keys)), found["mine"])
    assert told.value.message.endswith(f"type `rm {keys / 'mine'}`")
    assert (keys / "mine").exists()


async def test_a_disk_that_fails_to_read(tmp_path: Path) -> None:
    """EIO in one file is its own line."""

    def broken(operation: str, path: Path) -> None:
        if operation == "read" and path.name == "mine":
            raise OSError(5, "I/O error")

    keys = stored(tmp_path, {"mine": key("mine"), "sound": key("sound")})

    found = await read(keys, files=Files(fault=broken))

    assert "cannot be read" in found["mine"].wrong
    assert set(opened(found)) == {"sound"}


async def test_a_directory_that_hangs(tmp_path: Path) -> None:
    """A disk of the network that does not answer: 30 s of the clock, and the loop goes on."""
    clock, release = FakeClock(), threading.Event()

    def hang(operation: str, path: Path) -> None:
        release.wait(20)

    keys = stored(tmp_path, {"mine": key("mine")})
    vault = AwsVault(Files(fault=hang), clock=clock)
    call = asyncio.create_task(vault.read(ForeignStore("file", str(keys)), passphrase=Secret("x"), names=()))
    await clock.advance(30)
    with pytest.raises(VaultdError, match="did not answer within 30 seconds"):
        await call
    release.set()
