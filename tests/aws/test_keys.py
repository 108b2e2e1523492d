"""IAM's calls of a rotation, on the emulator: through the MFA session, with the user's name (aws-facts §2.1)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.aws.rooms import Aws, SkippingClock
from tests.strict_sts import FRANKLIN, StrictSts
from vaultd.aws.translate import Called, Reply, from_reply
from vaultd.errors import RoleDenied, SessionRejected, StsUnavailable, Throttled
from vaultd.model.credentials import IdentityKey

USER = "franklin"


async def test_the_calls(aws: Aws, strict: StrictSts, clock: SkippingClock) -> None:
    """List, create, Inactive, Active, delete; what comes back is what AWS has."""
    session, endpoint = await aws.mfa(), aws.endpoint()
    (old,) = await aws.iam.keys(session, user=USER, endpoint=endpoint)
    assert (old.id, old.active) == (strict.key().id, True)

    made = await aws.iam.create(session, user=USER, endpoint=endpoint)
    assert abs(made.created - clock.now()) < timedelta(seconds=2)
    assert await aws.whoami(IdentityKey(USER, made.id, made.secret)) == FRANKLIN
    assert made.secret.reveal() not in repr(made)
    for active in (False, True):
        await aws.iam.set_status(session, old.id, active=active, user=USER, endpoint=endpoint)
        listed = await aws.iam.keys(session, user=USER, endpoint=endpoint)
        assert {each.id: each.active for each in listed} == {old.id: active, made.id: True}
    await aws.iam.delete(session, old.id, user=USER, endpoint=endpoint)
    assert [each.id for each in await aws.iam.keys(session, user=USER, endpoint=endpoint)] == [made.id]


async def test_a_bare_key_may_not(aws: Aws) -> None:
    """ForceMFA: a control of the emulator, and why a rotation takes a code."""
    with pytest.raises(RoleDenied, match="iam:ListAccessKeys"):
        await aws.iam.keys(aws.key(), user=USER, endpoint=aws.endpoint())


async def test_what_is_not_there(aws: Aws) -> None:
    """A key that AWS does not have is told by its code, so that a deletion may be done twice."""
    session = await aws.mfa()
    with pytest.raises(RoleDenied) as gone:
        await aws.iam.delete(session, "AKIAWHATEVER00000001", user=USER, endpoint=aws.endpoint())
    assert gone.value.details["aws_code"] == "NoSuchEntity"


async def test_a_third_key(aws: Aws) -> None:
    """Two are AWS's most; ours are listed before, so this is never met but in a race."""
    session = await aws.mfa()
    await aws.iam.create(session, user=USER, endpoint=aws.endpoint())
    with pytest.raises(RoleDenied) as full:
        await aws.iam.create(session, user=USER, endpoint=aws.endpoint())
    assert full.value.details["aws_code"] == "LimitExceeded"


async def test_last_used(aws: Aws, strict: StrictSts) -> None:
    """Not granted in W0; where it is, AWS's word in a few words, and `never`."""
    session, endpoint = await aws.mfa(), aws.endpoint()
    old = strict.key().id
    with pytest.raises(RoleDenied):
        await aws.iam.last_used(session, old, endpoint=endpoint)
    statement = {"Effect": "Allow", "Action": "iam:GetAccessKeyLastUsed", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    strict.mutate(policy={"principal": FRANKLIN, "name": "last", "document": document})

    assert (await aws.iam.last_used(session, old, endpoint=endpoint)).endswith(" by sts in eu-west-1")
    made = await aws.iam.create(session, user=USER, endpoint=endpoint)
    assert await aws.iam.last_used(session, made.id, endpoint=endpoint) == "never"


@pytest.mark.parametrize("kind", ["http", "reset", "html200", "badxml", "truncate"])
async def test_create_goes_out_once(aws: Aws, strict: StrictSts, kind: str) -> None:
    """A lost or senseless answer is no reason for a second key; the other calls are sent again."""
    session, endpoint = await aws.mfa(), aws.endpoint()
    strict.fault(kind, op="CreateAccessKey", when="after")
    with pytest.raises(StsUnavailable):
        await aws.iam.create(session, user=USER, endpoint=endpoint)
    assert len(strict.calls("CreateAccessKey")) == 1

    strict.fault(kind, op="ListAccessKeys", when="after")
    assert len(await aws.iam.keys(session, user=USER, endpoint=endpoint)) == 2
    assert len(strict.calls("ListAccessKeys")) == 2


async def test_throttled_and_dead_sessions(aws: Aws, strict: StrictSts) -> None:
    """Rows 13, 9 and 10 mean the same on IAM."""
    session = await aws.mfa()
    strict.fault("throttle", op="CreateAccessKey")
    with pytest.raises(Throttled):
        await aws.iam.create(session, user=USER, endpoint=aws.endpoint())
    for as_ in ("expired", "invalid"):
        strict.revoke(user=FRANKLIN, as_=as_)
        with pytest.raises(SessionRejected):
            await aws.iam.keys(session, user=USER, endpoint=aws.endpoint())


@pytest.mark.parametrize("code", ["EntityTemporarilyUnmodifiable", "ConcurrentModification"])
def test_iam_is_busy_with_the_same_user(code: str) -> None:
    """IAM's own 409s pass by themselves."""
    called = Called("UpdateAccessKey", USER, "identity franklin", "eu-west-1")
    assert isinstance(from_reply(called, Reply(409, code, "try again")), StsUnavailable)
