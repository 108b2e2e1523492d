"""AssumeRole and its session: durations, chains, names, tags, policies, regions, texts (aws-facts §1.1, §1.4, §1.5)."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.strict_sts.bench import Bench, StillClock, message, outcome
from tests.strict_sts.live import FRANKLIN, ROBOT, SERIAL, StrictStsThread, role

CHAIN = "exceeds the 1 hour session limit for roles assumed by role chaining."
TOO_LONG = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."


def allow(*actions: str) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}


def grant(bench: Bench, action: str) -> None:
    """Lets franklin and WebAdmin's trust policy have the action: both sides, as AWS asks across accounts."""
    bench.strict.mutate(
        policy={"principal": "arn:aws:iam::123456789012:user/franklin", "name": "more", "document": allow(action)},
        role={
            "arn": role("WebAdmin"),
            "trust": {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": ["sts:AssumeRole", action]},
                ],
            },
        },
    )


def test_max_session_duration(bench: Bench) -> None:
    """Row 16; LongOps takes twelve hours directly (C1, C2)."""
    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": bench.strict.totp()}
    assert message(lambda: bench.assume("WebAdmin", DurationSeconds=3601, **shown)) == TOO_LONG

    shown["TokenCode"] = bench.strict.totp(step=1)
    keys = bench.assume("LongOps", DurationSeconds=43200, **shown)
    left = keys["Expiration"] - bench.strict.clock.now()
    assert timedelta(hours=11, minutes=59) < left <= timedelta(hours=12)


def test_chain_cap(bench: Bench) -> None:
    """Row 17: a role session opens another role for an hour at most, GetSessionToken's credentials likewise."""
    keys = bench.mfa()
    webadmin = bench.assume("WebAdmin", keys)

    assert CHAIN in message(lambda: bench.assume("Chained", webadmin, DurationSeconds=7200))
    assert CHAIN in message(lambda: bench.assume("LongOps", keys, DurationSeconds=7200))
    assert outcome(lambda: bench.assume("Chained", webadmin, DurationSeconds=3600)) == "allowed"


def test_gst_counts_as_chain_knob(bench: Bench) -> None:
    """aws-facts §6 (2)."""
    bench.strict.set_knobs(gst_counts_as_chain=False)

    assert outcome(lambda: bench.assume("LongOps", bench.mfa(), DurationSeconds=7200)) == "allowed"


def test_a_role_session_carries_no_mfa(bench: Bench) -> None:
    """ChainMFA can be reached by nobody, nor with a code: a role session has no device (aws-facts §1.2)."""
    webadmin = bench.assume("WebAdmin", bench.mfa())
    shown: dict[str, Any] = {"SerialNumber": SERIAL, "TokenCode": bench.strict.totp(step=1)}

    assert outcome(lambda: bench.assume("ChainMFA", webadmin)) == "AccessDenied"
    assert "unable to validate MFA code" in message(lambda: bench.assume("ChainMFA", webadmin, **shown))
    assert outcome(lambda: bench.assume("Chained", bench.mfa(step=1))) == "AccessDenied"


def test_temporary_credentials_get_no_session_token(bench: Bench) -> None:
    """Row 8, for M and for a role session; GetFederationToken is ForceMFA's to deny (aws-facts §0)."""
    keys = bench.mfa()
    for each in (keys, bench.assume("WebAdmin", keys)):
        text = message(bench.client("sts", each).get_session_token)
        assert text == "Cannot call GetSessionToken with session credentials"

    assert outcome(lambda: bench.client("sts").get_federation_token(Name="franklin")) == "AccessDenied"


