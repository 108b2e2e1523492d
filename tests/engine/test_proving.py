"""A person is asked for a code only for a key that AWS takes (engine/proving.py)."""

from __future__ import annotations

import asyncio

import pytest

from tests.engine.rig import Rig, plain, web_admin
from vaultd.engine.seams import MintMfa
from vaultd.errors import ClockSkewed, IdentityBroken, MfaRequired, StsUnavailable, VaultdError


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(
    "error",
    [
        IdentityBroken("AWS refuses the stored secret: type `vault-client add franklin --replace`."),
        ClockSkewed("clock is 20 minutes behind AWS: set the clock.", skew_seconds=-1200),
        StsUnavailable("AWS cannot be reached: check the network."),
    ],
)
async def test_no_question_for_a_key_that_does_not_work(rig: Rig, error: VaultdError) -> None:
    """D8, E8, D3: the reason is answered, and no code is asked to be burnt; nor is AWS asked each time."""
    rig.keeper.probe_error = error

    for _ in range(20):
        with pytest.raises(type(error), match=error.message.split(":")[0]):
            await rig.get(web_admin())

    assert rig.desk.open_questions() == ()
    assert rig.keeper.probes == 1
    assert "session.fail" in rig.audit.names()


async def test_a_mended_key_is_asked_for_again(rig: Rig) -> None:
    """A re-added identity forgets the refusal, and the question opens."""
    rig.keeper.probe_error = IdentityBroken(
        "AWS refuses the stored secret: type `vault-client add franklin --replace`."
    )
    with pytest.raises(IdentityBroken):
        await rig.get(web_admin())
    rig.keeper.probe_error = None
    rig.broker.forget_identity("franklin")

    with pytest.raises(MfaRequired):
        await rig.get(web_admin())


async def test_one_probe_for_many_callers_and_ten_minutes(rig: Rig) -> None:
    """100 cold callers: one probe, one question; a second question within 10 min takes no other probe."""
    refused = await asyncio.gather(*(rig.get(web_admin()) for _ in range(100)), return_exceptions=True)

    assert {type(each) for each in refused} == {MfaRequired}
    assert (rig.keeper.probes, len(rig.desk.open_questions())) == (1, 1)

    await rig.clock.advance(121)  # the question's time-out
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    assert rig.keeper.probes == 1

    await rig.clock.advance(600)
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    assert rig.keeper.probes == 2


async def test_a_lock_forgets_what_was_proved(rig: Rig) -> None:
    """After an unlock the store may hold another key."""
    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    await rig.broker.lock()
    rig.broker.locked = False

    with pytest.raises(MfaRequired):
        await rig.get(web_admin())
    assert rig.keeper.probes == 2


async def test_nothing_is_probed_where_no_code_is_needed(rig: Rig) -> None:
    """A live MFA session, and a role without MFA, are proof enough: their own call tells."""
    await rig.get(plain())
    assert rig.keeper.probes == 0

    await rig.warm(web_admin())
    probes = rig.keeper.probes
    await rig.get(web_admin(role="Audit"))
    assert rig.keeper.probes == probes
    assert rig.keeper.count(MintMfa) == 1
