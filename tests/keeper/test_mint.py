"""Minting: codes once, sessions sealed before use, dead sessions dropped, late outcomes thrown away."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.fakes import FakeClock
from tests.keeper.rooms import (
    ENDPOINT,
    HOUR,
    KEY_ID,
    ROLE,
    SERIAL,
    Home,
    add_franklin,
    from_handle,
    handle_of,
    session_of,
    with_code,
)
from vaultd.engine.seams import MintMfa, MintRole, MintServed, Note
from vaultd.errors import (
    BadRequest,
    CodeRefused,
    CodeSpent,
    DeviceRefused,
    IdentityBroken,
    InvalidCode,
    KeyringBusy,
    Locked,
    MfaRequired,
    SessionRejected,
    StsUnavailable,
    Throttled,
    TooManyAttempts,
    UnknownIdentity,
    Unwritable,
    VaultdError,
)
from vaultd.model.credentials import MfaHandle
from vaultd.model.secret import Secret

DIRECT = MintRole("franklin", ENDPOINT, 2 * HOUR, ROLE, mfa_serial=SERIAL, token_code=Secret("123456"))


async def test_one_code_many_roles(home: Home) -> None:
    """GetSessionToken with the code, then AssumeRole with the MFA session's keys and without a code."""
    keeper = await home.with_franklin()

    handle = handle_of(await keeper.mint(with_code(" 123 456 ")))
    first = session_of(await keeper.mint(from_handle(handle)))
    await keeper.mint(from_handle(first))
    await keeper.mint(from_handle(None))

    assert handle == MfaHandle("franklin", SERIAL, home.clock.now(), home.clock.now() + 12 * HOUR)
    assert [(call.operation, call.key_id, call.code) for call in home.sts.calls] == [
        ("session_token", KEY_ID, "123456"),
        ("assume_role", "ASIAFAKEMFA00002", None),
        ("assume_role", first.access_key_id, None),
        ("assume_role", KEY_ID, None),
    ]


async def test_a_direct_role_carries_serial_and_code(home: Home) -> None:
    """More than an hour is asked for: AssumeRole from the key with the code, which is spent too."""
    keeper = await home.with_franklin()
    order = MintRole("franklin", ENDPOINT, 2 * HOUR, ROLE, mfa_serial=SERIAL, token_code=Secret("123456"))

    assert session_of(await keeper.mint(order)).lifetime == 2 * HOUR

    assert [(call.serial, call.code) for call in home.sts.calls] == [(SERIAL, "123456")]
    with pytest.raises(CodeSpent):
        await keeper.mint(with_code("123456"))
    assert len(home.sts.calls) == 1


@pytest.mark.parametrize(
    "order",
    [
        MintMfa("franklin", ENDPOINT, HOUR, mfa_serial=SERIAL),
        MintMfa("franklin", ENDPOINT, HOUR, token_code=Secret("123456")),
        MintRole("franklin", ENDPOINT, HOUR, ROLE, mfa_serial=SERIAL),
    ],
)
async def test_serial_and_code_go_together(home: Home, order: MintMfa | MintRole) -> None:
    """aws-facts §1.5 row 2 is prevented here."""
    keeper = await home.with_franklin()

    with pytest.raises(BadRequest, match="mfa_serial and token_code go together"):
        await keeper.mint(order)
    assert home.sts.calls == []