def test_federation_token_has_its_policy_and_no_more(bench: Bench) -> None:
    """Where it is allowed, it may do what both its session policy and its user may; IAM never (aws-facts §1.1)."""
    robot = "arn:aws:iam::123456789012:user/robot"
    more = allow("sts:GetFederationToken", "elasticbeanstalk:*")
    bench.strict.mutate(policy={"principal": robot, "name": "more", "document": more})
    asked = {"Name": "robot", "Policy": json.dumps(allow("elasticbeanstalk:Describe*", "iam:*"))}
    keys = bench.client("sts", user="robot").get_federation_token(**asked)["Credentials"]
    beanstalk = bench.client("elasticbeanstalk", keys)

    assert outcome(beanstalk.describe_applications) == "InvalidAction"  # through our checks, and no data plane behind
    assert outcome(lambda: beanstalk.create_application(ApplicationName="x")) == "AccessDenied"
    assert outcome(bench.client("iam", keys).get_user) == "InvalidClientTokenId"
    assert outcome(lambda: bench.assume("Plain", keys)) == "AccessDenied"


@pytest.mark.parametrize("name", ["a", "a" * 65, "a b", "a/b", "müller"])
def test_session_name(bench: Bench, name: str) -> None:
    """Row 15: 2 to 64 of AWS's charset; botocore lets all of these through but the short one (aws-facts §1.4)."""
    keys = bench.mfa()

    def asked() -> object:
        client = bench.client("sts", keys, parameter_validation=False)
        return client.assume_role(RoleArn=role("WebAdmin"), RoleSessionName=name)

    assert "at 'roleSessionName' failed to satisfy constraint" in message(asked)
    assert outcome(lambda: bench.assume("WebAdmin", keys, RoleSessionName="a" * 64)) == "allowed"


@pytest.mark.parametrize("seconds", [899, 43201])
def test_duration_limits(bench: Bench, seconds: int) -> None:
    """900 to 43200 for a role, before anything of the role is looked at."""
    client = bench.client("sts", parameter_validation=False)
    asked = {"RoleArn": role("LongOps"), "RoleSessionName": "franklin", "DurationSeconds": seconds}

    assert "at 'durationSeconds'" in message(lambda: client.assume_role(**asked))


@pytest.mark.parametrize(
    ("given", "seen"), [("vaultd-scenario", "allowed"), ("wrong", "AccessDenied"), ("", "AccessDenied")]
)
def test_external_id(bench: Bench, given: str, seen: str) -> None:
    """Row 7: a wrong or missing ExternalId reads like any denial (F4)."""
    params = {"ExternalId": given} if given else {}

    assert outcome(lambda: bench.assume("Ext", bench.mfa(), **params)) == seen


@pytest.mark.parametrize(
    ("name", "has_username", "seen"),
    [("franklin", True, "allowed"), ("other-name", True, "AccessDenied"), ("franklin", False, "AccessDenied")],
)
def test_name_lock(bench: Bench, name: str, has_username: bool, seen: str) -> None:
    """F1: the session must be named like the user; whether M has aws:username is a knob (aws-facts §5)."""
    bench.strict.set_knobs(gst_has_username=has_username)

    assert outcome(lambda: bench.assume("NameLock", bench.mfa(), RoleSessionName=name)) == seen


@pytest.mark.parametrize(
    ("account", "principal", "granted", "seen"),
    [
        ("234567890123", FRANKLIN, False, "AccessDenied"),
        ("234567890123", FRANKLIN, True, "allowed"),
        ("123456789012", FRANKLIN, False, "allowed"),
        ("123456789012", "arn:aws:iam::123456789012:root", False, "AccessDenied"),
        ("123456789012", "arn:aws:iam::123456789012:root", True, "allowed"),
        ("123456789012", ROBOT, True, "AccessDenied"),
    ],
)
def test_which_sides_must_agree(bench: Bench, account: str, principal: str, granted: bool, seen: str) -> None:
    """Across accounts both; within one, a trust policy that names the user is enough, naming the account is not."""
    arn = f"arn:aws:iam::{account}:role/Side"
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}
    bench.strict.mutate(role={"arn": arn, "trust": {"Version": "2012-10-17", "Statement": statement}})
    if granted:
        bench.strict.mutate(policy={"principal": FRANKLIN, "name": "more", "document": allow("sts:AssumeRole")})

    assert outcome(lambda: bench.assume("Side", bench.mfa(), RoleArn=arn)) == seen


