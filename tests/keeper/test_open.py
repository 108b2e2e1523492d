"""Opening and closing: which store, how far without a person, what survives."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.fakes import FakeClock, FakeStore
from tests.keeper.rooms import HOUR, SERIAL, Home, add_franklin, from_handle, handle_of, session_of, with_code
from vaultd.engine.seams import Head, Note
from vaultd.errors import (
    CodeSpent,
    FileRefused,
    KeyringBusy,
    Locked,
    Misconfigured,
    StoreDamaged,
    StoreUnavailable,
    Unwritable,
    WrongPassphrase,
)
from vaultd.model.secret import Secret
from vaultd.store.sealed_file import SealedFile
from vaultd.store.sealed_format import ARGON2ID, Kdf

PASSPHRASE = Secret("correct horse")


async def test_an_empty_home_with_a_keyring_opens(home: Home) -> None:
    """`auto` takes the keyring where there is one; the data key is made at the first open and is there at the next."""
    _, opened = await home.opened()

    assert (opened.store, opened.locked, opened.reason, opened.handles) == ("keyring", False, "", ())
    assert home.keyring is not None
    made = dict(home.keyring.items)
    assert list(made) == ["data-key"]
    await home.opened()
    assert home.keyring.items == made


async def test_an_empty_home_without_keyring_or_person_starts_locked(home: Home) -> None:
    """interface.md §2: it says what it lacks and what to type; nothing is created."""
    home.keyring = None

    _, opened = await home.opened()

    assert (opened.store, opened.locked) == ("file", True)
    assert opened.reason == (
        "keys will be kept in an encrypted file that has no passphrase yet; set one with `vault-client unlock`"
    )
    assert not home.file.exists()


async def test_unlock_with_a_passphrase_creates_the_file_store(home: Home) -> None:
    """interface.md §2: `unlock` opens the store, or creates it; a locked start comes first."""
    home.keyring = None
    keeper, _ = await home.opened()

    opened = await keeper.open(passphrase=PASSPHRASE, unlock=True)

    assert (opened.store, opened.locked) == ("file", False)
    assert (await home.keeper().open()).reason == "the encrypted file store is shut; run `vault-client unlock`"


async def test_a_wrong_passphrase_is_told_and_opens_nothing(home: Home) -> None:
    """WrongPassphrase is raised; the keeper stays shut and the next try may succeed."""
    home.choice = "file"
    keeper = home.keeper()
    await keeper.open(passphrase=PASSPHRASE)
    again = home.keeper()

    with pytest.raises(WrongPassphrase):
        await again.open(passphrase=Secret("wrong"), unlock=True)
    with pytest.raises(Locked):
        await again.mint(with_code())

    assert not (await again.open(passphrase=PASSPHRASE, unlock=True)).locked


async def test_a_missing_file_store_is_damage(home: Home) -> None:
    """interface.md §1: missing while identities are listed in it is StoreDamaged, with or without a passphrase."""
    home.choice = "file"
    keeper = home.keeper()
    await keeper.open(passphrase=PASSPHRASE)
    await add_franklin(keeper)
    home.file = FakeStore(passphrase="correct horse", there=False)

    for passphrase in (None, PASSPHRASE):
        with pytest.raises(StoreDamaged, match=r"secrets\.sealed is missing .*restore it from a backup"):
            await home.keeper().open(passphrase=passphrase, unlock=passphrase is not None)
    assert not home.file.exists()


async def test_the_recorded_store_is_never_switched(home: Home) -> None:
    """Identities in the file: `auto` stays with it though a keyring has come; an explicit other one is refused."""
    keyring, home.keyring = home.keyring, None
    keeper = home.keeper()
    await keeper.open(passphrase=PASSPHRASE, unlock=True)
    await add_franklin(keeper)
    home.keyring = keyring

    assert (await home.keeper().open()).store == "file"
    home.choice = "keyring"
    with pytest.raises(StoreUnavailable, match=r"^backend changed: the identities are in file and the store is now"):
        await home.keeper().open()


async def test_another_keyring_is_a_change_too(home: Home) -> None:
    """security.md §3.1: the backend's id is recorded, and a silent switch refused."""

    class Wallet(FakeStore):
        @property
        def backend(self) -> str:
            return "kwallet"

    await home.with_franklin()
    home.keyring = Wallet()

    with pytest.raises(StoreUnavailable, match="the identities are in secret-service and the store is now kwallet"):
        await home.keeper().open()


