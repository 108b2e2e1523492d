"""The seam `Console`: a role session → the URL that signs a browser in (aws-facts §2.3).

Rules
- SessionDuration goes along only where the caller says that the session came straight from a long-term key; where AWS
  refuses it all the same, the same session is tried once without, and the answer says so.
- A refusal without it is SessionRejected: AWS gives one answer for an expired session, a wrong one and one of
  GetSessionToken, so what to do next is the engine's to decide.
- Nobody above repeats what is temporary, so it is tried three times here (calls.py).
"""

from __future__ import annotations

import logging
from datetime import timedelta

from vaultd.aws.calls import Calls, Request
from vaultd.aws.federation import REFUSED
from vaultd.aws.sts import signer
from vaultd.aws.translate import Called, unavailable
from vaultd.engine.seams import SignedIn, SignIn
from vaultd.errors import RoleDenied, SessionRejected
from vaultd.model.console import session_duration, sign_in_url
from vaultd.model.secret import Secret
from vaultd.model.text import shown

_ATTEMPTS = 3

log = logging.getLogger(__name__)


class FederationConsole:
    """AWS's federation endpoint."""

    def __init__(self, *, calls: Calls) -> None:
        self._calls = calls

    async def url(self, order: SignIn) -> SignedIn:
        """See the seam."""
        if order.duration is not None:
            duration = session_duration(order.duration)
            if (token := await self._token(order, duration)) is not None:
                return SignedIn(_url(order, token), duration)
            log.warning("drop session-duration profile=%s seconds=%d", shown(order.profile), duration.total_seconds())
        if (token := await self._token(order, None)) is not None:
            return SignedIn(_url(order, token))
        raise SessionRejected(f"AWS's sign-in refused the session of {shown(order.profile)}; try again")

    async def _token(self, order: SignIn, duration: timedelta | None) -> Secret | None:
        """None when AWS refused."""
        called = Called("GetSigninToken", "", f"the session of {order.profile}", order.endpoint.region, by_session=True)
        sent = {} if duration is None else {"SessionDuration": int(duration.total_seconds())}
        request = Request("signin", "get", called, signer(order.session), lambda: sent, attempts=_ATTEMPTS)
        try:
            reply = await self._calls.call(request, endpoint=order.endpoint)
        except RoleDenied as exc:
            if exc.details.get("aws_code") != REFUSED:
                raise
            return None
        token = reply.get("SigninToken")
        if not isinstance(token, str) or not token:
            raise unavailable(called, "the answer holds no sign-in token, so it is not from AWS")
        return Secret(token)


def _url(order: SignIn, token: Secret) -> Secret:
    return Secret(sign_in_url(order.site, token.reveal()))
