"""IAM policy evaluation, fed by the templates as they stand.

Rule: explicit deny wins, nothing is allowed unasked, and what is not understood is refused when a policy is read, never
passed over in silence (that is what moto does, aws-facts §3).
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from tests.strict_sts.clocks import moment

Keys = Mapping[str, tuple[str, ...]]  # condition key in lower case → its values; an absent key is not in it


@dataclass(frozen=True)
class Caller:
    """Who asks, as a Principal element may name them: account, and every ARN that means them."""

    account: str
    arns: frozenset[str]


@dataclass(frozen=True)
class Decision:
    """What one set of policies says of one action; what is denied is never allowed."""

    allowed: bool = False
    denied: bool = False
    direct: bool = False  # a resource policy that named the caller, not just the caller's account
    policy: str = ""  # the one that denied


@dataclass(frozen=True)
class Statement:
    effect: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_resources: tuple[str, ...]
    principals: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]

    def applies(self, action: str, resource: str | None, keys: Keys) -> bool:
        return (
            self._acts(action)
            and (resource is None or self._covers(resource, keys))
            and all(_holds(operator, key, wanted, keys) for operator, key, wanted in self.conditions)
        )

    def _acts(self, action: str) -> bool:
        if self.not_actions:
            return not any(like(action.lower(), each.lower()) for each in self.not_actions)
        return any(like(action.lower(), each.lower()) for each in self.actions)

    def _covers(self, resource: str, keys: Keys) -> bool:
        patterns = [expand(each, keys) for each in self.not_resources or self.resources]
        hit = any(each is not None and like(resource, each) for each in patterns)
        return hit != bool(self.not_resources)

    def names(self, caller: Caller) -> str:
        """`direct`, `account` or nothing: how the Principal element means this caller."""
        if caller.arns & set(self.principals) or "*" in self.principals:
            return "direct"
        account = {caller.account, f"arn:aws:iam::{caller.account}:root"}
        return "account" if account & set(self.principals) else ""


@dataclass(frozen=True)
class Policy:
    """One document: identity policies have no principals, trust policies no resources."""

    name: str
    statements: tuple[Statement, ...]


def parse(name: str, document: Mapping[str, Any]) -> Policy:
    """A policy document as templates and the API hold it. Raises ValueError naming the policy and what it holds."""
    if document.get("Version") not in {"2012-10-17", "2008-10-17"}:
        raise ValueError(f"policy {name}: Version must be the text 2012-10-17, not {document.get('Version')!r}")
    statements = document.get("Statement", ())
    many = statements if isinstance(statements, list) else [statements]
    return Policy(name, tuple(_statement(name, each) for each in many))


def decide(policies: Iterable[Policy], *, action: str, resource: str, keys: Keys) -> Decision:
    """What identity policies say."""
    allowed = False
    for policy in policies:
        for statement in policy.statements:
            if statement.applies(action, resource, keys):
                if statement.effect == "Deny":
                    return Decision(denied=True, policy=policy.name)
                allowed = True
    return Decision(allowed=allowed)


def decide_trust(policy: Policy, *, action: str, caller: Caller, keys: Keys) -> Decision:
    """What a role's trust policy says of this caller."""
    ways = set()
    for statement in policy.statements:
        way = statement.names(caller)
        if way and statement.applies(action, None, keys):
            if statement.effect == "Deny":
                return Decision(denied=True, policy=policy.name)
            ways.add(way)
    return Decision(allowed=bool(ways), direct="direct" in ways)


def like(value: str, pattern: str) -> bool:
    """AWS's wildcards: * and ?, nothing else."""
    return _glob(pattern).fullmatch(value) is not None


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(char, re.escape(char)) for char in pattern), re.DOTALL)


def expand(text: str, keys: Keys) -> str | None:
    """`${aws:username}` and the like filled in; None when a key is absent, which then matches nothing."""
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        have = keys.get(found[1].lower())
        missing = missing or not have
        return have[0] if have else ""

    filled = re.sub(r"\$\{([^}]+)\}", value, text)
    return None if missing else filled


# --- conditions -------------------------------------------------------------------------------------------------------