async def test_a_recorded_keyring_that_is_not_there_locks(home: Home) -> None:
    """No fall-back to a file for identities that are in a keyring; the daemon starts, locked, and says why."""
    await home.with_franklin()
    home.keyring = None

    _, opened = await home.opened()

    assert (opened.store, opened.locked) == ("keyring", True)
    assert opened.reason == "there is no OS keyring here; set `[store] backend` to file"


async def test_a_chosen_keyring_that_is_not_there_is_an_error(home: Home) -> None:
    """Nothing is recorded and the user chose it: which store to choose is said, not guessed."""
    home.keyring = None
    home.choice = "keyring"

    with pytest.raises(StoreUnavailable):
        await home.keeper().open()


async def test_a_busy_keyring_locks_at_start_and_is_told_at_unlock(home: Home) -> None:
    """Everything that needs no keyring goes on; the person at `unlock` sees the error itself."""
    assert home.keyring is not None
    home.keyring.broken = KeyringBusy("the keyring does not answer; unlock it and run `vault-client unlock`")
    keeper, opened = await home.opened()

    assert opened.locked
    assert opened.reason == "the keyring does not answer; unlock it and run `vault-client unlock`"
    with pytest.raises(KeyringBusy):
        await keeper.open(unlock=True)
    home.keyring.broken = None
    assert not (await keeper.open(unlock=True)).locked


async def test_locked_survives_a_restart_until_unlock(home: Home) -> None:
    """The marker keeps it shut, keyring or not, passphrase or not, and the keyring is not even asked."""
    keeper = await home.with_franklin()
    assert await keeper.close(None) == 1
    assert home.keyring is not None
    home.keyring.calls.clear()

    for passphrase in (None, PASSPHRASE):
        opened = await home.keeper().open(passphrase=passphrase)
        assert (opened.locked, opened.reason) == (True, "vaultd is locked; run `vault-client unlock`")
    assert home.keyring.calls == []
    assert not (await home.keeper().open(unlock=True)).locked
    assert not (await home.keeper().open()).locked


async def test_stop_leaves_no_marker(home: Home) -> None:
    """`vaultd restart` goes on unlocked; the store is shut for this process all the same."""
    keeper = await home.with_franklin()

    await keeper.close(None, lock=False)

    assert not home.marker.exists()
    with pytest.raises(Locked):
        await keeper.mint(with_code())


async def test_a_hostile_marker_is_refused(home: Home) -> None:
    """A link in its place is named (78), not followed and not taken for unlocked."""
    home.marker.symlink_to(home.path / "elsewhere")

    with pytest.raises(FileRefused, match="locked"):
        await home.keeper().open()


async def test_a_restart_brings_everything_back(home: Home) -> None:
    """architecture.md §7: MFA sessions, cells' sessions and limits and the head are back without a call to AWS."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    session = session_of(await keeper.mint(from_handle(handle)))
    notes = (
        Note("session", "f" * 64, session=session),
        Note("limit", "f" * 64, seconds=3540),
        Note("duration", "a" * 64, seconds=3600),
    )
    for note in notes:
        await keeper.note(note)
    await keeper.note(Note("head", head=Head(6, "b" * 64)))
    await keeper.close(Head(7, "c" * 64), lock=False)
    home.sts.calls.clear()

    again, opened = await home.opened()

    assert opened.handles == (handle,)
    assert sorted(opened.notes, key=lambda note: note.kind) == sorted(notes, key=lambda note: note.kind)
    assert opened.head == Head(7, "c" * 64)
    assert opened.warnings == ()
    assert home.sts.calls == []
    assert session_of(await again.mint(from_handle(handle))).role_arn == session.role_arn
    assert [call.key_id for call in home.sts.calls] == ["ASIAFAKEMFA00002"]


async def test_the_dead_do_not_come_back(home: Home, clock: FakeClock) -> None:
    """Expired sessions leave the log at open; learned limits stay."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code(duration=HOUR)))
    await keeper.note(Note("session", "cell", session=session_of(await keeper.mint(from_handle(handle)))))
    await keeper.note(Note("limit", "cell", seconds=3540))
    await keeper.close(None, lock=False)
    await clock.advance(3590)

    _, opened = await home.opened()

    assert opened.handles == ()
    assert opened.notes == (Note("limit", "cell", seconds=3540),)