async def test_a_code_never_goes_with_a_session(home: Home) -> None:
    """A code from a role or MFA session is refused by AWS (aws-facts §6(7)); it is not burnt here."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    order = MintRole("franklin", ENDPOINT, HOUR, ROLE, source=handle, mfa_serial=SERIAL, token_code=Secret("654321"))

    with pytest.raises(BadRequest, match="token_code goes with an identity key only"):
        await keeper.mint(order)
    assert home.sts.counts() == {"session_token": 1}


async def test_a_bad_code_is_not_sent(home: Home) -> None:
    """No call, and it does not count among the six."""
    keeper = await home.with_franklin()

    for _ in range(7):
        with pytest.raises(InvalidCode):
            await keeper.mint(with_code("12345"))
    assert home.sts.calls == []
    await keeper.mint(with_code())


@pytest.mark.parametrize(
    "error",
    [
        CodeRefused("refused"),
        DeviceRefused("device"),
        StsUnavailable("5xx", code_sent=True),
        StsUnavailable("no connection", code_sent=False),
    ],
)
async def test_whatever_happens_a_code_goes_once(home: Home, error: VaultdError) -> None:
    """A5, A7, A9: after a refusal, a 5xx or a broken line the same code is refused here, by the seconds to wait."""
    keeper = await home.with_franklin()
    home.sts.fail("session_token", error)

    with pytest.raises(type(error)) as raised:
        await keeper.mint(with_code())
    assert (raised.value.message, raised.value.details) == (error.message, error.details)
    with pytest.raises(CodeSpent) as spent:
        await keeper.mint(with_code())

    assert spent.value.details == {"retry_after_seconds": 30}
    assert len(home.sts.calls) == 1
    handle_of(await keeper.mint(with_code("654321")))


async def test_a_clean_throttling_frees_the_code_twice(home: Home) -> None:
    """A10: the one case in which a code goes again; three times in all."""
    keeper = await home.with_franklin()
    home.sts.fail("session_token", *(Throttled("slow") for _ in range(4)))

    for _ in range(3):
        with pytest.raises(Throttled):
            await keeper.mint(with_code())
    with pytest.raises(CodeSpent):
        await keeper.mint(with_code())
    assert len(home.sts.calls) == 3


async def test_a_throttled_code_that_works_then_is_spent(home: Home) -> None:
    """And a throttled direct AssumeRole frees its code likewise."""
    keeper = await home.with_franklin()
    direct = MintRole("franklin", ENDPOINT, 2 * HOUR, ROLE, mfa_serial=SERIAL, token_code=Secret("123456"))
    home.sts.fail("assume_role", Throttled("slow"))

    with pytest.raises(Throttled):
        await keeper.mint(direct)
    await keeper.mint(direct)
    with pytest.raises(CodeSpent):
        await keeper.mint(direct)
    assert home.sts.counts() == {"assume_role": 2}


async def test_six_codes_in_ten_minutes(home: Home) -> None:
    """The seventh is refused here, before the key is used."""
    keeper = await home.with_franklin()
    home.sts.fail("session_token", *(CodeRefused("no") for _ in range(6)))
    for number in range(6):
        with pytest.raises(CodeRefused):
            await keeper.mint(with_code(f"00000{number}"))

    with pytest.raises(TooManyAttempts):
        await keeper.mint(with_code("000009"))
    assert len(home.sts.calls) == 6


async def test_a_code_in_flight_at_a_kill_counts_as_sent(home: Home) -> None:
    """It is on disk before the call: the next process refuses it."""
    keeper = await home.with_franklin()
    home.sts.hold()
    flight = asyncio.create_task(keeper.mint(with_code()))
    await home.clock.settle()
    assert len(home.sts.calls) == 1

    again, _ = await home.opened()  # the first process is gone, its flight never lands
    with pytest.raises(CodeSpent):
        await again.mint(with_code())

    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight


async def test_an_mfa_session_is_on_disk_before_it_is_told(home: Home) -> None:
    """A kill right after mint returns costs no second code."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))

    _, opened = await home.opened()

    assert opened.handles == (handle,)


async def test_a_new_session_of_a_device_replaces_the_old_one(home: Home, clock: FakeClock) -> None:
    """One per identity, device and region: the old one is not found any more, before and after a restart."""
    keeper = await home.with_franklin()
    old = handle_of(await keeper.mint(with_code("111111")))
    await clock.advance(60)
    new = handle_of(await keeper.mint(with_code("222222")))

    with pytest.raises(SessionRejected):
        await keeper.mint(from_handle(old))
    session_of(await keeper.mint(from_handle(new)))
    _, opened = await home.opened()
    assert opened.handles == (new,)


async def test_mint_served_is_the_mfa_session(home: Home) -> None:
    """A profile without role_arn: the session itself, without a call; never the identity key."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(MintMfa("franklin", ENDPOINT, HOUR)))
    home.sts.calls.clear()

    session = session_of(await keeper.mint(MintServed(handle)))

    assert (session.account_id, session.role_arn, session.expiration) == ("123456789012", None, handle.expiration)
    assert session.access_key_id == "ASIAFAKEMFA00002"
    assert home.sts.calls == []


async def test_an_expired_mfa_session_is_dropped(home: Home) -> None:
    """Row 9: SessionRejected, the session is gone from memory and disk, the key is not probed."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.fail("assume_role", SessionRejected("expired", expired=True))

    for _ in range(2):
        with pytest.raises(SessionRejected):
            await keeper.mint(from_handle(handle))

    assert home.sts.counts() == {"session_token": 1, "assume_role": 1}
    assert (await home.opened())[1].handles == ()