def _number(test: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda have, want: _tried(lambda: test(float(have), float(want)))


def _date(test: Callable[[datetime, datetime], bool]) -> Callable[[str, str], bool]:
    return lambda have, want: _tried(lambda: test(_moment(have), _moment(want)))


def _moment(text: str) -> datetime:
    return moment(float(text) if text.replace(".", "", 1).isdigit() else text)


def _tried(test: Callable[[], bool]) -> bool:
    """A value that is no number or date matches nothing, as at AWS."""
    try:
        return test()
    except ValueError:
        return False


def _arn_like(have: str, want: str) -> bool:
    """Each of the six parts by itself: a * does not cross a colon."""
    ours, theirs = have.split(":", 5), want.split(":", 5)
    return len(ours) == len(theirs) == 6 and all(like(a, b) for a, b in zip(ours, theirs, strict=True))


TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "Bool": lambda have, want: have.lower() == want.lower(),
    "StringEquals": lambda have, want: have == want,
    "StringEqualsIgnoreCase": lambda have, want: have.lower() == want.lower(),
    "StringLike": like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "IpAddress": lambda have, want: _tried(lambda: ipaddress.ip_address(have) in ipaddress.ip_network(want)),
    "NumericEquals": _number(lambda a, b: a == b),
    "NumericLessThan": _number(lambda a, b: a < b),
    "NumericLessThanEquals": _number(lambda a, b: a <= b),
    "NumericGreaterThan": _number(lambda a, b: a > b),
    "NumericGreaterThanEquals": _number(lambda a, b: a >= b),
    "DateEquals": _date(lambda a, b: a == b),
    "DateLessThan": _date(lambda a, b: a < b),
    "DateLessThanEquals": _date(lambda a, b: a <= b),
    "DateGreaterThan": _date(lambda a, b: a > b),
    "DateGreaterThanEquals": _date(lambda a, b: a >= b),
}
OPERATOR = re.compile(r"(?:(ForAllValues|ForAnyValue):)?(\w+?)(IfExists)?")


def _named(operator: str) -> tuple[str, str, bool, bool]:
    """`ForAnyValue:StringNotLikeIfExists` → (ForAnyValue, StringLike, negated, if it exists)."""
    found = OPERATOR.fullmatch(operator)
    quantifier, name, if_exists = found.groups() if found else ("", operator, None)
    base = name.replace("Not", "", 1)
    if base not in TESTS and name != "Null":
        raise ValueError(f"condition operator {operator!r} is none of AWS's, or not known here")
    return quantifier or "", base, base != name, bool(if_exists)


def _holds(operator: str, key: str, wanted: tuple[str, ...], keys: Keys) -> bool:
    quantifier, name, negated, if_exists = _named(operator)
    have = keys.get(key.lower())
    if name == "Null":
        return any((have is None) == (each.lower() == "true") for each in wanted)
    if have is None:
        return if_exists or negated or quantifier == "ForAllValues"
    values = [each for each in (expand(want, keys) for want in wanted) if each is not None]
    hits = [any(TESTS[name](value, want) for want in values) != negated for value in have]
    return all(hits) if quantifier == "ForAllValues" or (negated and not quantifier) else any(hits)


# --- reading ----------------------------------------------------------------------------------------------------------

ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "Condition"}


def _statement(name: str, raw: Mapping[str, Any]) -> Statement:
    unknown = set(raw) - ELEMENTS
    if unknown or raw.get("Effect") not in {"Allow", "Deny"}:
        raise ValueError(
            f"policy {name}: statement with Effect {raw.get('Effect')!r} and {sorted(unknown)} not known here"
        )
    return Statement(
        effect=str(raw["Effect"]),
        actions=_texts(raw.get("Action", ())),
        not_actions=_texts(raw.get("NotAction", ())),
        resources=_texts(raw.get("Resource", ())),
        not_resources=_texts(raw.get("NotResource", ())),
        principals=_principals(raw.get("Principal", ())),
        conditions=_conditions(name, raw.get("Condition", {})),
    )


def _conditions(name: str, raw: Mapping[str, Any]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    try:
        for operator in raw:
            _named(operator)
    except ValueError as exc:
        raise ValueError(f"policy {name}: {exc}") from exc
    return tuple((op, key, _texts(wanted)) for op, pairs in raw.items() for key, wanted in pairs.items())


def _principals(raw: Any) -> tuple[str, ...]:
    """Only AWS principals can call AssumeRole; Service and Federated ones name nobody here."""
    return _texts(raw.get("AWS", ()) if isinstance(raw, Mapping) else raw)


def _texts(value: Any) -> tuple[str, ...]:
    """One or many; YAML may have made a bool or a number of it (scenarios §4.1)."""
    many = value if isinstance(value, (list, tuple)) else [value]
    return tuple(str(each).lower() if isinstance(each, bool) else str(each) for each in many)