def test_force_mfa_holds_where_the_trust_policy_names_the_user(bench: Bench) -> None:
    """In one account too an explicit deny of the identity side beats a trust policy that would be enough."""
    arn = "arn:aws:iam::123456789012:role/Side"
    statement = {"Effect": "Allow", "Principal": {"AWS": FRANKLIN}, "Action": "sts:AssumeRole"}
    bench.strict.mutate(role={"arn": arn, "trust": {"Version": "2012-10-17", "Statement": statement}})

    assert outcome(lambda: bench.assume("Side", RoleArn=arn)) == "AccessDenied"
    assert outcome(lambda: bench.assume("Side", bench.mfa(), RoleArn=arn)) == "allowed"


@pytest.mark.parametrize("side", ["identity", "trust"])
def test_explicit_deny_wins_on_either_side(bench: Bench, side: str) -> None:
    """WebAdmin is allowed on both sides; one Deny on one of them is enough."""
    keys = bench.mfa()
    assert outcome(lambda: bench.assume("WebAdmin", keys)) == "allowed"
    deny = {"Effect": "Deny", "Action": "sts:AssumeRole"}
    if side == "identity":
        document = {"Version": "2012-10-17", "Statement": {**deny, "Resource": "*"}}
        bench.strict.mutate(policy={"principal": FRANKLIN, "name": "no", "document": document})
    else:
        statements = [{**deny, "Principal": "*"}, {**deny, "Effect": "Allow", "Principal": {"AWS": FRANKLIN}}]
        bench.strict.mutate(role={"arn": role("WebAdmin"), "trust": {"Version": "2012-10-17", "Statement": statements}})

    assert outcome(lambda: bench.assume("WebAdmin", keys)) == "AccessDenied"


def test_a_role_that_is_not_there_reads_like_a_denial(bench: Bench) -> None:
    """Row 7."""
    assert "not authorized to perform: sts:AssumeRole" in message(lambda: bench.assume("NoSuchRole", bench.mfa()))


@pytest.mark.parametrize(
    ("style", "tail"),
    [
        ("bare", ""),
        ("2021", " with an explicit deny in an identity-based policy"),
        ("2026", " with an explicit deny in an identity-based policy: arn:aws:iam::123456789012:policy/ForceMFA"),
    ],
)
def test_denied_texts(bench: Bench, style: str, tail: str) -> None:
    """Row 5 in AWS's three wordings (D12)."""
    bench.strict.set_knobs(denied_style=style)
    start = "User: arn:aws:iam::123456789012:user/franklin is not authorized to perform: sts:AssumeRole on resource: "

    assert message(lambda: bench.assume("WebAdmin")) == f"{start}{role('WebAdmin')}{tail}"


@pytest.mark.parametrize(("param", "action"), [("SourceIdentity", "sts:SetSourceIdentity"), ("Tags", "sts:TagSession")])
def test_tags_and_source_identity_need_their_own_permission(bench: Bench, param: str, action: str) -> None:
    """Row 7: the denial names the action; granted on both sides it goes through (F3)."""
    keys = bench.mfa()
    params: dict[str, Any] = {param: "franklin" if param == "SourceIdentity" else [{"Key": "team", "Value": "web"}]}
    assert f"not authorized to perform: {action}" in message(lambda: bench.assume("WebAdmin", keys, **params))

    grant(bench, action)
    assert outcome(lambda: bench.assume("WebAdmin", keys, **params)) == "allowed"


def test_tag_limits(bench: Bench) -> None:
    """At most 50, keys of at most 128, no two that differ in case only (F4)."""
    keys = bench.mfa()
    too_many = [{"Key": f"k{n}", "Value": "v"} for n in range(51)]
    for tags in (too_many, [{"Key": "k" * 129, "Value": "v"}]):
        assert outcome(lambda tags=tags: bench.assume("WebAdmin", keys, Tags=tags)) == "ValidationError"  # type: ignore[misc]
    twice = [{"Key": "Team", "Value": "a"}, {"Key": "team", "Value": "b"}]
    assert outcome(lambda: bench.assume("WebAdmin", keys, Tags=twice)) == "InvalidParameterValue"


