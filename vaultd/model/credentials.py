"""Keys and sessions as frozen values, and the arithmetic of their expiry.

Rule: an identity key and the keys of an MFA session never leave the keeper (architecture.md §3); above it an identity
is a name and an MFA session a handle. Times are UTC-aware, durations `timedelta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from vaultd.model.rotation import OLD, Rotation
from vaultd.model.secret import Secret

#: Never served with less (architecture.md §5; eks-pod-identity-agent's floor, style.md §1.4).
SERVE_FLOOR = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Identity:
    """One line of the index `identities.json`: an IAM user whose key we hold, without the key.

    `key_ending` is the last 4 characters of the access key id, `user_arn` what GetCallerIdentity said at `add`;
    `created` is when the key was stored here, `key_created` when AWS made it, once that is known.
    """

    name: str
    account_id: str
    user_arn: str
    mfa_serial: str | None
    key_ending: str
    created: datetime
    key_created: datetime | None = None
    rotation: Rotation | None = None

    def key_age(self, now: datetime) -> timedelta:
        """How old its key is, or how old at least: where AWS has not told, nobody stored it before it was made."""
        return now - (self.key_created or self.created)

    def key_old(self, now: datetime) -> bool:
        """Is it time to rotate it?"""
        return self.key_age(now) >= OLD

    @property
    def user_name(self) -> str:
        """The IAM user's name without its path: `arn:…:user/team/franklin` → `franklin`."""
        return self.user_arn.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """A long-term access key; inside keeper, aws and store only."""

    identity: str
    access_key_id: str
    secret_access_key: Secret


@dataclass(frozen=True, slots=True)
class MfaHandle:
    """What is known of an MFA session above the keeper. `mfa_serial` None: GetSessionToken without MFA.

    `issued` is the moment of the code, from which aws:MultiFactorAuthAge counts (aws-facts §1.2).
    """

    identity: str
    mfa_serial: str | None
    issued: datetime
    expiration: datetime

    def age(self, now: datetime) -> timedelta:
        """aws:MultiFactorAuthAge at `now`."""
        return now - self.issued


@dataclass(frozen=True, slots=True)
class MfaSession:
    """A GetSessionToken result; inside keeper and aws only. `opened_by`: the id of the key that asked for it; "" of one
    that an earlier version sealed.
    """

    handle: MfaHandle
    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    opened_by: str = ""


@dataclass(frozen=True, slots=True)
class RoleSession:
    """One AssumeRole result, or (role_arn None) the GetSessionToken session of a profile without a role.

    The thing that is served: `account_id` and `role_arn` travel in the endpoint's reply, `role_session_name` and
    `aws_request_id` in the audit line.
    """

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    issued: datetime
    expiration: datetime
    account_id: str
    role_arn: str | None = None
    role_session_name: str | None = None
    packed_policy_size: int | None = None
    aws_request_id: str | None = None

    @property
    def lifetime(self) -> timedelta:
        """From issue to expiration."""
        return self.expiration - self.issued

    @property
    def key_ending(self) -> str:
        """The last 4 characters of the access key id: all of it that an audit line shows."""
        return self.access_key_id[-4:]

    def left(self, now: datetime) -> timedelta:
        """Time to expiration, negative after it."""
        return self.expiration - now

    def servable(self, now: datetime) -> bool:
        """True while an SDK may still be handed these keys."""
        return self.left(now) >= SERVE_FLOOR
