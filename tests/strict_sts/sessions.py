"""Credentials that a caller can show: a long-term key, or a session issued here; random, looked up by key id."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.strict_sts.policy import Policy
from tests.strict_sts.world import new_id

LONG_TERM, GST, GST_MFA, ROLE, FEDERATED = "long-term", "gst", "gst-mfa", "role", "federated"


@dataclass(frozen=True)
class Credential:
    """One key id and what AWS knows behind it. `holder` is the user or role whose policies count."""

    akid: str
    secret: str = field(repr=False)
    kind: str
    holder: str
    arn: str  # as GetCallerIdentity tells it
    user_id: str
    issued: datetime
    token: str | None = field(default=None, repr=False)
    expiration: datetime | None = None
    mfa_at: datetime | None = None
    session_name: str = ""
    session_policies: tuple[Policy, ...] = ()
    source_identity: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    transitive: frozenset[str] = frozenset()
    straight: bool = False  # AssumeRole by a long-term key: what SessionDuration is for (aws-facts §2.3)

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def is_user(self) -> bool:
        """Long-term key or GetSessionToken: the caller is the IAM user himself."""
        return self.kind in {LONG_TERM, GST, GST_MFA}


class Sessions:
    """The sessions issued so far, and which of them a test ended."""

    def __init__(self) -> None:
        self._issued: dict[str, Credential] = {}
        self.signins: dict[str, Any] = {}  # sign-in token → federation.Signin
        self.ended: dict[str, str] = {}  # key id → expired | invalid

    def get(self, akid: str) -> Credential | None:
        return self._issued.get(akid)

    def issue(
        self, *, now: datetime, life: timedelta, token_bytes: int, kind: str, holder: str, arn: str, user_id: str,
        mfa_at: datetime | None = None, session_name: str = "", session_policies: tuple[Policy, ...] = (),
        source_identity: str = "", tags: Mapping[str, str] | None = None, transitive: frozenset[str] = frozenset(),
        straight: bool = False,
    ) -> Credential:  # fmt: skip
        """A new session; its expiry has whole seconds, as STS writes it."""
        credential = Credential(
            akid=new_id("ASIA"), secret=base64.b64encode(secrets.token_bytes(30)).decode(),
            token=base64.b64encode(secrets.token_bytes(token_bytes)).decode()[:token_bytes],
            kind=kind, holder=holder, arn=arn, user_id=user_id, issued=now,
            expiration=(now + life).replace(microsecond=0), mfa_at=mfa_at, session_name=session_name,
            session_policies=session_policies, source_identity=source_identity, tags=dict(tags or {}),
            transitive=transitive, straight=straight,
        )  # fmt: skip
        self._issued[credential.akid] = credential
        return credential

    def revoke(self, *, akid: str | None, user: str | None, kind: str | None, as_: str) -> int:
        """Ends the sessions that match all that is given, as `expired` or `invalid`. Gives how many."""
        if as_ not in {"expired", "invalid"}:
            raise ValueError(f"a session ends as expired or invalid, not as {as_!r}")
        hits = [
            each for each in self._issued.values()
            if akid in {None, each.akid} and kind in {None, each.kind}
            and (user is None or user in {each.holder, each.holder.rsplit("/", 1)[1]})
        ]  # fmt: skip
        self.ended.update((each.akid, as_) for each in hits)
        return len(hits)
