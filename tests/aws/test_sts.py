"""STS and IAM on the emulator: what is sent, what comes back, what is refused before it is sent."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest

from tests.aws.rooms import HOUR, Aws, SkippingClock
from tests.strict_sts import FRANKLIN, SERIAL, StrictSts, role
from vaultd.aws.clients import Network
from vaultd.errors import BadProfile, BadRequest, IdentityBroken, InvalidCode, Misconfigured
from vaultd.model.credentials import MfaHandle
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.secret import Secret


async def test_code_then_role(aws: Aws, strict: StrictSts, clock: SkippingClock) -> None:
    """The tutorial's path: GetSessionToken with the code, AssumeRole without; every field of a session is filled."""
    mfa = await aws.mfa()
    session = await aws.assume(mfa)

    assert mfa.handle == MfaHandle("franklin", SERIAL, clock.now(), clock.now() + 12 * HOUR)
    assert (session.account_id, session.role_arn, session.role_session_name) == (
        "234567890123",
        role("WebAdmin"),
        "franklin",
    )
    assert (session.issued, session.lifetime) == (clock.now(), HOUR)
    assert session.aws_request_id
    first, second = strict.calls()
    assert (first.op, first.mfa, first.credential, first.region) == ("GetSessionToken", True, "long-term", "eu-west-1")
    assert (second.op, second.mfa, second.credential, second.akid) == (
        "AssumeRole",
        False,
        "gst-mfa",
        mfa.access_key_id,
    )
    assert second.issued == session.access_key_id


async def test_what_is_unset_is_not_sent(aws: Aws, strict: StrictSts) -> None:
    """aws-facts §0: no tags, no SourceIdentity by default; F1: the app id is in the user agent."""
    await aws.assume(await aws.mfa())

    call = strict.calls("AssumeRole")[0]
    assert set(call.params) == {"RoleArn", "RoleSessionName", "DurationSeconds"}
    assert "app/vaultd" in call.user_agent


async def test_every_parameter_arrives(aws: Aws, strict: StrictSts) -> None:
    """AWS's own names; a policy and its ARNs narrow the session."""
    await aws.assume(
        await aws.mfa(),
        "Ext",
        external_id="vaultd-scenario",
        policy='{"Version":"2012-10-17","Statement":[]}',
        policy_arns=("arn:aws:iam::aws:policy/ReadOnlyAccess",),
    )

    sent = strict.calls("AssumeRole")[0].params
    assert sent["ExternalId"] == "vaultd-scenario"
    assert "2012-10-17" in str(sent["Policy"])
    assert "ReadOnlyAccess" in str(sent)


async def test_tags_and_source_identity_are_sent_as_asked(aws: Aws, strict: StrictSts) -> None:
    """The permission for them is the account's business (F3)."""
    with pytest.raises(Exception, match=r"sts:(TagSession|SetSourceIdentity)"):
        await aws.assume(
            await aws.mfa(), tags=(("team", "web"),), transitive_tag_keys=("team",), source_identity="franklin"
        )

    sent = str(strict.calls("AssumeRole")[0].params)
    assert "team" in sent
    assert "SourceIdentity" in sent


async def test_a_direct_role_with_code(aws: Aws, strict: StrictSts) -> None:
    """C1: two hours from the key itself, with serial and code."""
    session = await aws.sts.assume_role(
        aws.key(),
        endpoint=aws.endpoint(),
        duration=2 * HOUR,
        role=RoleParameters(role("LongOps"), "franklin"),
        mfa_serial=SERIAL,
        token_code=Secret(strict.totp()),
    )

    assert session.lifetime == 2 * HOUR
    assert strict.calls()[0].mfa


async def test_session_token_without_mfa(aws: Aws, strict: StrictSts) -> None:
    """For a profile without role of an identity without device."""
    session = await aws.sts.session_token(
        aws.key("robot"), endpoint=aws.endpoint(), duration=HOUR, mfa_serial=None, token_code=None
    )

    assert session.handle.mfa_serial is None
    assert not strict.calls()[0].mfa


async def test_caller_identity(aws: Aws) -> None:
    """Of a key and of an MFA session."""
    assert await aws.whoami() == FRANKLIN
    assert await aws.whoami(await aws.mfa()) == FRANKLIN


async def test_devices_are_asked_without_a_name(aws: Aws, strict: StrictSts) -> None:
    """aws-facts §2.2: without UserName it works with the bare key under ForceMFA; FIDO devices are in the list."""
    fido = "arn:aws:iam::123456789012:u2f/user/franklin/yubi"
    strict.mutate(device={"serial": fido, "user": "franklin", "kind": "u2f"})

    found = await aws.iam.mfa_devices(aws.key(), endpoint=aws.endpoint())

    assert set(found) == {SERIAL, fido}
    assert "UserName" not in strict.calls("ListMFADevices")[0].params


