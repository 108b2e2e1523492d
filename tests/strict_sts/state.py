"""What the operations share: world, sessions, clocks, knobs; and how a caller reads in a policy's conditions."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.strict_sts.calls import Exchange
from tests.strict_sts.clocks import TimeSource, WireClock
from tests.strict_sts.knobs import Knobs
from tests.strict_sts.policy import Caller, Decision, Keys, decide
from tests.strict_sts.replies import AwsError
from tests.strict_sts.sessions import GST, GST_MFA, LONG_TERM, ROLE, Credential, Sessions
from tests.strict_sts.world import World


@dataclass
class State:
    """One emulated AWS."""

    world: World
    clock: TimeSource
    knobs: Knobs
    time_scale: float = 1.0
    wire: WireClock = field(default_factory=WireClock)
    sessions: Sessions = field(default_factory=Sessions)

    def now(self) -> datetime:
        return self.clock.now()

    def life(self, seconds: int) -> timedelta:
        """How long an issued session lives; `time_scale` shortens it while its stamps stay wall time."""
        return timedelta(seconds=seconds / self.time_scale)

    def credential(self, akid: str) -> Credential | None:
        """The session or long-term key of that id, whatever its status."""
        key = self.world.keys.get(akid)
        if key is None:
            return self.sessions.get(akid)
        user = self.world.users[key.user]
        return Credential(
            akid=key.id,
            secret=key.secret,
            kind=LONG_TERM,
            holder=user.arn,
            arn=user.arn,
            user_id=user.id,
            issued=key.created,
        )


def caller_of(credential: Credential) -> Caller:
    """The names by which a trust policy may mean this caller."""
    return Caller(credential.account, frozenset({credential.arn, credential.holder}))


def condition_keys(state: State, x: Exchange, credential: Credential, *, mfa_shown: bool) -> Keys:
    """The request as conditions see it. An absent key is left out: that is what Bool and BoolIfExists differ in."""
    now = state.now()
    keys = {
        "aws:securetransport": (str(state.knobs.secure_transport).lower(),),
        "aws:currenttime": (now.isoformat(),),
        "aws:epochtime": (str(int(now.timestamp())),),
        "aws:sourceip": ("127.0.0.1",),
        "aws:useragent": (x.wire.headers.get("user-agent", ""),),
        "aws:requestedregion": (x.wire.region,),
        "aws:principalarn": (credential.holder,),
        "aws:principalaccount": (credential.account,),
        "aws:principaltype": ("User" if credential.is_user else "AssumedRole",),
        "aws:userid": (credential.user_id,),
    }
    if credential.kind == LONG_TERM or (credential.kind in {GST, GST_MFA} and state.knobs.gst_has_username):
        keys["aws:username"] = (credential.holder.rsplit("/", 1)[1],)
    if credential.kind != LONG_TERM:
        keys["aws:tokenissuetime"] = (credential.issued.isoformat(),)
    keys |= {f"aws:principaltag/{name.lower()}": (value,) for name, value in credential.tags.items()}
    if credential.source_identity:
        keys["aws:sourceidentity"] = (credential.source_identity,)
    return keys | _mfa_keys(state, credential, mfa_shown=mfa_shown)


def _mfa_keys(state: State, credential: Credential, *, mfa_shown: bool) -> dict[str, tuple[str, ...]]:
    """aws-facts §1.2, row by row."""
    if mfa_shown:
        return {"aws:multifactorauthpresent": ("true",), "aws:multifactorauthage": ("0",)}
    if credential.kind == GST_MFA and credential.mfa_at:
        age = int((state.now() - credential.mfa_at).total_seconds() * state.time_scale)
        return {"aws:multifactorauthpresent": ("true",), "aws:multifactorauthage": (str(age),)}
    return {"aws:multifactorauthpresent": ("false",)} if credential.kind == GST else {}


def identity_decision(state: State, credential: Credential, action: str, resource: str, keys: Keys) -> Decision:
    """The identity policies of the caller, narrowed by the session policies of his session."""
    holder = state.world.principal(credential.holder)
    decision = decide(state.world.policies(holder), action=action, resource=resource, keys=keys)
    if decision.denied or not credential.session_policies:
        return decision
    narrowed = decide(credential.session_policies, action=action, resource=resource, keys=keys)
    return narrowed if narrowed.denied else Decision(allowed=decision.allowed and narrowed.allowed)


def authorize(state: State, x: Exchange, credential: Credential, action: str, resource: str) -> None:
    """Same-account authorization by identity policies alone. Raises AccessDenied."""
    keys = condition_keys(state, x, credential, mfa_shown=False)
    decision = identity_decision(state, credential, action, resource, keys)
    if not decision.allowed:
        raise denied(state, credential, action, resource, decision, kind="identity-based")


def denied(
    state: State, credential: Credential, action: str, resource: str, decision: Decision, *, kind: str
) -> AwsError:
    """AccessDenied in one of AWS's three texts (aws-facts §1.5 row 5): bare, 2021 with a reason, 2026 with the ARN."""
    text = f"User: {credential.arn} is not authorized to perform: {action} on resource: {resource}"
    style = state.knobs.denied_style
    article = "an" if kind == "identity-based" else "a"
    if style != "bare" and decision.denied:
        text += f" with an explicit deny in {article} {kind} policy"
        text += f": {decision.policy}" if style == "2026" else ""
    elif style != "bare":
        text += f" because no {kind} policy allows the {action} action"
    return AwsError(403, "AccessDenied", text)


def is_chained(state: State, credential: Credential) -> bool:
    """Whether AssumeRole by this caller is role chaining; GetSessionToken's counts too (aws-facts §1.1)."""
    return credential.kind == ROLE or (credential.kind in {GST, GST_MFA} and state.knobs.gst_counts_as_chain)
