"""Parameter limits of STS calls (aws-facts §1.4): what botocore lets through and AWS refuses (400)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tests.strict_sts.replies import AwsError, validation

NAME = r"[\w+=,.@-]*"


@dataclass(frozen=True)
class Text:
    low: int
    high: int
    pattern: str = r"[\s\S]*"


@dataclass(frozen=True)
class Number:
    low: int
    high: int


Limit = Text | Number
ROLE_LIMITS: Mapping[str, Limit] = {
    "RoleArn": Text(20, 2048),
    "RoleSessionName": Text(2, 64, NAME),
    "DurationSeconds": Number(900, 43200),
    "SerialNumber": Text(9, 256, r"[\w+=/:,.@-]*"),
    "TokenCode": Text(6, 6, r"[\d]*"),
    "ExternalId": Text(2, 1224, r"[\w+=,.@:\/-]*"),
    "SourceIdentity": Text(2, 64, NAME),
    "Policy": Text(1, 2048),
}
SESSION_LIMITS: Mapping[str, Limit] = {
    "DurationSeconds": Number(900, 129600),
    "SerialNumber": ROLE_LIMITS["SerialNumber"],
    "TokenCode": ROLE_LIMITS["TokenCode"],
}
FEDERATION_LIMITS: Mapping[str, Limit] = {
    "Name": Text(2, 32, NAME),
    "DurationSeconds": Number(900, 129600),
    "Policy": Text(1, 2048),
}


def check(params: Mapping[str, str], limits: Mapping[str, Limit], *required: str) -> None:
    """Raises ValidationError with one complaint a broken rule."""
    complaints = [
        f"Value null at '{_camel(name)}' failed to satisfy constraint: Member must not be null"
        for name in required
        if name not in params
    ]
    for name, limit in limits.items():
        if name in params:
            complaints += _complaints(name, params[name], limit)
    if complaints:
        raise validation(*complaints)


def _complaints(name: str, value: str, limit: Limit) -> list[str]:
    rules = _number_rules(value, limit) if isinstance(limit, Number) else _text_rules(value, limit)
    start = f"Value '{value}' at '{_camel(name)}' failed to satisfy constraint: Member must"
    return [f"{start} {rule}" for broken, rule in rules if broken]


def _text_rules(value: str, limit: Text) -> list[tuple[bool, str]]:
    return [
        (len(value) > limit.high, f"have length less than or equal to {limit.high}"),
        (len(value) < limit.low, f"have length greater than or equal to {limit.low}"),
        # AWS's \w and \d are ASCII: Arabic-Indic digits pass botocore and fail here (aws-facts §1.4)
        (re.fullmatch(limit.pattern, value, re.ASCII) is None, f"satisfy regular expression pattern: {limit.pattern}"),
    ]


def _number_rules(value: str, limit: Number) -> list[tuple[bool, str]]:
    if not value.isascii() or not value.isdigit():
        return [(True, "be a number")]
    return [
        (int(value) > limit.high, f"have value less than or equal to {limit.high}"),
        (int(value) < limit.low, f"have value greater than or equal to {limit.low}"),
    ]


def _camel(name: str) -> str:
    return name[0].lower() + name[1:]


def tags(params: Mapping[str, str]) -> dict[str, str]:
    """`Tags.member.N.Key|Value` → tags. Raises for more than 50, long ones, keys that differ in case only."""
    found: dict[str, str] = {}
    for name, key in params.items():
        if part := re.fullmatch(r"Tags\.member\.(\d+)\.Key", name):
            value = params.get(f"Tags.member.{part[1]}.Value", "")
            if len(key) > 128 or len(value) > 256:
                rule = (
                    "have length less than or equal to 128"
                    if len(key) > 128
                    else "have length less than or equal to 256"
                )
                raise validation(
                    f"Value '{key}' at 'tags.{part[1]}.member' failed to satisfy constraint: Member must {rule}"
                )
            if key.lower() in {each.lower() for each in found}:
                text = "Duplicate tag keys found. Please note that Tag keys are case insensitive."
                raise AwsError(400, "InvalidParameterValue", text)
            found[key] = value
    if len(found) > 50:
        raise validation(
            "Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50"
        )
    return found


def listed(params: Mapping[str, str], name: str, field: str = "") -> list[str]:
    """`Name.member.N[.field]` in order."""
    pattern = re.compile(rf"{name}\.member\.(\d+){re.escape(field)}")
    hits = ((pattern.fullmatch(key), value) for key, value in params.items())
    return [value for _, value in sorted((int(hit[1]), value) for hit, value in hits if hit)]
