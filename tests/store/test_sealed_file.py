"""vaultd/store/sealed_file.py and sealed_format.py: right and wrong passphrases, tampering, rollback, deaths."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import FakeClock
from tests.store.dying import every_death
from vaultd.engine.seams import IdentityStore
from vaultd.errors import (
    BadRequest,
    FileRefused,
    Locked,
    StoreDamaged,
    StoreRolledBack,
    StoreUnavailable,
    Unwritable,
    VaultdError,
    WrongPassphrase,
)
from vaultd.files import Files
from vaultd.model.secret import Secret
from vaultd.store import sealed_file, sealed_format
from vaultd.store.sealed_file import SealedFile
from vaultd.store.sealed_format import ARGON2ID, DEFAULT, HEADER_SIZE, SCRYPT, Header, Kdf, Malformed

FLOOR = Kdf(ARGON2ID, m=19 * 1024, t=1, p=1)
PHRASE = "correct horse"


def store(directory: Path, *, files: Files | None = None, kdf: Kdf | None = FLOOR) -> SealedFile:
    return SealedFile(
        files or Files(),
        directory / "secrets.sealed",
        seen=directory / "secrets.seen",
        clock=FakeClock(),
        kdf=kdf,
    )


async def opened(directory: Path, *, files: Files | None = None, phrase: str = PHRASE) -> SealedFile:
    found = store(directory, files=files)
    await found.open(Secret(phrase), create=True)
    return found


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def modes(directory: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in directory.iterdir()}


async def text(found: SealedFile, item: str) -> str | None:
    value = await found.load(item)
    return value.reveal() if value else None


def test_it_is_an_identity_store(tmp_path: Path) -> None:
    """The seam that the keeper knows."""
    found: IdentityStore = store(tmp_path)

    assert found.kind == "file"
    assert found.needs_passphrase()
    assert not found.exists()


async def test_round_trip(tmp_path: Path) -> None:
    """What was saved is there after the daemon is gone; dropped items are not; nothing is readable on disk."""
    first = await opened(tmp_path)
    await first.save("uuid-1", Secret("KEYCANARY"))
    await first.save("uuid-2", Secret("two"))
    await first.save("uuid-1", Secret("KEYCANARY-2"))
    await first.drop("uuid-2")
    await first.drop("uuid-2")
    second = await opened(tmp_path)

    assert await text(second, "uuid-1") == "KEYCANARY-2"
    assert await second.load("uuid-2") is None
    assert second.exists()
    assert not second.needs_passphrase()
    content = (tmp_path / "secrets.sealed").read_bytes()
    assert b"CANARY" not in content
    assert b"uuid" not in content
    assert modes(tmp_path) == {"secrets.sealed": 0o600, "secrets.seen": 0o600}


async def test_the_header_is_the_contracts(tmp_path: Path) -> None:
    """interface.md §1: magic, u16 version, u8 suite, u8 KDF, u32 m, t, p, salt; then uuid, generation."""
    await opened(tmp_path)
    content = (tmp_path / "secrets.sealed").read_bytes()
    magic, version, suite, kdf, m, t, p, _, _, generation, created = struct.unpack_from("<8sHBBIII16s16sQq", content)

    assert (magic, version, suite, kdf, m, t, p) == (b"VAULTDS1", 1, 1, 1, 19 * 1024, 1, 1)
    assert generation == 1
    assert created == int(FakeClock().now().timestamp())


async def test_a_new_store_costs_what_rfc_9106_says(tmp_path: Path) -> None:
    """security.md §3.3: m = 64 MiB, t = 3, p = 4, unless a test asks for less."""
    found = store(tmp_path, kdf=None)
    await found.open(Secret(PHRASE), create=True)
    _, _, _, kind, m, t, p, _ = struct.unpack_from("<8sHBBIII16s", (tmp_path / "secrets.sealed").read_bytes())

    assert (kind, m, t, p) == (1, 65536, 3, 4)
    assert sealed_format.default_kdf() == DEFAULT


async def test_every_rewrite_has_a_new_data_key(tmp_path: Path) -> None:
    """Nonces cannot meet: no byte of the old records or of the wrapped key is left, the generation grows."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    before = (tmp_path / "secrets.sealed").read_bytes()
    await found.save("a", Secret("1"))
    after = (tmp_path / "secrets.sealed").read_bytes()

    assert before[72:132] != after[72:132]
    assert before[HEADER_SIZE + 32 :] != after[HEADER_SIZE + 32 :]
    assert found.generation == 3