async def test_without_persist_no_session_is_kept(home: Home) -> None:
    """`[sessions] persist = false`: nothing to find after a restart, codes and limits are remembered all the same."""
    home.persist = False
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    await keeper.note(Note("session", "cell", session=session_of(await keeper.mint(from_handle(handle)))))
    await keeper.note(Note("limit", "cell", seconds=1))
    await keeper.close(None, lock=False)

    home.persist = True
    _, opened = await home.opened()

    assert opened.handles == ()
    assert [note.kind for note in opened.notes] == ["limit"]


@pytest.mark.parametrize("lost", ["damaged", "missing", "missing before a restart", "neither", "a fresh home"])
async def test_codes_wait_where_the_log_was_lost(home: Home, lost: str) -> None:
    """Which codes were sent is not known then, so none is sent before every device shows another one: 30 s."""
    if lost != "a fresh home":
        keeper = await home.with_franklin()
        await keeper.mint(with_code())
        await keeper.close(None, lock=False)
    if lost == "damaged":
        home.sealed.write_bytes(b"VAULTDL1" + bytes(60) + b"x")
    elif lost.startswith("missing"):
        home.sealed.unlink()
    if lost == "missing before a restart":
        early, _ = await home.opened()
        await early.note(Note("head", head=Head(1, "d" * 64)))
        await home.clock.advance(29)
        await early.close(None, lock=False)

    again, opened = await home.opened()
    if lost == "a fresh home":
        await add_franklin(again)
    if lost in {"neither", "a fresh home"}:
        assert opened.warnings == ()
        assert handle_of(await again.mint(with_code("654321"))).identity, "positive control: taken at once"
        return

    (warning,) = opened.warnings
    assert (
        "so which codes were sent is not known and none is taken for the first 30 s; run `vault-client mfa`" in warning
    )
    home.sts.calls.clear()
    await home.clock.advance(29)
    home.clock.jump(3600)  # the wall clock does not shorten it
    with pytest.raises(CodeSpent) as refused:
        await again.mint(with_code())
    assert refused.value.details == {"retry_after_seconds": 1}
    assert refused.value.message == (
        f"which codes of {SERIAL} were sent is not known, since sessions.sealed was missing or damaged; wait 1 s for "
        "the next one and type that"
    )
    assert home.sts.calls == []
    await home.clock.advance(1)
    handle_of(await again.mint(with_code("654321")))
    await again.close(None, lock=False)
    _, opened = await home.opened()
    assert opened.warnings == (), "the log says again which were sent"


async def test_a_damaged_log_costs_sessions_only(home: Home) -> None:
    """interface.md §1: set aside with one warning; the identities are untouched."""
    keeper = await home.with_franklin()
    await keeper.mint(with_code())
    await keeper.close(None, lock=False)
    content = bytearray(home.sealed.read_bytes())
    content[40] ^= 1
    home.sealed.write_bytes(content)

    again, opened = await home.opened()

    assert not opened.locked
    assert opened.handles == ()
    assert len(opened.warnings) == 1
    assert opened.warnings[0].startswith("sessions.sealed was damaged and is kept as sessions.sealed.damaged, so ")
    assert home.sealed.with_name("sessions.sealed.damaged").exists()
    await home.clock.advance(30)
    handle_of(await again.mint(with_code("654321")))


