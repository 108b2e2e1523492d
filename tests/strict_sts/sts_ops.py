"""STS operations, in AWS's order.

Parameter limits → MFA verified and spent → identity policy → trust policy → duration → issue (scenarios §4.2).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.strict_sts import limits
from tests.strict_sts.calls import Exchange
from tests.strict_sts.clocks import stamp
from tests.strict_sts.policy import Decision, Policy, decide_trust, parse
from tests.strict_sts.replies import AwsError, invalid_action, validation
from tests.strict_sts.sessions import FEDERATED, GST, GST_MFA, LONG_TERM, ROLE, Credential
from tests.strict_sts.state import (
    State,
    authorize,
    caller_of,
    condition_keys,
    denied,
    identity_decision,
    is_chained,
)
from tests.strict_sts.totp import Device
from tests.strict_sts.world import Role

OPT_IN = re.compile(r"(af|ap-east|ap-south-2|ap-southeast-[3-9]|ca-west|eu-central-2|eu-south|il|me|mx)-?.*")
WRONG_CODE = "MultiFactorAuthentication failed with invalid MFA one time pass code. "
BOTH = "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code. "
UNKNOWN_DEVICE = (
    "MultiFactorAuthentication failed, unable to validate MFA code.  "
    "Please verify your MFA serial number is valid and associated with this user. "
)


def perform(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """The result of the operation, or AwsError."""
    operation = OPERATIONS.get(x.op)
    if operation is None:
        raise invalid_action(x.op, x.params.get("Version", ""))
    return operation(state, x, caller)


def get_caller_identity(_state: State, _x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """Cannot be denied, and answers in switched-off regions too (aws-facts §1.1)."""
    return {"Arn": caller.arn, "UserId": caller.user_id, "Account": caller.account}


def get_session_token(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """Needs no permission and cannot be denied by policy (aws-facts §1.1)."""
    _long_term_only(x, caller)
    limits.check(x.params, limits.SESSION_LIMITS)
    _region_on(state, x, caller.account, caller.account)
    shown = _show_mfa(state, x, caller)
    now = state.now()
    return _issued(
        state, x, seconds=int(x.params.get("DurationSeconds", 43200)), kind=GST_MFA if shown else GST,
        holder=caller.holder, arn=caller.arn, user_id=caller.user_id, mfa_at=now if shown else None,
    )  # fmt: skip


def get_federation_token(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """Carries no MFA, so ForceMFA always denies it (aws-facts §0); without a session policy it may do nothing."""
    _long_term_only(x, caller)
    limits.check(x.params, limits.FEDERATION_LIMITS, "Name")
    name = x.params["Name"]
    arn = f"arn:aws:sts::{caller.account}:federated-user/{name}"
    authorize(state, x, caller, "sts:GetFederationToken", arn)
    narrowed = _session_policies(state, x) or (Policy("none", ()),)
    seconds = int(x.params.get("DurationSeconds", 43200))
    issued = _issued(
        state, x, seconds=seconds, kind=FEDERATED, holder=caller.holder, arn=arn, user_id=f"{caller.account}:{name}",
        session_name=name, session_policies=narrowed,
    )  # fmt: skip
    return {**issued, "FederatedUser": {"Arn": arn, "FederatedUserId": f"{caller.account}:{name}"}}


def assume_role(state: State, x: Exchange, caller: Credential) -> Mapping[str, Any]:
    """The one that everything is about (aws-facts §1)."""
    if caller.kind == FEDERATED:
        raise AwsError(403, "AccessDenied", "Cannot call AssumeRole with federated user credentials")
    limits.check(x.params, limits.ROLE_LIMITS, "RoleArn", "RoleSessionName")
    tags, narrowed = _all_tags(x, caller), _session_policies(state, x)
    x.role = x.params["RoleArn"]
    owner = x.role.split(":")[4] if x.role.count(":") >= 5 else ""
    _region_on(state, x, caller.account, owner)
    spent = _show_mfa(state, x, caller)
    with _refundable(state, spent):
        role = _trusted(state, x, caller, tags, mfa_shown=spent is not None)
        seconds = _duration(state, x, caller, role)
        packed = _packed_percent(state, x, tags)
    return _role_session(state, x, caller, role, seconds, tags, narrowed) | (
        {"PackedPolicySize": packed} if packed else {}
    )


OPERATIONS: Mapping[str, Callable[[State, Exchange, Credential], Mapping[str, Any]]] = {
    "AssumeRole": assume_role,
    "GetCallerIdentity": get_caller_identity,
    "GetFederationToken": get_federation_token,
    "GetSessionToken": get_session_token,
}


# --- who may call -----------------------------------------------------------------------------------------------------


def _long_term_only(x: Exchange, caller: Credential) -> None:
    if caller.kind != LONG_TERM:
        raise AwsError(403, "AccessDenied", f"Cannot call {x.op} with session credentials")  # aws-facts §1.5 row 8


def _region_on(state: State, x: Exchange, caller_account: str, role_account: str) -> None:
    """Default-on regions: the role's account counts; opt-in ones: both (aws-facts §1.4)."""
    scope = state.knobs.region_disabled_scope
    if scope == "auto":
        scope = "both" if OPT_IN.fullmatch(x.wire.region) else "role"
    accounts = {"role": (role_account,), "caller": (caller_account,), "both": (caller_account, role_account)}[scope]
    for account in accounts:
        if (account, x.wire.region) in state.world.sts_off:
            text = (
                f"STS is not activated in this region for account:{account}. "
                "Your account administrator can activate STS in this region using the IAM Console."
            )
            raise AwsError(403, "RegionDisabledException", text)