# ---- passphrases ----


async def test_a_wrong_passphrase_is_not_damage(tmp_path: Path) -> None:
    """The commit tag tells them apart; an open store stays open; the file is untouched."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    before = (tmp_path / "secrets.sealed").read_bytes()
    with pytest.raises(WrongPassphrase, match="unlock"):
        await store(tmp_path).open(Secret("correct hors"), create=True)
    with pytest.raises(WrongPassphrase):
        await found.open(Secret("wrong"))

    assert await text(found, "a") == "1"
    assert (tmp_path / "secrets.sealed").read_bytes() == before


async def test_a_passphrase_is_text_not_bytes(tmp_path: Path) -> None:
    """Two keyboards type é in two ways: NFC makes them one; spaces and case count."""
    await opened(tmp_path, phrase="caf\u00e9")
    await opened(tmp_path, phrase="cafe\u0301")
    for other in ("CAF\u00c9", "caf\u00e9 ", "cafe"):
        with pytest.raises(WrongPassphrase):
            await opened(tmp_path, phrase=other)


@pytest.mark.parametrize("phrase", [b"", b"\xff\xfe"])
async def test_an_empty_or_undecodable_passphrase_is_refused(tmp_path: Path, phrase: bytes) -> None:
    """Zero-length is never consent; the bytes of a bad one appear in no error."""
    with pytest.raises(BadRequest) as caught:
        await store(tmp_path).open(Secret(phrase), create=True)

    assert not (tmp_path / "secrets.sealed").exists()
    assert caught.value.__cause__ is None
    assert "xff" not in repr(caught.value)


async def test_without_a_passphrase_it_is_locked(tmp_path: Path) -> None:
    """Said with the next step; no file is made on the way."""
    for arguments in ((None, True), (None, False), (Secret(PHRASE), False)):
        with pytest.raises(Locked, match="unlock"):
            await store(tmp_path).open(arguments[0], create=arguments[1])

    assert not (tmp_path / "secrets.sealed").exists()


async def test_a_shut_store_gives_nothing(tmp_path: Path) -> None:
    """Closing forgets the keys; every call says what to type."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    state = found._state
    assert state is not None
    found.close()
    found.close()

    assert not state.keys.wrap
    assert not state.keys.commit
    for call in (found.load("a"), found.save("a", Secret("2")), found.drop("a")):
        with pytest.raises(Locked, match="unlock"):
            await call
    assert await text(await opened(tmp_path), "a") == "1"


# ---- the derivation ----


