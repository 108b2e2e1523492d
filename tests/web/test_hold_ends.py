"""Held requests: the ends without keys, and clients that leave. Real sockets, a real broker, FakeClock's time."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.web.hold_rig import HoldRig, attended, holding, one_held, warm
from vaultd.engine.seams import MintRole
from vaultd.errors import CodeRefused, RoleDenied, StsUnavailable, TooManyAttempts
from vaultd.model.secret import Secret
from vaultd.web.hold import REST


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[HoldRig]:
    async with holding(tmp_path) as made:
        yield made


# ---- ends without keys ----


async def _cancelled(rig: HoldRig) -> None:
    (question,) = rig.engine.desk.open_questions()
    rig.engine.desk.cancel(question.id)


async def _expired(rig: HoldRig) -> None:
    await rig.engine.clock.advance(120)


async def _attempts_gone(rig: HoldRig) -> None:
    rig.engine.keeper.wrong |= {"000001", "000002", "000003"}
    for code in sorted(rig.engine.keeper.wrong):
        with pytest.raises((CodeRefused, TooManyAttempts)):
            await rig.engine.answer(code=Secret(code))


async def _locked(rig: HoldRig) -> None:
    await rig.engine.broker.lock()


async def _revoked(rig: HoldRig) -> None:
    rig.grants.revoke_all(reason="revoked")
    await rig.engine.answer()


async def _another_role(rig: HoldRig) -> None:
    rig.plans.role, rig.plans.number = "arn:aws:iam::234567890123:role/Other", 2
    await rig.engine.answer()


async def _locked_as_it_lands(rig: HoldRig) -> None:
    rig.engine.clock.settle = _no_turn  # type: ignore[method-assign]
    await rig.engine.answer()
    await rig.engine.broker.lock()


async def _no_turn(turns: int | None = None) -> None:
    """The loop does not turn."""


async def _aws_refuses(rig: HoldRig) -> None:
    rig.engine.keeper.always[MintRole] = RoleDenied("AWS refuses web-admin: type `vault-client explain web-admin`.")
    await rig.engine.answer()


async def _aws_away(rig: HoldRig) -> None:
    rig.engine.keeper.always[MintRole] = StsUnavailable("AWS cannot be reached: check the network.")
    await rig.engine.answer()
    await rig.engine.clock.advance(4)


@dataclass(frozen=True)
class End:
    happens: Callable[[HoldRig], Awaitable[None]]
    reason: str
    then: tuple[int, str]


ENDS = {
    "cancelled": End(_cancelled, "MfaRequired", (403, "MfaRequired")),
    "expired": End(_expired, "MfaRequired", (403, "MfaRequired")),
    "attempts gone": End(_attempts_gone, "MfaRequired", (403, "MfaRequired")),
    "locked": End(_locked, "Locked", (403, "Locked")),
    "locked as it lands": End(_locked_as_it_lands, "Locked", (403, "Locked")),
    "grant revoked": End(_revoked, "InvalidToken", (401, "InvalidToken")),
    "another role": End(_another_role, "ProfileMismatch", (403, "ProfileMismatch")),
    "AWS refuses": End(_aws_refuses, "RoleDenied", (403, "RoleDenied")),
    "AWS away": End(_aws_away, "StsUnavailable", (503, "StsUnavailable")),
}


@pytest.mark.parametrize("name", ENDS)
async def test_an_end_without_keys_is_blank_and_then_told(name: str, tmp_path: Path) -> None:
    """Blanks, a clean end, one denial with the reason, no byte of a key; the re-request hears the true status."""
    ends = ENDS[name]
    async with holding(tmp_path, longest=120) as rig:
        await attended(rig)
        client = await one_held(rig, User_Agent="curl/8")
        await rig.engine.clock.advance(0.1)  # so that the question's time is up before the client's
        await ends.happens(rig)
        body, _ = await client.end()
        assert body == b""
        assert rig.events() == (0, [ends.reason])
        again = await rig.get()
        assert (again.status, json.loads(again.body)["code"]) == ends.then


async def test_an_asker_who_leaves_a_question_of_his_own_ends_it(rig: HoldRig) -> None:
    """A terminal that goes away closes its question; nobody can answer any more."""
    asker = await attended(rig)
    client = await one_held(rig)
    asker.leave()
    assert await client.end() == (b"", 0)


async def test_a_question_that_nobody_sees_any_more_is_not_waited_for(rig: HoldRig) -> None:
    """An SDK's question outlives the terminal that showed it. Another may take that one's place within 5 s; who is
    held for longer than that would wait for nobody.
    """
    assert (await rig.get()).status == 403  # it opens the question
    (question,) = rig.engine.desk.open_questions()
    asker = rig.engine.desk.attend(question.id)
    client = await one_held(rig)
    asker.leave()
    await rig.tick(9)
    asker = rig.engine.desk.attend(question.id)
    await rig.tick(2)
    asker.leave()
    await rig.tick(10)
    await client.blanks(21)
    await rig.tick(2)
    body, _ = await client.end()
    assert body == b""
    assert rig.engine.desk.open_questions() == (question,)


async def test_a_lock_ends_a_wait_for_aws(rig: HoldRig) -> None:
    """The flight is cancelled, whatever AWS says later."""
    await warm(rig)
    client = await rig.ask()
    while rig.engine.keeper.count(MintRole) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await rig.engine.clock.advance(0.8)
    await client.held()
    await rig.engine.broker.lock()
    assert await client.end() == (b"", 0)
    assert rig.events() == (0, ["Locked"])


async def test_no_keys_once_the_broker_serves_nothing(rig: HoldRig) -> None:
    """Flow 7 shuts the broker with its sessions in it: what has landed in that turn is not written."""
    await attended(rig)
    client = await one_held(rig)
    rig.engine.clock.settle = _no_turn  # type: ignore[method-assign]
    await rig.engine.answer()
    rig.engine.broker.locked = True
    assert await client.end() == (b"", 0)
    assert rig.events() == (0, ["Locked"])


async def test_stop_ends_holds_blank_and_then_refuses(rig: HoldRig) -> None:
    """Flow 7: whitespace, a clean end, then no connection is taken; the flight is not waited for."""
    await attended(rig)
    client = await one_held(rig)
    await rig.side.stop()
    assert await client.end() == (b"", 0)
    with pytest.raises(ConnectionRefusedError):
        await rig.ask()
    assert rig.events() == (0, ["MfaRequired"])


async def test_a_listener_that_stops_ends_its_own_holds(rig: HoldRig) -> None:
    """The link-local one may go while the other goes on dripping, by the same ticker."""
    await attended(rig)
    client = await one_held(rig)
    rig.holds.end(object())
    await rig.tick()
    await client.blanks(1)


async def test_a_failure_of_ours_is_blank_too(rig: HoldRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the head no other message can be said; the traceback is in the log, the reason in the audit log."""

    def fails(message: bytes) -> bytes:
        raise RuntimeError("no body")

    monkeypatch.setattr("vaultd.web.app.body_of", fails)
    await attended(rig)
    client = await one_held(rig)
    await rig.engine.answer()
    assert await client.end() == (b"", 0)
    assert rig.events() == (0, ["InternalError"])