async def test_close_drops_everything_in_one_turn(home: Home) -> None:
    """architecture.md §6.6: no await inside, the epoch has grown, and nothing of a secret is held by the keeper."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    inner = home.within(keeper)

    if inner is keeper:
        with pytest.raises(StopIteration) as done:
            keeper.close(Head(3, "d" * 64)).send(None)
        assert done.value.value == 1
    else:  # behind the wire it is acknowledged
        assert await keeper.close(Head(3, "d" * 64)) == 1
    assert inner._identities._keys == {}
    assert inner._sessions.handles == ()
    assert inner._codes._data_key is None
    assert home.marker.exists()
    for order in (with_code("111111"), from_handle(handle), from_handle(None)):
        with pytest.raises(Locked, match=r"^vaultd is locked; run `vault-client unlock`$"):
            await keeper.mint(order)
    with pytest.raises(Locked):
        await keeper.note(Note("limit", "cell", seconds=1))
    assert keeper.list()[0].name == "franklin"


async def test_a_lock_without_disk_still_locks(home: Home) -> None:
    """The marker and the head cannot be written: the keys are gone all the same, and whoever locks is told that a
    restart would bring them back.
    """
    keeper = await home.with_franklin()
    home.disk.full = True

    with pytest.raises(Unwritable, match=r"^vaultd is locked, but .*/locked could not be written and a restart would "):
        await keeper.close(Head(3, "d" * 64))

    assert home.disk.faults
    with pytest.raises(Locked):
        await keeper.mint(with_code())


async def test_an_unlock_without_disk_unlocks_and_says_so(home: Home) -> None:
    """The marker cannot be removed: a warning, since the next start will be locked."""
    keeper = await home.with_franklin()
    await keeper.close(None)
    home.disk.full = True

    opened = await keeper.open(unlock=True)

    assert not opened.locked
    assert any(text.startswith("vaultd is unlocked now but will start locked: ") for text in opened.warnings)


async def test_a_lock_while_the_store_opens_wins(home: Home) -> None:
    """The keyring answers after a lock: what it brought is dropped."""

    class Slow(FakeStore):
        gate = asyncio.Event()

        async def load(self, item: str) -> Secret | None:
            await self.gate.wait()
            return await super().load(item)

    home.keyring = Slow()
    keeper = home.keeper()
    opening = asyncio.create_task(keeper.open())
    await home.clock.settle()
    await keeper.close(None)
    Slow.gate.set()

    assert (await opening).locked
    with pytest.raises(Locked):
        await keeper.mint(with_code())


async def test_two_opens_are_one(home: Home) -> None:
    """Start and unlock at once: the store is opened once, both see it open."""
    keeper = home.keeper()

    first, second = await asyncio.gather(keeper.open(), keeper.open(unlock=True))

    assert not first.locked
    assert not second.locked
    assert home.keyring is not None
    assert home.keyring.calls.count(("open", "")) == 1


async def test_an_unreadable_index_is_named(home: Home) -> None:
    """identities.json that does not fit is an error of the user's file, not an empty list."""
    (home.path / "identities.json").write_text("{}")
    (home.path / "identities.json").chmod(0o600)

    with pytest.raises(Misconfigured, match=r"identities\.json"):
        await home.keeper().open()


async def test_on_the_real_file_store(home: Home) -> None:
    """The whole of it on real files: add, session, kill (no close), start locked, unlock, no second code."""
    home.choice = "file"

    def real() -> SealedFile:
        cheap = Kdf(ARGON2ID, m=19 * 1024, t=1, p=1)
        path, seen = home.path / "secrets.sealed", home.path / "secrets.seen"
        return SealedFile(home.files, path, seen=seen, clock=home.clock, kdf=cheap)

    home.file = real()
    keeper = home.keeper()
    assert not (await keeper.open(passphrase=PASSPHRASE, unlock=True)).locked
    await add_franklin(keeper)
    handle = handle_of(await keeper.mint(with_code()))
    home.file = real()
    home.sts.calls.clear()

    again = home.keeper()
    assert (await again.open()).reason == "the encrypted file store is shut; run `vault-client unlock`"
    opened = await again.open(passphrase=PASSPHRASE, unlock=True)

    assert opened.handles == (handle,)
    assert session_of(await again.mint(from_handle(handle))).lifetime == timedelta(hours=1)
    assert home.sts.counts() == {"assume_role": 1}
    everything = b"".join(path.read_bytes() for path in home.path.iterdir() if path.is_file())
    assert b"canary" not in everything
    assert SERIAL.encode() in everything  # positive control: the index is plain text


async def test_disk_full_at_start_still_serves(home: Home, clock: FakeClock) -> None:
    """Sessions are read from a disk that takes nothing."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    await keeper.close(None, lock=False)
    await clock.advance(60)
    home.disk.full = True

    again, opened = await home.opened()

    assert opened.handles == (handle,)
    session_of(await again.mint(from_handle(handle)))
    with pytest.raises(Unwritable):
        await again.note(Note("limit", "cell", seconds=1))
