"""STS over botocore: GetSessionToken, AssumeRole, GetCallerIdentity.

Rules
- A reply is believed only when it holds four non-empty fields of keys that live in the future: a captive portal
  answers 200 too. Anything else is StsUnavailable, since nobody refused anything.
- A token code has its shape checked here once more, since botocore checks only its minimum length (aws-facts §1.4)
  and AWS echoes what is malformed (row 4).
- `issued` is the moment before the call: the age that AWS counts is never above ours (aws-facts §1.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vaultd.aws.calls import Calls, Request
from vaultd.aws.clients import Signer
from vaultd.aws.translate import Called, unavailable
from vaultd.engine.seams import Clock
from vaultd.errors import BadRequest, InvalidCode
from vaultd.model.credentials import IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.secret import Secret

_CODE = re.compile(rb"[0-9]{6}")


@dataclass(frozen=True, slots=True)
class _Keys:
    """The Credentials element of a reply."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    expiration: datetime


class BotoSts:
    """The seam `Sts`."""

    def __init__(self, *, calls: Calls, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock

    async def session_token(
        self,
        key: IdentityKey,
        *,
        endpoint: Endpoint,
        duration: timedelta,
        mfa_serial: str | None,
        token_code: Secret | None,
    ) -> MfaSession:
        """GetSessionToken, with serial and code or without both."""
        _paired(mfa_serial, token_code)
        called = _called("GetSessionToken", key, endpoint, target=mfa_serial or "", with_code=token_code is not None)
        fixed: dict[str, object] = {"DurationSeconds": _seconds(duration)}
        issued = self._clock.now()
        reply = await self._call("get_session_token", key, called, fixed, mfa_serial, token_code, endpoint=endpoint)
        keys = self._keys(reply, called)
        handle = MfaHandle(key.identity, mfa_serial, issued=issued, expiration=keys.expiration)
        return MfaSession(handle, keys.access_key_id, keys.secret_access_key, keys.session_token)

    async def assume_role(
        self,
        source: IdentityKey | MfaSession | RoleSession,
        *,
        endpoint: Endpoint,
        duration: timedelta,
        role: RoleParameters,
        mfa_serial: str | None = None,
        token_code: Secret | None = None,
    ) -> RoleSession:
        """AssumeRole; serial and code only from an identity key (aws-facts §1.5 row 2)."""
        _paired(mfa_serial, token_code)
        called = _called("AssumeRole", source, endpoint, target=role.role_arn, with_code=token_code is not None)
        issued = self._clock.now()
        reply = await self._call(
            "assume_role", source, called, _role(role, duration), mfa_serial, token_code, endpoint=endpoint
        )
        keys = self._keys(reply, called)
        return RoleSession(
            access_key_id=keys.access_key_id,
            secret_access_key=keys.secret_access_key,
            session_token=keys.session_token,
            issued=issued,
            expiration=keys.expiration,
            account_id=role.role_arn.split(":")[4],
            role_arn=role.role_arn,
            role_session_name=role.role_session_name,
            packed_policy_size=reply.get("PackedPolicySize"),
            aws_request_id=reply.get("ResponseMetadata", {}).get("RequestId"),
        )

    async def caller_identity(self, key: IdentityKey | MfaSession, *, endpoint: Endpoint) -> str:
        """GetCallerIdentity's ARN."""
        called = _called("GetCallerIdentity", key, endpoint)
        reply = await self._call("get_caller_identity", key, called, {}, None, None, endpoint=endpoint)
        arn = reply.get("Arn")
        if not isinstance(arn, str) or not arn.startswith("arn:"):
            raise unavailable(called, "the answer holds no ARN, so it is not from AWS")
        return arn

    def clock_skew(self) -> float | None:
        """Seconds by which this machine is ahead of AWS; None before the first reply."""
        return self._calls.skew

    async def _call(
        self,
        method: str,
        source: IdentityKey | MfaSession | RoleSession,
        called: Called,
        fixed: Mapping[str, object],
        serial: str | None,
        code: Secret | None,
        *,
        endpoint: Endpoint,
    ) -> Mapping[str, Any]:
        def parameters() -> Mapping[str, object]:
            if code is None:
                return fixed
            return {**fixed, "SerialNumber": serial, "TokenCode": code.reveal()}

        request = Request("sts", method, called, signer(source), parameters)
        return await self._calls.call(request, endpoint=endpoint)

    def _keys(self, reply: Mapping[str, Any], called: Called) -> _Keys:
        found = reply.get("Credentials")
        fields = found if isinstance(found, dict) else {}
        texts = [fields.get(name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        expiration = fields.get("Expiration")
        if not all(isinstance(text, str) and text for text in texts) or not isinstance(expiration, datetime):
            raise unavailable(called, "the answer holds no keys, so it is not from AWS")
        if expiration <= self._clock.now():
            raise unavailable(called, "the keys it gave have expired already")
        return _Keys(str(texts[0]), Secret(str(texts[1])), Secret(str(texts[2])), expiration)


def signer(source: IdentityKey | MfaSession | RoleSession) -> Signer:
    """The keys of `source`, as a call signs with them."""
    token = None if isinstance(source, IdentityKey) else source.session_token
    return Signer(source.access_key_id, source.secret_access_key, token)


def _called(
    operation: str,
    source: IdentityKey | MfaSession | RoleSession,
    endpoint: Endpoint,
    *,
    target: str = "",
    with_code: bool = False,
) -> Called:
    if isinstance(source, IdentityKey):
        identity, by = source.identity, f"identity {source.identity}"
    elif isinstance(source, MfaSession):
        identity, by = source.handle.identity, f"the MFA session of identity {source.handle.identity}"
    else:
        identity, by = "", f"the session of {source.role_arn or source.account_id}"
    session = not isinstance(source, IdentityKey)
    return Called(operation, identity, by, endpoint.region, target=target, by_session=session, with_code=with_code)


def _paired(serial: str | None, code: Secret | None) -> None:
    if (serial is None) != (code is None):
        raise BadRequest("mfa_serial and token_code go together; give both or neither")
    if code is not None and not _CODE.fullmatch(code.reveal_bytes()):
        raise InvalidCode("the code must be six digits; type the six digits that the device shows")


def _role(role: RoleParameters, duration: timedelta) -> dict[str, object]:
    """AssumeRole's parameters; what is unset is not sent (aws-facts §0: no tags and no SourceIdentity by default)."""
    sent: dict[str, object | None] = {
        "RoleArn": role.role_arn,
        "RoleSessionName": role.role_session_name,
        "DurationSeconds": _seconds(duration),
        "ExternalId": role.external_id,
        "SourceIdentity": role.source_identity,
        "Policy": role.policy,
        "Tags": [{"Key": key, "Value": value} for key, value in role.tags] or None,
        "TransitiveTagKeys": list(role.transitive_tag_keys) or None,
        "PolicyArns": [{"arn": arn} for arn in role.policy_arns] or None,
    }
    return {name: value for name, value in sent.items() if value is not None}


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