async def test_after_a_blank_end_the_grant_is_not_held_for_ten_seconds(rig: HoldRig) -> None:
    """JS v3 would repeat the wait five times (sdk-facts §8.10). A question attended anew waits for that, too."""
    await attended(rig)
    client = await one_held(rig)
    await rig.tick(2)
    await _cancelled(rig)
    await client.end()
    await rig.engine.clock.advance(REST - 1)
    rig.engine.desk._cooldowns._running.clear()
    await attended(rig)
    assert (await rig.get()).status == 403
    other = await rig.ask(rig.request("/v1/credentials/audit", Authorization=rig.another_token("audit")))
    await other.held()  # another grant has no part in it
    await rig.engine.clock.advance(1)
    again = await rig.ask()
    await again.held()


# ---- clients that leave ----


async def test_a_client_that_leaves_is_found_within_a_tick(rig: HoldRig) -> None:
    """By RST or by close(); question and other holders go on."""
    await attended(rig)
    stays = await one_held(rig)
    for linger in (None, struct.pack("ii", 1, 0)):
        leaves = await rig.ask()
        await leaves.held()
        await rig.held(2)
        if linger is not None:
            leaves.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        leaves.close()
        await leaves.writer.wait_closed()
        await rig.tick()
        await rig.held(1)
    assert len(rig.engine.desk.open_questions()) == 1
    await rig.engine.answer()
    assert json.loads((await stays.end())[0])["Code"] == "Success"
    assert rig.events() == (1, [])


async def test_a_half_closed_client_stays_held(rig: HoldRig) -> None:
    """FIN with inode ≠ 0: it waits for its answer, and gets it."""
    await attended(rig)
    client = await one_held(rig)
    client.writer.write_eof()
    await rig.tick(3)
    await client.blanks(3)
    await rig.engine.answer()
    assert json.loads((await client.end())[0])["Code"] == "Success"


async def test_a_half_closed_client_that_leaves_is_found_too(rig: HoldRig) -> None:
    """Its FIN was the last that it had to say: the peer is looked up at each tick."""
    await attended(rig)
    client = await one_held(rig)
    client.writer.write_eof()
    await rig.tick()
    await client.blanks(1)
    client.close()
    await client.writer.wait_closed()
    await rig.tick()
    await rig.held(0)
    assert rig.events() == (0, [])
