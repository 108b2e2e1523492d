"""The evaluator by itself: every operator, absent keys, principals, variables, and what it refuses to read."""

from typing import Any

import pytest

from tests.strict_sts.policy import Caller, Keys, decide, decide_trust, parse

ARN = "arn:aws:iam::234567890123:role/WebAdmin"
FRANKLIN = "arn:aws:iam::123456789012:user/franklin"
CALLER = Caller("123456789012", frozenset({FRANKLIN}))


def allowed(condition: dict[str, Any], keys: Keys) -> bool:
    """Whether one Allow under this condition applies."""
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}
    policy = parse("test", {"Version": "2012-10-17", "Statement": statement})
    return decide([policy], action="sts:AssumeRole", resource=ARN, keys=keys).allowed


@pytest.mark.parametrize(
    ("operator", "want", "hit", "miss"),
    [
        ("Bool", True, "true", "false"),
        ("Bool", "false", "false", "true"),
        ("NumericLessThan", 3600, "3599", "3600"),
        ("NumericLessThanEquals", "3600", "3600", "3601"),
        ("NumericGreaterThan", "1", "2", "1"),
        ("NumericGreaterThanEquals", "1", "1", "0"),
        ("NumericEquals", "5", "5.0", "6"),
        ("NumericNotEquals", "5", "6", "5"),
        ("StringEquals", ["a", "b"], "b", "B"),
        ("StringNotEquals", ["a", "b"], "c", "a"),
        ("StringEqualsIgnoreCase", "A", "a", "b"),
        ("StringLike", "fra*i?", "franklin", "frank"),
        ("StringNotLike", "fra*", "robot", "franklin"),
        ("ArnEquals", FRANKLIN, FRANKLIN, ARN),
        ("ArnLike", "arn:aws:iam::*:user/*", FRANKLIN, ARN),
        ("ArnLike", "arn:aws:*:*:*:user/franklin", FRANKLIN, "arn:aws:iam::1:2:user/franklin"),
        ("ArnNotLike", "arn:aws:iam::*:user/*", ARN, FRANKLIN),
        ("DateLessThan", "2026-11-22T12:00:00Z", "2026-11-22T11:59:59Z", "2026-11-22T12:00:00Z"),
        ("DateGreaterThan", "2026-11-22T12:00:00Z", "2026-11-22T12:00:01+00:00", "1700000000"),
        ("IpAddress", "127.0.0.0/8", "127.0.0.1", "10.0.0.1"),
        ("NotIpAddress", "127.0.0.0/8", "10.0.0.1", "127.0.0.1"),
    ],
)
def test_operators(operator: str, want: Any, hit: str, miss: str) -> None:
    """Each operator takes its hit and leaves its miss; wildcards in an ARN do not cross a colon."""
    condition = {operator: {"aws:Key": want}}

    assert allowed(condition, {"aws:key": (hit,)})
    assert not allowed(condition, {"aws:key": (miss,)})


@pytest.mark.parametrize(
    ("operator", "want", "absent"),
    [
        ("Bool", "true", False),
        ("BoolIfExists", "true", True),
        ("NumericLessThan", "3600", False),
        ("NumericLessThanIfExists", "3600", True),
        ("StringNotEquals", "a", True),
        ("Null", "true", True),
        ("Null", "false", False),
        ("ForAllValues:StringEquals", "a", True),
        ("ForAnyValue:StringEquals", "a", False),
    ],
)
def test_absent_keys(operator: str, want: str, absent: bool) -> None:
    """What a condition says of a key that is not there: the whole difference between Bool and BoolIfExists."""
    assert allowed({operator: {"aws:Key": want}}, {}) is absent


def test_if_exists_still_looks() -> None:
    """A key that is there counts: false is not absent (aws-facts §1.2)."""
    assert not allowed({"BoolIfExists": {"aws:Key": "true"}}, {"aws:key": ("false",)})
    assert not allowed({"Null": {"aws:Key": "true"}}, {"aws:key": ("false",)})


def test_many_values() -> None:
    """ForAllValues wants each, ForAnyValue one."""
    keys = {"aws:tagkeys": ("team", "cost")}

    assert allowed({"ForAnyValue:StringEquals": {"aws:TagKeys": "team"}}, keys)
    assert not allowed({"ForAllValues:StringEquals": {"aws:TagKeys": "team"}}, keys)
    assert allowed({"ForAllValues:StringEquals": {"aws:TagKeys": ["team", "cost", "x"]}}, keys)