@pytest.mark.parametrize(
    "code", ["12345", "1234567", "12a456", "123 456", "\u0661\u0662\u0663\u0664\u0665\u0666", "123456\n"]
)
async def test_a_malformed_code_is_not_sent(aws: Aws, strict: StrictSts, code: str) -> None:
    """Row 4: AWS would echo it; botocore passes all of these (aws-facts §1.4)."""
    with pytest.raises(InvalidCode) as refused:
        await aws.mfa(code)

    assert code not in str(refused.value)
    assert strict.calls() == []


async def test_serial_and_code_go_together(aws: Aws, strict: StrictSts) -> None:
    """Row 2 is prevented."""
    with pytest.raises(BadRequest):
        await aws.sts.session_token(
            aws.key(), endpoint=aws.endpoint(), duration=HOUR, mfa_serial=SERIAL, token_code=None
        )
    assert strict.calls() == []


async def test_what_botocore_refuses_is_told(aws: Aws, strict: StrictSts) -> None:
    """A session name of one character: botocore's own check, without its text, which may hold a code."""
    with pytest.raises(BadProfile, match="AssumeRole was not sent for arn"):
        await aws.sts.assume_role(
            aws.key(),
            endpoint=aws.endpoint(),
            duration=HOUR,
            role=RoleParameters(role("WebAdmin"), "x"),
        )
    assert strict.calls() == []


async def test_a_url_that_is_not_allowed_gets_nothing(strict: StrictSts, clock: SkippingClock) -> None:
    """The last gate, whatever was checked above; on the list it passes the gate."""
    url = "http://sts.attacker.example:9"
    aws = Aws(strict, clock)

    with pytest.raises(Misconfigured) as refused:
        await aws.whoami(endpoint=Endpoint("eu-west-1", sts_url=url))

    assert refused.value.message == (
        "keys are not sent to sts.attacker.example:9, which is neither AWS nor loopback; add the host to "
        "endpoint_allow under [aws] in config.toml and run `vaultd restart`"
    )
    assert aws.clients._clients == {}


async def test_a_missing_ca_bundle_is_named(strict: StrictSts, clock: SkippingClock) -> None:
    """The user's file, 78, not a TLS error of nowhere."""
    aws = Aws(strict, clock, network=Network(ca_bundle="/nowhere/ca.pem"))

    with pytest.raises(Misconfigured, match=r"^the CA bundle /nowhere/ca\.pem is not there; set ca_bundle"):
        await aws.whoami()


async def test_clients_are_kept_without_keys(aws: Aws) -> None:
    """One per endpoint and service; the keys of a call are gone when it is over."""
    await aws.whoami()
    await aws.whoami(aws.key("robot"))
    await aws.iam.mfa_devices(aws.key(), endpoint=aws.endpoint())

    assert len(aws.clients._clients) == 2
    assert vars(aws.clients._signing) == {}


async def test_skew_is_learned_from_every_reply(strict: StrictSts) -> None:
    """`clock_skew_seconds` is positive when this machine is ahead (interface.md §6); None before the first reply."""
    strict.set_knobs(date_header="logical")
    mine = SkippingClock()
    mine.jump(1200)
    aws = Aws(strict, mine)
    assert aws.sts.clock_skew() is None

    await aws.whoami()
    assert aws.sts.clock_skew() == 1200
    mine.jump(-1500)
    with pytest.raises(IdentityBroken):  # an error reply carries a date as well
        await aws.whoami(aws.key(secret="wrong"))
    assert aws.sts.clock_skew() == -300


def test_botocore_is_not_imported_at_start() -> None:
    """390 ms: only the first call pays, in a thread (architecture.md §5)."""
    code = (
        "import sys, vaultd.aws.sts, vaultd.aws.iam, vaultd.aws.clients as c; c.Clients(c.Network()); "
        "print([m for m in ('botocore', 'boto3', 'urllib3') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_warm_makes_the_session(aws: Aws) -> None:
    """When a grant is made, not at start."""
    await aws.calls.warm()

    assert aws.clients._session is not None


async def test_a_duration_is_sent_in_whole_seconds(aws: Aws, strict: StrictSts) -> None:
    """AWS's parameter is an integer."""
    await aws.mfa(duration=timedelta(seconds=900.7))

    assert str(strict.calls()[0].params["DurationSeconds"]) == "900"