async def test_an_unknown_mfa_session_probes_the_key(home: Home) -> None:
    """Row 10: the key is well, so the session alone is dead."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.fail("assume_role", SessionRejected("unknown", expired=False))

    with pytest.raises(SessionRejected):
        await keeper.mint(from_handle(handle))

    assert [call.key_id for call in home.sts.calls[2:]] == [KEY_ID]
    assert (await home.opened())[1].handles == ()


async def test_a_dead_key_behind_a_dead_session_is_told(home: Home) -> None:
    """E8: the key was deleted elsewhere; IdentityBroken, since no code mends that."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.fail("assume_role", SessionRejected("unknown", expired=False))
    home.sts.fail("caller_identity", IdentityBroken("gone"))

    with pytest.raises(IdentityBroken):
        await keeper.mint(from_handle(handle))


async def test_a_key_of_another_account_is_not_used(home: Home) -> None:
    """T13: AWS knows the key, and says another account than it was added for: IdentityBroken, ending in what to type.
    Control: the same probe before is well.
    """
    keeper = await home.with_franklin()
    await keeper.probe("franklin", endpoint=ENDPOINT)
    home.sts.arn = "arn:aws:iam::999999999999:user/franklin"

    with pytest.raises(IdentityBroken, match=r"of account 999999999999, and was added for 123456789012.*--replace`$"):
        await keeper.probe("franklin", endpoint=ENDPOINT)


async def test_a_probe_that_fails_decides_nothing(home: Home) -> None:
    """STS went away in between: the session is dropped, the key is not called broken."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.fail("assume_role", SessionRejected("unknown", expired=False))
    home.sts.fail("caller_identity", StsUnavailable("away"))

    with pytest.raises(SessionRejected):
        await keeper.mint(from_handle(handle))


async def test_a_dead_role_session_is_the_brokers(home: Home) -> None:
    """A parent role session is not the keeper's: SessionRejected comes up, nothing is probed."""
    keeper = await home.with_franklin()
    parent = session_of(await keeper.mint(from_handle(None)))
    home.sts.fail("assume_role", SessionRejected("unknown", expired=False))

    with pytest.raises(SessionRejected):
        await keeper.mint(from_handle(parent))
    assert home.sts.counts() == {"assume_role": 2}


async def test_what_lands_after_a_lock_is_dropped(home: Home) -> None:
    """The call was under way when `lock` came: Locked, nothing kept; the code stays spent."""
    keeper = await home.with_franklin()
    home.sts.hold()
    flight = asyncio.create_task(keeper.mint(with_code()))
    await home.clock.settle()
    await keeper.close(None)
    home.sts.release()

    with pytest.raises(Locked):
        await flight
    opened = await keeper.open(unlock=True)
    assert opened.handles == ()
    assert opened.epoch == 1
    with pytest.raises(CodeSpent):
        await keeper.mint(with_code())


@pytest.mark.parametrize("reopened", [False, True])
async def test_a_role_session_that_lands_after_a_lock_is_dropped(home: Home, reopened: bool) -> None:
    """Nothing of it is sealed, so that only the epoch tells: an `unlock` in between does not make it welcome."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.hold()
    flight = asyncio.create_task(keeper.mint(from_handle(handle)))
    await home.clock.settle()
    await keeper.close(None)
    if reopened:
        await keeper.open(unlock=True)
    home.sts.release()

    with pytest.raises(Locked):
        await flight


@pytest.mark.parametrize("how", ["removed", "removed and added", "replaced", "neither"])
@pytest.mark.parametrize("order", [with_code(), DIRECT], ids=["mfa", "direct"])
async def test_what_lands_after_a_remove_goes_with_the_identity(
    home: Home, order: MintMfa | MintRole, how: str
) -> None:
    """A call with a code is not cancelled: what it brings of an identity that is gone is kept nowhere."""
    keeper = await home.with_franklin()
    home.sts.hold()
    flight = asyncio.create_task(keeper.mint(order))
    await home.clock.settle()
    gate, home.sts._gate = home.sts._gate, None
    assert gate is not None
    await home.clock.advance(1)
    if how.startswith("removed"):
        await keeper.remove("franklin")
    if how in {"removed and added", "replaced"}:
        await add_franklin(keeper, replace=how == "replaced")
    gate.set()

    if how == "neither":
        minted = await flight
        assert minted.handle or minted.session, "positive control: it is kept"
    else:
        with pytest.raises(UnknownIdentity if how == "removed" else MfaRequired, match="vault-client"):
            await flight
    kept = how == "neither" and order is not DIRECT
    assert len((await keeper.open()).handles) == kept
    assert len((await home.opened())[1].handles) == kept


@pytest.mark.parametrize("error", [Throttled("slow"), SessionRejected("dead", expired=False), StsUnavailable("5xx")])
async def test_an_error_that_lands_after_a_lock_is_locked(home: Home, error: VaultdError) -> None:
    """Whatever it was; nothing is probed, un-marked or written by an older epoch."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    home.sts.fail("assume_role", error)
    home.sts.hold()
    flight = asyncio.create_task(keeper.mint(from_handle(handle)))
    await home.clock.settle()
    await keeper.close(None)
    home.sts.release()

    with pytest.raises(Locked):
        await flight
    assert home.sts.counts() == {"session_token": 1, "assume_role": 1}
    assert (await keeper.open(unlock=True)).handles == (handle,)


