"""Sign-ins: a profile's session → the URL that opens AWS's console with it.

Rules (aws-facts §2.3)
- A profile without role_arn serves a session of GetSessionToken, which the console does not take: refused in words,
  before anything is asked of a person or of AWS.
- SessionDuration is for a session that came straight from the identity key; with any other the console ends with it.
- AWS does not say why it refuses a session. One older than a minute may have ended there: it is made anew, once.
- The role's keys go down again to where AWS is talked to, and the URL comes up as a Secret; nothing here keeps it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from vaultd.engine.broker import Broker
from vaultd.engine.seams import Clock, Console, SignedIn, SignIn
from vaultd.errors import BadRequest, Locked, Misconfigured, RoleDenied, SessionRejected
from vaultd.model.console import URL_LIVES, MadeSignIn, Site, federation_allowed, site
from vaultd.model.credentials import RoleSession
from vaultd.model.partitions import parse_arn
from vaultd.model.plan import Plan
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed

#: A session younger than this was not refused for its age (as of roles: steps.YOUNG).
YOUNG = timedelta(seconds=60)


class SignIns:
    """`federation_url` is VAULTD_FEDERATION_URL, `allow` is `[aws] endpoint_allow`."""

    def __init__(
        self, *, broker: Broker, console: Console, clock: Clock, federation_url: str | None, allow: Collection[str]
    ) -> None:
        self._broker = broker
        self._console = console
        self._clock = clock
        self._override = federation_url or None
        self._allow = allow

    async def make(
        self,
        plan: Plan,
        *,
        requester: str,
        token_code: Secret | None = None,
        service: str | None = None,
        region: str | None = None,
        logout_first: bool = False,
    ) -> MadeSignIn:
        """Raises BadRequest, Misconfigured, what `Broker.session` raises, RoleDenied where AWS refuses the sign-in."""
        place = self._site(plan, service=service, region=region, logout_first=logout_first)
        epoch = self._broker.epoch
        session = await self._broker.session(plan, requester=requester, token_code=token_code)
        try:
            signed = await self._signed(plan, session, place)
        except SessionRejected:
            if self._clock.now() - session.issued < YOUNG:
                raise _denied(plan) from None
            session, signed = await self._anew(plan, place, requester=requester)
        if self._broker.locked or epoch != self._broker.epoch:
            raise Locked("vaultd was locked meanwhile: type `vault-client unlock`.")
        return self._made(session, signed, place)

    async def _anew(self, plan: Plan, place: Site, *, requester: str) -> tuple[RoleSession, SignedIn]:
        session = await self._broker.refresh(plan, requester=requester)
        try:
            return session, await self._signed(plan, session, place)
        except SessionRejected:
            raise _denied(plan) from None

    async def _signed(self, plan: Plan, session: RoleSession, place: Site) -> SignedIn:
        endpoint = replace(plan.last.endpoint, signin_url=place.federation, fallback_region=None)
        duration = self._broker.straight(plan)
        return await self._console.url(SignIn(session, place, endpoint, plan.profile, duration))

    def _made(self, session: RoleSession, signed: SignedIn, place: Site) -> MadeSignIn:
        now = self._clock.now()
        return MadeSignIn(
            url=signed.url,
            expires=now + URL_LIVES,
            console_until=session.expiration if signed.duration is None else now + signed.duration,
            destination=place.destination,
            session=session,
            doubt=place.doubt,
        )

    def _site(self, plan: Plan, *, service: str | None, region: str | None, logout_first: bool) -> Site:
        arn = parse_arn(plan.role_arn or "")
        if arn is None:
            raise BadRequest(
                f"the profile {shown(plan.profile)} has no role_arn, and AWS's console takes no session of a user: "
                "sign in with a profile that has one, `vault-client list` shows them"
            )
        if self._override and not federation_allowed(self._override, self._allow):
            raise Misconfigured(
                f"VAULTD_FEDERATION_URL={shown(self._override)}: keys are not sent there; write its host under [aws] "
                "endpoint_allow in config.toml if you trust it, or unset it, then type `vaultd restart`"
            )
        return site(
            partition=arn.partition,
            region=region or plan.region,
            service=service,
            logout_first=logout_first,
            override=self._override,
        )


def _denied(plan: Plan) -> RoleDenied:
    return RoleDenied(
        f"AWS's sign-in refused a new session of {shown(plan.profile)}: look at it with "
        f"`vault-client explain {typed(plan.profile)}`",
        operation="GetSigninToken",
    )
