"""AWS's limits on what a plan sends, checked here because botocore checks none of them (aws-facts §1.4).

Rule: every pattern is ASCII: Python's word class would pass letters that AWS refuses. A check returns what to write
instead, or None: the caller knows which file and line, or which request field, holds the value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import timedelta

from vaultd.model.text import shown

MIN_DURATION = timedelta(seconds=900)
MAX_DURATION = timedelta(seconds=43200)
#: The longest session of a role assumed from another session, the MFA session included (aws-facts §1.1).
CHAINED_DURATION = timedelta(seconds=3600)
#: Below it SDKs refetch on every signature, since they want 15 minutes left (aws-facts §1.3 (5)).
COMFORTABLE_DURATION = timedelta(seconds=1800)
MAX_IDENTITY_NAME = 128
MAX_POLICY = 2048
MAX_POLICY_ARNS = 10
MAX_TAGS = 50
MAX_TAG_KEY = 128
MAX_TAG_VALUE = 256

_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
_NOT_NAME = re.compile(r"[^A-Za-z0-9_+=,.@-]")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")
_SERIAL = re.compile(r"[A-Za-z0-9_+=/:,.@-]{9,256}")
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,512}")
_POLICY_ARN = re.compile(r"arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[!-~]{1,512}")
_TAG_MARKS = frozenset("_.:/=+-@")


def session_name(text: str) -> str:
    """`text` as a RoleSessionName: 2 to 64 of the charset, others `-`; the same text always gives the same name."""
    name = _NOT_NAME.sub("-", text)[:64]
    return name if len(name) >= 2 else f"{name}--"[:2]


def source_identity(text: str) -> str | None:
    """2 to 64 of RoleSessionName's charset, and not AWS's own prefix."""
    if _NAME.fullmatch(text) and not text.lower().startswith("aws:"):
        return None
    return "write 2 to 64 letters, digits or _+=,.@-"


def external_id(text: str) -> str | None:
    """2 to 1,224 of its charset."""
    return None if _EXTERNAL_ID.fullmatch(text) else "write 2 to 1224 letters, digits or _+=,.@:/-"


def mfa_serial(text: str) -> str | None:
    """A device's ARN, or the number printed on it."""
    return None if _SERIAL.fullmatch(text) else "write the device's ARN, such as arn:aws:iam::123456789012:mfa/franklin"


def role_arn(text: str) -> str | None:
    """An IAM role's ARN with a real account id."""
    return (
        None if _ROLE_ARN.fullmatch(text) else "write the role's ARN, such as arn:aws:iam::123456789012:role/WebAdmin"
    )


def duration(value: timedelta) -> str | None:
    """AssumeRole's DurationSeconds; the role's own MaxSessionDuration is AWS's to tell."""
    return None if MIN_DURATION <= value <= MAX_DURATION else "write a number of seconds from 900 to 43200"


def identity_name(name: str) -> str | None:
    """Of vaultd itself: it stands in paths of the control API and in commands that people paste."""
    fits = 1 <= len(name) <= MAX_IDENTITY_NAME and not name.startswith("-") and not {"/", "\\"} & set(name)
    if fits and shown(name) == name:
        return None
    return "give a name of 1 to 128 characters without / and \\ that does not begin with - and can be shown"


def policy(text: str | None, arns: Iterable[str]) -> str | None:
    """Session policy and PolicyArns, which share one limit of 2,048 characters."""
    listed = tuple(arns)
    if len(listed) > MAX_POLICY_ARNS:
        return f"{len(listed)} ARNs are above the limit of 10: pass at most 10"
    if bad := next((arn for arn in listed if not _POLICY_ARN.fullmatch(arn)), None):
        return f"{bad!r} is no policy's ARN: pass one such as arn:aws:iam::aws:policy/ReadOnlyAccess"
    size = len(text or "") + sum(map(len, listed))
    if size > MAX_POLICY:
        return f"{size} characters are above the limit of 2048: pass a shorter policy"
    return None


def tags(pairs: Iterable[tuple[str, str]], transitive: Iterable[str]) -> str | None:
    """Session tags and transitive keys; keys are compared without regard to case, as AWS does."""
    listed, passed_on = tuple(pairs), tuple(transitive)
    if len(listed) > MAX_TAGS or len(passed_on) > MAX_TAGS:
        return "more than 50 tags: write at most 50"
    for key, value in listed:
        if found := _tag_key(key) or _tag_value(value):
            return found
    folded = [key.lower() for key, _ in listed]
    if twice := next((key for key in folded if folded.count(key) > 1), None):
        return f"the key {twice} stands there twice: write each key once"
    return next((found for key in passed_on if (found := _tag_key(key))), None)


def _tag_key(key: str) -> str | None:
    if not 1 <= len(key) <= MAX_TAG_KEY:
        return f"a key has {len(key)} characters: write 1 to 128"
    if key.lower().startswith("aws:"):
        return "keys that begin with aws: are AWS's own: write another key"
    return None if _tag_text(key) else "a key has a forbidden character: write letters, digits, spaces or _.:/=+-@"


def _tag_value(value: str) -> str | None:
    if len(value) > MAX_TAG_VALUE:
        return f"a value has {len(value)} characters: write at most 256"
    return None if _tag_text(value) else "a value has a forbidden character: write letters, digits, spaces or _.:/=+-@"


def _tag_text(text: str) -> bool:
    return all(char in _TAG_MARKS or unicodedata.category(char)[0] in "LZN" for char in text)