async def test_keys_are_read_once_and_only_when_needed(home: Home) -> None:
    """A start reads the data key only; an identity key at its first use, then from memory."""
    await home.with_franklin()
    keeper, _ = await home.opened()
    assert home.keyring is not None
    home.keyring.calls.clear()

    handle = handle_of(await keeper.mint(with_code()))
    await keeper.mint(from_handle(handle))
    await keeper.mint(from_handle(None))

    assert len(home.keyring.calls) == 1


async def test_a_busy_keyring_does_not_touch_what_lives(home: Home) -> None:
    """The MFA session goes on opening roles while the keyring hangs."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    keeper, _ = await home.opened()
    assert home.keyring is not None
    home.keyring.broken = KeyringBusy("locked")

    session_of(await keeper.mint(from_handle(handle)))
    with pytest.raises(KeyringBusy):
        await keeper.mint(with_code("654321"))
    home.keyring.broken = None
    await keeper.mint(with_code("654321"))  # it was never sent, so it was not spent


async def test_an_unknown_identity_is_named(home: Home) -> None:
    """With the nearest name, ending in what to type; no code is spent."""
    keeper = await home.with_franklin()

    with pytest.raises(UnknownIdentity) as unknown:
        await keeper.mint(MintMfa("frankln", ENDPOINT, HOUR, mfa_serial=SERIAL, token_code=Secret("123456")))

    assert unknown.value.message == (
        "no key is stored for identity frankln. Did you mean franklin? Run `vault-client add frankln`"
    )


async def test_a_full_disk_wastes_no_code(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """interface.md §1: the session serves though it cannot be sealed; told once; the code is spent all the same."""
    keeper = await home.with_franklin()
    home.disk.full = True

    handle = handle_of(await keeper.mint(with_code()))
    session = session_of(await keeper.mint(from_handle(handle)))
    for _ in range(2):
        with pytest.raises(Unwritable):
            await keeper.note(Note("session", "cell", session=session))
    with pytest.raises(CodeSpent):
        await keeper.mint(with_code())

    told = [record for record in caplog.records if record.name == "vaultd.keeper.records"]
    assert [record.levelno for record in told] == [logging.WARNING]
    home.disk.full = False
    await keeper.note(Note("limit", "cell", seconds=1))
    assert (await home.opened())[1].handles == (handle,)


async def test_clear_takes_sessions_off_the_disk(home: Home) -> None:
    """`drop` and `drop_mfa` compact at once; learned limits stay."""
    keeper = await home.with_franklin()
    handle = handle_of(await keeper.mint(with_code()))
    session = session_of(await keeper.mint(from_handle(handle)))
    await keeper.note(Note("session", "cell", session=session))
    await keeper.note(Note("limit", "cell", seconds=1))
    before = home.sealed.stat().st_size

    await keeper.note(Note("drop", "cell"))
    middle = home.sealed.stat().st_size
    await keeper.note(Note("drop_mfa", "franklin"))

    assert before > middle > home.sealed.stat().st_size
    with pytest.raises(SessionRejected):
        await keeper.mint(from_handle(handle))
    _, opened = await home.opened()
    assert (opened.handles, [note.kind for note in opened.notes]) == ((), ["limit"])