def test_all_conditions_count() -> None:
    """Operators and keys of one statement are joined by and."""
    condition = {"Bool": {"aws:A": "true", "aws:B": "true"}, "NumericLessThan": {"aws:C": "10"}}
    right = {"aws:a": ("true",), "aws:b": ("true",), "aws:c": ("9",)}

    assert allowed(condition, right)
    for name, wrong in (("aws:a", "false"), ("aws:b", "false"), ("aws:c", "10")):
        assert not allowed(condition, {**right, name: (wrong,)})


def test_variables() -> None:
    """`${aws:username}` in resource and condition; absent, it matches nothing, an empty name included."""
    own = {"Effect": "Allow", "Action": "iam:*", "Resource": "arn:aws:iam::1:user/${aws:username}"}
    policy = parse("own", {"Version": "2012-10-17", "Statement": [own]})

    def may(name: str, keys: Keys) -> bool:
        return decide([policy], action="iam:GetUser", resource=f"arn:aws:iam::1:user/{name}", keys=keys).allowed

    assert may("franklin", {"aws:username": ("franklin",)})
    assert not may("robot", {"aws:username": ("franklin",)})
    assert not may("", {})
    assert allowed({"StringEquals": {"a": "${b}"}}, {"a": ("x",), "b": ("x",)})
    assert not allowed({"StringEquals": {"a": "${b}"}}, {"a": ("",)})


def test_actions_and_resources() -> None:
    """Actions in any case, wildcards, NotAction and NotResource."""

    def may(action: str, resource: str = ARN, **element: Any) -> bool:
        statement = {"Effect": "Allow", "Action": "*", "Resource": "*", **element}
        if "NotAction" in element:
            del statement["Action"]
        if "NotResource" in element:
            del statement["Resource"]
        policy = parse("x", {"Version": "2012-10-17", "Statement": [statement]})
        return decide([policy], action=action, resource=resource, keys={}).allowed

    assert may("sts:AssumeRole", Action="STS:assume*")
    assert not may("sts:TagSession", Action="sts:Assume*")
    assert not may("iam:GetUser", NotAction=["iam:GetUser"])
    assert may("iam:ListUsers", NotAction=["iam:GetUser"])
    assert not may("x:y", NotResource=ARN)
    assert may("x:y", "arn:other", NotResource=ARN)
    assert not may("x:y", ARN.lower(), Resource=ARN)


def test_explicit_deny_wins() -> None:
    """In any order, and the decision names the policy that denied."""
    allow = parse("allow", {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}})
    deny = parse("deny", {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "a:b", "Resource": "*"}})

    for order in ([allow, deny], [deny, allow]):
        decision = decide(order, action="a:b", resource="*", keys={})
        assert (decision.allowed, decision.denied, decision.policy) == (False, True, "deny")
        assert decide(order, action="a:c", resource="*", keys={}).allowed


@pytest.mark.parametrize(
    ("principal", "allowed_", "direct"),
    [
        ({"AWS": "123456789012"}, True, False),
        ({"AWS": "arn:aws:iam::123456789012:root"}, True, False),
        ({"AWS": ["999999999999", FRANKLIN]}, True, True),
        ({"AWS": "*"}, True, True),
        ("*", True, True),
        ({"AWS": "999999999999"}, False, False),
        ({"AWS": "arn:aws:iam::123456789012:user/*"}, False, False),
        ({"Service": "ec2.amazonaws.com"}, False, False),
        ({"Federated": "cognito-identity.amazonaws.com"}, False, False),
    ],
)
def test_principals(principal: Any, allowed_: bool, direct: bool) -> None:
    """Whom a trust policy means: an account, its root, an ARN, everybody; no wildcard within an ARN."""
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    trust = parse("trust", {"Version": "2012-10-17", "Statement": [statement]})

    decision = decide_trust(trust, action="sts:AssumeRole", caller=CALLER, keys={})

    assert (decision.allowed, decision.direct) == (allowed_, direct)
    assert not decide_trust(trust, action="sts:TagSession", caller=CALLER, keys={}).allowed


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "allow", "Action": "*", "Resource": "*"},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Boolean": {"a": "true"}}},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Conditions": {}},
    ],
)
def test_what_is_not_understood_is_refused(statement: dict[str, Any]) -> None:
    """No operator, element or effect is passed over in silence."""
    with pytest.raises(ValueError, match="policy odd"):
        parse("odd", {"Version": "2012-10-17", "Statement": [statement]})


def test_version_must_be_a_text() -> None:
    """A YAML reader that makes a date of 2012-10-17 is caught here (scenarios §4.1)."""
    with pytest.raises(ValueError, match="Version"):
        parse("odd", {"Statement": []})