def test_packed_policy_too_large(bench: Bench) -> None:
    """Row 18: the percentage is told, and below the limit it is in the answer (D11)."""
    keys, policy = bench.mfa(), json.dumps(allow("elasticbeanstalk:*"))
    small = bench.client("sts", keys).assume_role(RoleArn=role("WebAdmin"), RoleSessionName="franklin", Policy=policy)
    assert 0 < small["PackedPolicySize"] <= 100

    bench.strict.set_knobs(packed_limit_bytes=50)
    text = message(lambda: bench.assume("WebAdmin", keys, Policy=policy))
    assert text.startswith("Packed policy consumes ")
    assert "% of allotted space" in text


def test_session_policy_narrows(bench: Bench) -> None:
    """A session may do what both its role and its session policy allow."""
    narrowed = bench.assume("WebAdmin", bench.mfa(), Policy=json.dumps(allow("s3:*")))

    assert outcome(bench.client("elasticbeanstalk", narrowed).describe_applications) == "AccessDenied"
    assert outcome(bench.client("s3", narrowed).list_buckets) != "AccessDenied"


@pytest.mark.parametrize(
    ("scope", "account", "region", "seen"),
    [
        ("auto", "234567890123", "us-east-2", "RegionDisabledException"),
        ("auto", "123456789012", "us-east-2", "allowed"),
        ("auto", "123456789012", "ap-east-1", "RegionDisabledException"),
        ("role", "123456789012", "ap-east-1", "allowed"),
        ("caller", "234567890123", "us-east-2", "allowed"),
        ("both", "123456789012", "us-east-2", "RegionDisabledException"),
    ],
)
def test_sts_switched_off_in_a_region(bench: Bench, scope: str, account: str, region: str, seen: str) -> None:
    """Row 14 and aws-facts §1.4: default-on regions ask the role's account, opt-in ones both."""
    keys = bench.mfa()
    bench.strict.set_knobs(region_disabled_scope=scope)
    bench.strict.mutate(region={"name": region, "account": account, "sts": False})
    there = bench.client("sts", keys, region=region)
    asked = {"RoleArn": role("WebAdmin"), "RoleSessionName": "franklin"}

    assert outcome(lambda: there.assume_role(**asked)) == seen
    assert outcome(there.get_caller_identity) == "allowed"
    assert outcome(lambda: bench.assume("WebAdmin", keys)) == "allowed"


@pytest.mark.parametrize("size", [400, 8192])
def test_token_size_knob(bench: Bench, size: int) -> None:
    """0.4 to 8 KB, and such a token can be shown again (F6)."""
    bench.strict.set_knobs(session_token_bytes=size)
    keys = bench.mfa()

    assert len(keys["SessionToken"]) == size
    assert outcome(lambda: bench.assume("WebAdmin", keys)) == "allowed"


def test_secure_transport_knob(bench: Bench) -> None:
    """WebAdmin asks for TLS; loopback counts as such unless the knob says otherwise."""
    bench.strict.set_knobs(secure_transport=False)

    assert outcome(lambda: bench.assume("WebAdmin", bench.mfa())) == "AccessDenied"
    assert outcome(lambda: bench.assume("Audit", bench.mfa(step=1))) == "allowed"


def test_time_scale() -> None:
    """Issued lives and the MFA age limit shrink by the scale; stamps stay on the clock (scenarios §4.2)."""
    with StrictStsThread(time_scale=360, clock=StillClock()) as strict:
        bench = Bench(strict)
        keys = bench.mfa()
        assert keys["Expiration"] - strict.clock.now() <= timedelta(seconds=120)
        strict.clock.advance(9)
        assert outcome(lambda: bench.assume("WebAdmin", keys)) == "allowed"
        strict.clock.advance(1)
        assert outcome(lambda: bench.assume("WebAdmin", keys)) == "AccessDenied"


def test_a_mistyped_knob_is_an_error(strict: StrictStsThread) -> None:
    """Positive control of every test that turns one."""
    for wrong in ({"skew": 1}, {"denied_style": "2022"}):
        with pytest.raises(ValueError, match="knob"):
            strict.set_knobs(**wrong)
    with pytest.raises(TypeError, match="knob"):
        strict.set_knobs(skew_s="15")