async def test_one_derivation_at_a_time_off_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five unlocks at once never derive side by side, never on the loop's thread; the loop turns meanwhile."""
    found = await opened(tmp_path)
    running, most = 0, 0
    threads = set()
    guard = threading.Lock()
    held = threading.Event()

    def slow(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        threads.add(threading.current_thread())
        held.wait(10)
        with guard:
            running -= 1
        return sealed_format.derive(kdf, salt, passphrase)

    monkeypatch.setattr(sealed_file, "derive", slow)
    waiting = [asyncio.create_task(found.open(Secret(PHRASE))) for _ in range(5)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    held.set()
    await asyncio.gather(*waiting)

    assert most == 1
    assert len(threads) == 5
    assert threading.main_thread() not in threads
    assert all(each.daemon for each in threads)


async def test_a_derivation_nobody_waits_for_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves during unlock: no error in the loop, the store stays shut."""
    (await opened(tmp_path)).close()
    held, done = threading.Event(), threading.Event()

    def slow(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
        held.wait(10)
        done.set()
        return bytes(32), bytes(32)

    monkeypatch.setattr(sealed_file, "derive", slow)
    found = store(tmp_path)
    leaving = asyncio.create_task(found.open(Secret(PHRASE)))
    await asyncio.sleep(0)
    leaving.cancel()
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await asyncio.to_thread(done.wait, 10)

    assert found.needs_passphrase()


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("x")])
async def test_a_derivation_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """No memory, no Argon2id: a typed error with a way out."""

    def fails(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
        raise failure

    monkeypatch.setattr(sealed_file, "derive", fails)
    with pytest.raises(StoreUnavailable, match=type(failure).__name__):
        await opened(tmp_path)


async def test_scrypt_where_there_is_no_argon2id(tmp_path: Path) -> None:
    """KDF 2 in the header; the rest is the same. N at its floor here, 2^17 in the product."""
    found = store(tmp_path, kdf=Kdf(SCRYPT, m=1 << 15, t=1, p=1))
    await found.open(Secret(PHRASE), create=True)
    await found.save("a", Secret("1"))

    assert (tmp_path / "secrets.sealed").read_bytes()[11] == 2
    assert await text(await opened(tmp_path), "a") == "1"
    assert sealed_format.FALLBACK.m == 1 << 17
    with pytest.raises(WrongPassphrase):
        await opened(tmp_path, phrase="x")


BOUNDS = [
    Kdf(ARGON2ID, m=19 * 1024 - 1, t=1, p=1),
    Kdf(ARGON2ID, m=1024 * 1024 + 1, t=1, p=1),
    Kdf(ARGON2ID, m=16 * 1024 * 1024, t=1, p=1),
    Kdf(ARGON2ID, m=19 * 1024, t=0, p=1),
    Kdf(ARGON2ID, m=19 * 1024, t=11, p=1),
    Kdf(ARGON2ID, m=19 * 1024, t=1, p=0),
    Kdf(ARGON2ID, m=19 * 1024, t=1, p=9),
    Kdf(SCRYPT, m=(1 << 15) + 1, t=1, p=1),
    Kdf(SCRYPT, m=1 << 14, t=1, p=1),
    Kdf(SCRYPT, m=1 << 15, t=2, p=1),
    Kdf(0, m=19 * 1024, t=1, p=1),
    Kdf(3, m=19 * 1024, t=1, p=1),
]


@pytest.mark.parametrize("kdf", BOUNDS)
async def test_bounds_hold_before_anything_is_derived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kdf: Kdf
) -> None:
    """security.md §3.3: a header asking for 16 GiB, or for a weak key, is refused, checksum or not."""
    await opened(tmp_path)
    path = tmp_path / "secrets.sealed"
    content = bytearray(path.read_bytes())
    struct.pack_into("<BIII", content, 11, kdf.kind, kdf.m, kdf.t, kdf.p)
    content[HEADER_SIZE : HEADER_SIZE + 32] = hashlib.sha256(content[:HEADER_SIZE]).digest()
    put(path, bytes(content))

    def never(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
        raise AssertionError("derived")

    monkeypatch.setattr(sealed_file, "derive", never)
    with pytest.raises(StoreDamaged, match="out of bounds"):
        await opened(tmp_path)
    with pytest.raises(Malformed):
        sealed_format.derive(kdf, bytes(16), PHRASE)
    with pytest.raises(Malformed):
        sealed_format.render(Header(kdf, bytes(16), bytes(16), 1, 0), {}, wrap=bytes(32), commit=bytes(32))


# ---- tampering ----


async def test_every_flipped_byte_is_damage(tmp_path: Path) -> None:
    """security.md §2.2 item 26: flip each byte of header and records, always StoreDamaged, never another item."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    await found.save("b", Secret("2"))
    path = tmp_path / "secrets.sealed"
    content = path.read_bytes()
    for position in range(len(content)):
        broken = bytearray(content)
        broken[position] ^= 0x01
        put(path, bytes(broken))
        with pytest.raises(StoreDamaged, match=r"secrets\.sealed"):
            await found.load("a")
        with pytest.raises(StoreDamaged):
            await found.save("c", Secret("3"))
        assert path.read_bytes() == broken
    put(path, content)

    assert await text(found, "a") == "1"


async def test_every_shorter_or_longer_file_is_damage(tmp_path: Path) -> None:
    """The record count is authenticated: no cut, at a record's edge or elsewhere, passes for a smaller store."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    path = tmp_path / "secrets.sealed"
    content = path.read_bytes()
    for length in range(len(content)):
        put(path, content[:length])
        with pytest.raises(StoreDamaged):
            await found.load("a")
    put(path, content + b"\0")
    with pytest.raises(StoreDamaged):
        await found.load("a")


@pytest.mark.parametrize("position", [12, 24, 40, 56, 64, 72, 84, 140, 170])
async def test_a_forged_header_is_a_typed_error(tmp_path: Path, position: int) -> None:
    """With the checksum made to fit: what only the passphrase can tell is WrongPassphrase, the rest StoreDamaged."""
    await opened(tmp_path)
    path = tmp_path / "secrets.sealed"
    content = bytearray(path.read_bytes())
    content[position] ^= 0x01
    content[HEADER_SIZE : HEADER_SIZE + 32] = hashlib.sha256(content[:HEADER_SIZE]).digest()
    put(path, bytes(content))
    covered_by_the_passphrase_tag = position < 40 or 132 <= position < 164

    with pytest.raises(WrongPassphrase if covered_by_the_passphrase_tag else StoreDamaged):
        await store(tmp_path).open(Secret(PHRASE))


def _split(content: bytes) -> tuple[bytes, list[bytes]]:
    start = HEADER_SIZE + 32
    head, records = content[:start], []
    while start < len(content):
        end = start + 33 + int.from_bytes(content[start + 17 : start + 21], "little") + 16
        records.append(content[start:end])
        start = end
    return head, records


async def test_records_are_not_swapped_or_brought_over(tmp_path: Path) -> None:
    """AAD binds header, place, uuid, type and length; an older version's record does not fit the new one."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    path = tmp_path / "secrets.sealed"
    _, older = _split(path.read_bytes())
    await found.save("b", Secret("2"))
    head, (count, first, second) = _split(path.read_bytes())
    for forged in (
        head + count + first + older[1],
        head + older[0] + first + second,
        head + first + count + second,
        head + count + first + first[:16] + second[16:],
        head + count + first,
    ):
        put(path, forged)
        with pytest.raises(StoreDamaged):
            await found.load("a")
    put(path, head + count + first + second)

    assert await text(found, "b") == "2"


@pytest.mark.parametrize("attack", ["copied over", "copied back", "swapped", "dropped", "twice", "none"])
async def test_a_record_opens_at_its_own_place_only(tmp_path: Path, attack: str) -> None:
    """Who may write to the file, and has no passphrase, cannot put key A in key B's place or make one vanish, though
    the records are genuine, of this version, and as long as each other. Control: as they were, all of them open.
    """
    found = await opened(tmp_path)
    for name in "abc":
        await found.save(name, Secret(f"value of {name}"))
    path = tmp_path / "secrets.sealed"
    head, (count, a, b, c) = _split(path.read_bytes())
    assert len(a) == len(b) == len(c)
    forged = {
        "copied over": [a, a, c],
        "copied back": [b, b, c],
        "swapped": [b, a, c],
        "dropped": [a, c],
        "twice": [a, b, c, c],
        "none": [a, b, c],
    }[attack]
    put(path, head + count + b"".join(forged))
    if attack == "none":
        assert [await text(found, name) for name in "abc"] == ["value of a", "value of b", "value of c"]
        return
    for name in "abc":
        with pytest.raises(StoreDamaged, match=r"secrets\.sealed"):
            await found.load(name)
    with pytest.raises(StoreDamaged):
        await store(tmp_path).open(Secret(PHRASE))


def test_a_name_that_comes_twice_is_damage() -> None:
    """Even with records that verify: the later one never silently takes the place of the first."""
    names = ["one", "two"]
    wrap, commit = bytes(32), bytes(range(32))
    header = Header(FLOOR, bytes(16), bytes(16), 1, 0)

    class Twice(dict[str, bytes]):
        def items(self) -> Any:
            return [(name, b"x") for name in names]

    def reopened() -> dict[str, bytes]:
        content = sealed_format.render(header, Twice(one=b"", two=b""), wrap=wrap, commit=commit)
        return sealed_format.open_items(content, header, wrap=wrap, commit=commit)

    assert reopened() == {"one": b"x", "two": b"x"}
    names[:] = ["one", "one"]
    with pytest.raises(Malformed, match="twice"):
        reopened()


@given(st.binary(max_size=400), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_any_bytes_are_a_typed_error(content: bytes, honest: bool) -> None:
    """security.md §6.3: no traceback, nothing derived from what is not ours; also behind a valid header prefix."""
    prefix = struct.pack("<8sHBBIII", b"VAULTDS1", 1, 1, 1, 19 * 1024, 1, 1) if honest else b""
    with pytest.raises(Malformed):
        sealed_format.read_header(prefix + content)


# ---- rollback ----


async def test_yesterdays_file_is_noticed(tmp_path: Path) -> None:
    """security.md §2.2 item 26: at open and under an open store, until it is accepted; then it is the newest."""
    found = await opened(tmp_path)
    await found.save("a", Secret("old"))
    path = tmp_path / "secrets.sealed"
    yesterday = path.read_bytes()
    await found.save("a", Secret("new"))
    put(path, yesterday)

    with pytest.raises(StoreRolledBack, match=r"vaultd start --accept-rollback"):
        await found.load("a")
    with pytest.raises(StoreRolledBack, match=r"generation 2.*generation 3"):
        await opened(tmp_path)
    again = store(tmp_path)
    await again.open(Secret(PHRASE), accept_rollback=True)
    assert await text(again, "a") == "old"
    assert again.generation == 4
    await store(tmp_path).open(Secret(PHRASE), seen=3)  # what the index had seen stands no longer in the way


async def test_the_index_remembers_too(tmp_path: Path) -> None:
    """Whoever rolls both files back still meets what the index has seen."""
    found = await opened(tmp_path)
    (tmp_path / "secrets.seen").unlink()
    with pytest.raises(StoreRolledBack):
        await found.open(Secret(PHRASE), seen=2)

    await found.open(Secret(PHRASE), seen=1)
    await found.open(Secret(PHRASE), seen=9, accept_rollback=True)
    await found.open(Secret(PHRASE), seen=9)


async def test_another_store_is_not_the_one_last_seen(tmp_path: Path) -> None:
    """A whole other file with the same passphrase is a rollback as well; what cannot be read says nothing."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    await opened(tmp_path / "one")
    await (await opened(tmp_path / "two")).save("a", Secret("1"))
    put(tmp_path / "one/secrets.sealed", (tmp_path / "two/secrets.sealed").read_bytes())
    with pytest.raises(StoreRolledBack):
        await opened(tmp_path / "one")

    put(tmp_path / "two/secrets.seen", b"{")
    with pytest.raises(StoreRolledBack, match=r"secrets\.seen"):
        await opened(tmp_path / "two")
    await store(tmp_path / "two").open(Secret(PHRASE), accept_rollback=True)
    assert json.loads((tmp_path / "two/secrets.seen").read_bytes())["generation"] == 2


async def test_a_missing_file_is_not_a_new_store(tmp_path: Path) -> None:
    """interface.md §1: StoreDamaged while the index lists identities in it, `create` or not; accepted at last."""
    for create in (True, False):
        with pytest.raises(StoreDamaged, match="backup"):
            await store(tmp_path).open(Secret(PHRASE), create=create, expected=True)
    assert not (tmp_path / "secrets.sealed").exists()

    await store(tmp_path).open(Secret(PHRASE), create=True, expected=True, accept_rollback=True)
    assert (tmp_path / "secrets.sealed").exists()


async def test_a_file_that_vanishes_under_an_open_store_is_damage(tmp_path: Path) -> None:
    """It is not written again from nothing."""
    found = await opened(tmp_path)
    (tmp_path / "secrets.sealed").unlink()
    for call in (found.load("a"), found.save("a", Secret("1"))):
        with pytest.raises(StoreDamaged, match="missing"):
            await call


async def test_a_store_made_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two first unlocks at once, with two passphrases: the first wins, the other hears of it."""
    (tmp_path / "other").mkdir()
    await opened(tmp_path / "other")
    theirs = (tmp_path / "other/secrets.sealed").read_bytes()

    def slow(kdf: Kdf, salt: bytes, passphrase: str) -> tuple[bytes, bytes]:
        put(tmp_path / "secrets.sealed", theirs)
        return sealed_format.derive(kdf, salt, passphrase)

    monkeypatch.setattr(sealed_file, "derive", slow)
    with pytest.raises(Locked, match="meanwhile"):
        await opened(tmp_path, phrase="second")

    assert (tmp_path / "secrets.sealed").read_bytes() == theirs


async def test_a_hostile_file_is_refused(tmp_path: Path) -> None:
    """interface.md §1, for the store and for what was seen."""
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / "secrets.sealed").symlink_to("elsewhere")
    with pytest.raises(FileRefused, match=r"secrets\.sealed"):
        await opened(tmp_path)

    assert (tmp_path / "elsewhere").read_bytes() == b""


# ---- disks and deaths ----


def failing(operation: str, code: int, name: str) -> Callable[[str, Path], None]:
    def fault(called: str, path: Path) -> None:
        if called == operation and name in path.name:
            raise OSError(code, os.strerror(code))

    return fault


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "rename"])
async def test_a_full_disk_keeps_the_old_store(tmp_path: Path, operation: str, code: int) -> None:
    """Unwritable, the file byte for byte as before, and the store goes on once there is room."""
    found = await opened(tmp_path)
    await found.save("a", Secret("1"))
    before = (tmp_path / "secrets.sealed").read_bytes()
    name = "secrets.sealed" if operation == "rename" else ".secrets.sealed"  # the new file, not the one that is read
    whole, found._files = found._files, Files(fault=failing(operation, code, name))
    with pytest.raises(Unwritable, match=r"secrets\.sealed"):
        await found.save("a", Secret("2"))
    assert (tmp_path / "secrets.sealed").read_bytes() == before

    found._files = whole
    assert await text(found, "a") == "1"
    await found.save("a", Secret("3"))
    assert await text(await opened(tmp_path), "a") == "3"