# --- MFA --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """A code that this call used up."""

    device: Device
    step: int


def _show_mfa(state: State, x: Exchange, caller: Credential) -> Spent | None:
    """Verifies and spends the code of the call, if it carries one (aws-facts §1.5 rows 1 to 3)."""
    serial, code = x.params.get("SerialNumber"), x.params.get("TokenCode")
    if serial is None and code is None:
        return None
    if serial is None or code is None:
        raise AwsError(403, "AccessDenied", BOTH)
    device = device_of(state, caller, serial)
    if device is None:
        raise AwsError(403, "AccessDenied", UNKNOWN_DEVICE)
    step = device.consume(code, state.now(), window=state.knobs.totp_window)
    if step is None:
        raise AwsError(403, "AccessDenied", WRONG_CODE)
    return Spent(device, step)


def device_of(state: State, caller: Credential, serial: str) -> Device | None:
    """The caller's own device, if he may show it: a role session has none, a passkey is never taken."""
    device = state.world.devices.get(serial)
    may = caller.kind == LONG_TERM or (caller.kind in {GST, GST_MFA} and state.knobs.mfa_params_accepted_from_gst)
    return device if device and may and device.user == caller.holder and device.kind != "u2f" else None


@contextmanager
def _refundable(state: State, spent: Spent | None) -> Iterator[None]:
    """Whether a code is gone when authorization then fails is a knob (aws-facts §6 (3))."""
    try:
        yield
    except AwsError:
        if spent and not state.knobs.code_consumed_when_denied:
            spent.device.used.discard(spent.step)
        raise


# --- authorization ----------------------------------------------------------------------------------------------------


def _trusted(state: State, x: Exchange, caller: Credential, tags: "_Tags", *, mfa_shown: bool) -> Role:
    """Both sides across accounts; in one account a trust policy that names the caller is enough. Explicit deny wins."""
    role = state.world.roles.get(x.role)
    source = x.params.get("SourceIdentity", "")
    if source and caller.source_identity not in {"", source}:
        raise denied(state, caller, "sts:SetSourceIdentity", x.role, Decision(), kind="identity-based")
    asked = ["sts:AssumeRole"] + ["sts:TagSession"] * bool(tags.own) + ["sts:SetSourceIdentity"] * bool(source)
    extra = _assume_keys(x, caller, tags)
    visible = mfa_shown and state.knobs.direct_mfa_visible_to_identity_policy
    ours = {**condition_keys(state, x, caller, mfa_shown=visible), **extra}
    theirs = {**condition_keys(state, x, caller, mfa_shown=mfa_shown), **extra}
    for action in asked:
        mine = identity_decision(state, caller, action, x.role, ours)
        # a role that is not there reads like one that may not be had (aws-facts §1.5 row 7)
        if mine.denied or role is None:
            raise denied(state, caller, action, x.role, mine, kind="identity-based")
        trust = decide_trust(role.trust, action=action, caller=caller_of(caller), keys=theirs)
        near = role.account == caller.account and trust.direct
        if not mine.allowed and not near:
            raise denied(state, caller, action, x.role, mine, kind="identity-based")
        if not trust.allowed:
            raise denied(state, caller, action, x.role, trust, kind="resource-based")
    assert role is not None
    return role


def _assume_keys(x: Exchange, caller: Credential, tags: "_Tags") -> dict[str, tuple[str, ...]]:
    keys: dict[str, tuple[str, ...]] = {"sts:rolesessionname": (x.params["RoleSessionName"],)}
    if "ExternalId" in x.params:
        keys["sts:externalid"] = (x.params["ExternalId"],)
    if source := x.params.get("SourceIdentity") or caller.source_identity:
        keys["sts:sourceidentity"] = (source,)
    if tags.own:
        keys["aws:tagkeys"] = tuple(tags.own)
        keys |= {f"aws:requesttag/{name.lower()}": (value,) for name, value in tags.own.items()}
    if tags.transitive:
        keys["sts:transitivetagkeys"] = tuple(sorted(tags.transitive))
    return keys


