"""What happened: one `Call` row a request for counting, and CloudTrail-shaped records for what an auditor would see.

Neither ever holds a token code or a secret; a code is known by the ordinal of its first appearance.
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.strict_sts.clocks import stamp
from tests.strict_sts.replies import AwsError, request_id
from tests.strict_sts.sessions import FEDERATED, LONG_TERM, ROLE, Credential
from tests.strict_sts.sigv4 import Wire


@dataclass
class Exchange:
    """One request on its way through the emulator; the checks fill in what they learn."""

    wire: Wire
    service: str
    op: str
    params: Mapping[str, str]
    time: datetime
    rid: str = field(default_factory=request_id)
    caller: Credential | None = None
    role: str = ""
    issued: Credential | None = None
    expired_by: float | None = None  # past_expiration: how long ago the issued session shall have ended
    error: AwsError | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One row of the log. `status` 0 = the client got no answer."""

    seq: int
    time: datetime
    service: str
    op: str
    region: str
    akid: str
    account: str
    principal: str
    credential: str
    role: str
    session_name: str
    mfa: bool
    code: int | None
    params: Mapping[str, str]
    user_agent: str
    status: int
    error: str
    fault: str
    issued: str
    expiration: datetime | None

    def as_json(self) -> dict[str, Any]:
        """The row with its times as STS writes them."""
        row = dict(vars(self))
        row["time"] = self.time.isoformat()
        row["expiration"] = stamp(self.expiration) if self.expiration else None
        return row


class Log:
    """Rows and records since the last reset."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._codes: dict[tuple[str, str], int] = {}
        self.records: list[dict[str, Any]] = []

    def calls(self, op: str | None = None, *, since: int = 0) -> list[Call]:
        return [call for call in self._calls if op in {None, call.op} and call.seq > since]

    def counts(self, *, since: int = 0) -> Counter[str]:
        return Counter(call.op for call in self.calls(since=since))

    def add(self, x: Exchange, *, status: int, error: str, fault: str) -> None:
        """The row of an exchange, and its records when AWS saw it at all (`x.caller` is known)."""
        caller, issued = x.caller, x.issued
        self._calls.append(
            Call(
                seq=len(self._calls) + 1, time=x.time, service=x.service, op=x.op,
                region=x.wire.region, akid=x.wire.akid,
                account=caller.account if caller else "", principal=caller.arn if caller else "",
                credential=caller.kind if caller else "", role=x.role, session_name=x.params.get("RoleSessionName", ""),
                mfa="TokenCode" in x.params, code=self._ordinal(x.params), params=_public(x.params),
                user_agent=x.wire.headers.get("user-agent", ""), status=status, error=error, fault=fault,
                issued=issued.akid if issued else "", expiration=issued.expiration if issued else None,
            )
        )  # fmt: skip
        if caller:
            self.records.extend(_records(x, caller))

    def _ordinal(self, params: Mapping[str, str]) -> int | None:
        if "TokenCode" not in params:
            return None
        shown = (params.get("SerialNumber", ""), params["TokenCode"])
        return self._codes.setdefault(shown, len(self._codes) + 1)


_KEPT_BACK = {"TokenCode", "Action", "Version", "Session", "SigninToken", "redirect_uri"}


def _public(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name not in _KEPT_BACK}


# --- CloudTrail (aws-facts §5) ----------------------------------------------------------------------------------------


def _records(x: Exchange, caller: Credential) -> list[dict[str, Any]]:
    """The caller's account sees the user; the role's, when it is another one, only an account (aws-facts §5)."""
    record = {
        "eventVersion": "1.08", "eventID": str(uuid.uuid4()), "eventTime": stamp(x.time),
        "recipientAccountId": caller.account,
        "eventSource": f"{x.service}.amazonaws.com", "eventName": x.op, "awsRegion": x.wire.region,
        "sourceIPAddress": "127.0.0.1", "userAgent": x.wire.headers.get("user-agent", ""), "requestID": x.rid,
        "userIdentity": _identity(caller), "requestParameters": _request(x.params), "responseElements": _response(x),
    }  # fmt: skip
    if x.error:
        record |= {"errorCode": x.error.code, "errorMessage": x.error.message}
    owner = x.role.split(":")[4] if x.role else caller.account
    if owner == caller.account:
        return [record]
    shared = {"sharedEventID": str(uuid.uuid4())}
    theirs = {"recipientAccountId": owner, "eventID": str(uuid.uuid4()), "userIdentity": _stranger(caller)}
    return [record | shared, record | shared | theirs]


def _stranger(caller: Credential) -> dict[str, Any]:
    return {"type": "AWSAccount", "principalId": caller.user_id, "accountId": caller.account}


def _identity(caller: Credential) -> dict[str, Any]:
    kind = {ROLE: "AssumedRole", FEDERATED: "FederatedUser"}.get(caller.kind, "IAMUser")
    identity: dict[str, Any] = {
        "type": kind, "principalId": caller.user_id, "arn": caller.arn, "accountId": caller.account,
        "accessKeyId": caller.akid,
    }  # fmt: skip
    if caller.is_user:
        identity["userName"] = caller.holder.rsplit("/", 1)[1]
    if caller.kind != LONG_TERM:
        # not carried for role sessions: MFA is proven by the AssumeRole or GetSessionToken event (aws-facts §5)
        proven = str(caller.mfa_at is not None).lower()
        identity["sessionContext"] = {"attributes": {"mfaAuthenticated": proven, "creationDate": stamp(caller.issued)}}
    if caller.kind == ROLE:
        identity["sessionContext"]["sessionIssuer"] = {
            "type": "Role",
            "arn": caller.holder,
            "accountId": caller.account,
        }
    if caller.source_identity:
        identity["sessionContext"]["sourceIdentity"] = caller.source_identity
    return identity


def _request(params: Mapping[str, str]) -> dict[str, str]:
    return {name[0].lower() + name[1:]: value for name, value in _public(params).items()}


def _response(x: Exchange) -> dict[str, Any] | None:
    if not x.issued or not x.issued.expiration:
        return None
    credentials = {"accessKeyId": x.issued.akid, "expiration": stamp(x.issued.expiration)}
    return {"credentials": credentials, "arn": x.issued.arn}