async def test_a_full_disk_makes_no_new_store(tmp_path: Path) -> None:
    """Nothing half is left, and the store is shut as before."""
    found = store(tmp_path, files=Files(fault=failing("write", errno.ENOSPC, "secrets.sealed")))
    with pytest.raises(Unwritable):
        await found.open(Secret(PHRASE), create=True)

    assert found.needs_passphrase()
    assert modes(tmp_path) == {}


async def test_a_full_state_disk_does_not_stop_a_save(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The key is safe in the data directory; only the note of the generation is older, and the log says so."""
    found = await opened(tmp_path)
    found._files = Files(fault=failing("write", errno.ENOSPC, "secrets.seen"))
    await found.save("a", Secret("1"))

    assert "skip generation-note" in caplog.text
    assert await text(await opened(tmp_path), "a") == "1"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_call_of_a_save_leaves_old_or_new(tmp_path: Path) -> None:
    """security.md §2.2 item 25: never torn, never locked out as rolled back."""
    path = tmp_path / "secrets.sealed"

    async def start() -> None:
        await (await opened(tmp_path)).save("a", Secret("old"))

    asyncio.run(start())
    files = [(each, each.read_bytes()) for each in (path, tmp_path / "secrets.seen")]
    keys = sealed_format.derive(FLOOR, path.read_bytes()[24:40], PHRASE)

    def ready(files: Files) -> SealedFile:
        found = store(tmp_path, files=files)
        header = sealed_format.read_header(path.read_bytes())
        found._state = sealed_file._Opened(sealed_file._Keys(Secret(keys[0]), Secret(keys[1])), header)
        return found

    def work(files: Files) -> None:
        found = ready(files)
        asyncio.run(found.save("a", Secret("new")))

    seen = []
    for point in every_death(work):
        assert asyncio.run(text(ready(Files()), "a")) in {"old", "new"}
        if point % 16 == 0:
            asyncio.run(opened(tmp_path))  # the whole open, with its rollback check
        seen.append(asyncio.run(text(ready(Files()), "a")))
        for each, content in files:
            put(each, content)

    assert set(seen) == {"old", "new"}
    assert len(seen) >= 30


async def test_errors_are_of_the_tree_and_show_nothing(tmp_path: Path) -> None:
    """architecture.md §9: one sentence, no passphrase, no value in any of them."""
    found = await opened(tmp_path)
    await found.save("a", Secret("VALUECANARY"))
    errors: list[VaultdError] = []
    for phrase, create in (("PHRASECANARY", True), ("PHRASECANARY", False)):
        with pytest.raises(VaultdError) as caught:
            await store(tmp_path).open(Secret(phrase), create=create)
        errors.append(caught.value)

    assert not any("CANARY" in repr(error) + repr(error.__cause__) for error in errors)
    assert "CANARY" not in repr(vars(found)) + repr(found._state)