def _duration(state: State, x: Exchange, caller: Credential, role: Role) -> int:
    """aws-facts §1.5 rows 16 and 17. Without a wish a session lasts an hour."""
    seconds = int(x.params.get("DurationSeconds", 3600))
    if seconds > 3600 and is_chained(state, caller):
        text = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
        raise AwsError(400, "ValidationError", text)
    if seconds > role.max_session_duration:
        text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        raise AwsError(400, "ValidationError", text)
    return seconds


# --- tags and session policies ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tags:
    """Tags passed in this call, and those that stick to the chain."""

    own: Mapping[str, str]
    inherited: Mapping[str, str]
    transitive: frozenset[str]


def _all_tags(x: Exchange, caller: Credential) -> _Tags:
    own = limits.tags(x.params)
    inherited = {name: value for name, value in caller.tags.items() if name in caller.transitive}
    if set(own) & set(inherited):
        text = "One of the specified tag keys conflicts with a transitive tag key from the calling session."
        raise AwsError(400, "InvalidParameterValue", text)
    return _Tags(own, inherited, frozenset(limits.listed(x.params, "TransitiveTagKeys")) | caller.transitive)


def _session_policies(state: State, x: Exchange) -> tuple[Policy, ...]:
    arns = limits.listed(x.params, "PolicyArns", ".arn")
    if unknown := [arn for arn in arns if arn not in state.world.managed]:
        raise AwsError(400, "ValidationError", f"The specified session policy {unknown[0]} does not exist.")
    if len(arns) > 10:
        raise validation(
            "Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to 10"
        )
    given = tuple(state.world.managed[arn] for arn in arns)
    if "Policy" not in x.params:
        return given
    try:
        return (*given, parse("session policy", json.loads(x.params["Policy"])))
    except ValueError as exc:
        raise AwsError(400, "MalformedPolicyDocument", f"Syntax errors in policy: {exc}.") from exc


def _packed_percent(state: State, x: Exchange, tags: _Tags) -> int:
    """How AWS packs is not told, so bytes are counted against a knob (aws-facts §1.5 row 18)."""
    words = [x.params.get("Policy", ""), *limits.listed(x.params, "PolicyArns", ".arn")]
    words += [word for pair in (*tags.own.items(), *tags.inherited.items()) for word in pair]
    percent = -(-sum(len(word.encode()) for word in words) * 100 // state.knobs.packed_limit_bytes)
    if percent > 100 and tags.own:
        raise AwsError(
            400, "PackedPolicyTooLarge", f"Packed size of session tags consumes {percent}% of allotted space."
        )
    if percent > 100:
        text = f"Packed policy consumes {percent}% of allotted space, please use smaller policy."
        raise AwsError(400, "PackedPolicyTooLarge", text)
    return percent


# --- issuing ----------------------------------------------------------------------------------------------------------


def _role_session(
    state: State, x: Exchange, caller: Credential, role: Role, seconds: int, tags: _Tags, narrowed: tuple[Policy, ...]
) -> dict[str, Any]:
    name = x.params["RoleSessionName"]
    arn = f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}"
    source = x.params.get("SourceIdentity") or caller.source_identity
    issued = _issued(
        state, x, seconds=seconds, kind=ROLE, holder=role.arn, arn=arn, user_id=f"{role.id}:{name}", session_name=name,
        session_policies=narrowed, source_identity=source, tags={**tags.inherited, **tags.own},
        transitive=tags.transitive, straight=caller.kind == LONG_TERM,
    )  # fmt: skip
    return {
        **issued,
        "AssumedRoleUser": {"Arn": arn, "AssumedRoleId": f"{role.id}:{name}"},
        "SourceIdentity": source or None,
    }


def _issued(state: State, x: Exchange, *, seconds: int, **session: Any) -> dict[str, Any]:
    life, now = state.life(seconds), state.now()
    if x.expired_by is not None:
        life = timedelta(seconds=-x.expired_by)
    credential = state.sessions.issue(now=now, life=life, token_bytes=state.knobs.session_token_bytes, **session)
    x.issued = credential
    return {"Credentials": _credentials(credential, credential.expiration or now)}


def _credentials(credential: Credential, expiration: datetime) -> dict[str, Any]:
    return {
        "AccessKeyId": credential.akid,
        "SecretAccessKey": credential.secret,
        "SessionToken": credential.token,
        "Expiration": stamp(expiration),
    }
