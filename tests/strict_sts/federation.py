"""The console's federation endpoint: getSigninToken, login and sign-out, as strict as AWS is said to be.

Rules
- SessionDuration is for sessions of AssumeRole by a long-term key alone; with chained ones it is a 400.
- Sessions of GetSessionToken are refused; keys in a URL are, too, although AWS takes them: vaultd must not send them.
- A refusal is a page for people without a reason. A sign-in token lives for 15 minutes.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from tests.strict_sts.calls import Exchange
from tests.strict_sts.replies import AwsError, Reply
from tests.strict_sts.sessions import FEDERATED, LONG_TERM, ROLE, Credential
from tests.strict_sts.state import State

PATHS = ("/federation", "/oauth")
TOKEN_LIVES = timedelta(minutes=15)
CONSOLES = (
    "console.aws.amazon.com",
    "console.amazonaws.cn",
    "console.amazonaws-us-gov.com",
    "console.amazonaws-eusc.eu",
)
SECRET_FIELDS = frozenset({"Session", "SigninToken", "redirect_uri"})


@dataclass(frozen=True)
class Signin:
    """What a sign-in token stands for. `until`: the end of the console session that it opens."""

    credential: Credential
    issued: datetime
    until: datetime


def fields(method: str, url: str, form: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a call: a POST's are in its body."""
    return dict(form) if method == "POST" else dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def perform(state: State, x: Exchange) -> Reply:
    """The answer; `x` learns who it was."""
    action = {"getSigninToken": _token, "login": _login, "logout": _logout}.get(x.op)
    try:
        if action is None:
            raise _refused("no such action")
        return action(state, x)
    except AwsError as exc:
        x.error = exc
        return Reply(400, b"<html><body><h1>Amazon Web Services Sign In</h1>Your request could not be served.</body>",
                     "text/html")  # fmt: skip


def _refused(why: str) -> AwsError:
    return AwsError(400, "Refused", why)


def _token(state: State, x: Exchange) -> Reply:
    if x.wire.method != "POST":
        raise _refused("keys in a URL")
    credential = _credential(state, x)
    x.caller = credential
    expiration = credential.expiration or state.now()
    until = min(expiration, state.now() + state.life(43200))
    if "SessionDuration" in x.params:
        until = state.now() + state.life(_duration(credential, x.params["SessionDuration"]))
    token = secrets.token_urlsafe(300) + "+/="  # what has to be escaped in a URL
    state.sessions.signins[token] = Signin(credential, state.now(), until)
    return Reply(200, json.dumps({"SigninToken": token}).encode(), "application/json")


def _duration(credential: Credential, text: str) -> int:
    if credential.kind != ROLE or not credential.straight:
        raise _refused("SessionDuration with chained credentials")
    if not text.isdigit() or not 900 <= int(text) <= 43200:
        raise _refused("SessionDuration out of bounds")
    return int(text)


def _credential(state: State, x: Exchange) -> Credential:
    try:
        given = json.loads(x.params.get("Session", ""))
        shown = (given["sessionId"], given["sessionKey"], given["sessionToken"])
    except (ValueError, KeyError, TypeError) as exc:
        raise _refused("no session") from exc
    found = state.credential(shown[0])
    if found is None or found.kind == LONG_TERM or shown != (found.akid, found.secret, found.token):
        raise _refused("unknown session")
    if found.kind not in {ROLE, FEDERATED}:
        raise _refused("GetSessionToken credentials")
    over = found.expiration is None or state.now() >= found.expiration
    if over or found.akid in state.sessions.ended:
        raise _refused("the session has expired")
    return found


def _login(state: State, x: Exchange) -> Reply:
    """The page that a signed-in browser sees; it names who and where."""
    found = state.sessions.signins.get(x.params.get("SigninToken", ""))
    if found is None or state.now() >= found.issued + TOKEN_LIVES:
        raise _refused("no such sign-in token")
    x.caller = found.credential
    target = urlsplit(x.params.get("Destination", ""))
    host = target.hostname or ""
    if target.scheme != "https" or not any(host == each or host.endswith(f".{each}") for each in CONSOLES):
        raise _refused("a destination that is no console")
    said = f"signed in as {found.credential.arn} until {found.until:%H:%M:%S} at {x.params['Destination']}"
    return Reply(200, f"<html><title>Signed in</title><body>{said}</body>".encode(), "text/html")


def _logout(_: State, x: Exchange) -> Reply:
    target = urlsplit(x.params.get("redirect_uri", ""))
    if target.path != "/federation":
        raise _refused("a redirect that is not followed")
    return Reply(302, b"", "text/html", {"Location": x.params["redirect_uri"]})
