"""The emulator's federation endpoint, held against aws-facts §2.3 without anything of vaultd."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest

from tests.strict_sts import StrictStsThread
from tests.strict_sts.bench import Bench


class _Unfollowed(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(strict: StrictStsThread, path: str, *, post: bool = False, **given: str) -> tuple[int, str]:
    """Status, and the body or where it leads."""
    form = urlencode(given)
    url = f"{strict.url}{path}" + ("" if post else f"?{form}")
    opener = build_opener(_Unfollowed)
    opener.addheaders = []
    try:
        with opener.open(Request(url, data=form.encode() if post else None), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except OSError as exc:
        status, headers = getattr(exc, "code", 0), getattr(exc, "headers", {})
        exc.close() if hasattr(exc, "close") else None
        return status, headers.get("Location", "")


def session_of(keys: Any) -> str:
    given = (keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    return json.dumps(dict(zip(("sessionId", "sessionKey", "sessionToken"), given, strict=True)))


@pytest.fixture
def parts() -> Any:
    with StrictStsThread() as strict:
        bench = Bench(strict)
        mfa = bench.mfa()
        yield strict, session_of(mfa), session_of(bench.assume("WebAdmin", mfa))


def test_who_is_taken(parts: Any) -> None:
    """A role session by POST; no GetSessionToken, no GET, no wrong secret, no SessionDuration with a chained one."""
    strict, mfa, role = parts
    token: dict[str, Any] = {"Action": "getSigninToken"}

    assert ask(strict, "/federation", post=True, **token, Session=role)[0] == 200
    assert ask(strict, "/federation", post=True, **token, Session=mfa)[0] == 400
    assert ask(strict, "/federation", **token, Session=role)[0] == 400
    assert ask(strict, "/federation", post=True, **token, Session=role, SessionDuration="3600")[0] == 400
    assert (
        ask(strict, "/federation", post=True, **token, Session=role.replace('sessionKey": "', 'sessionKey": "x'))[0]
        == 400
    )
    assert ask(strict, "/federation", post=True, Action="getSomething")[0] == 400


def test_a_token_signs_in_and_ends(parts: Any) -> None:
    """To a console only, within 15 minutes; signing out first leads back to the sign-in."""
    strict, _, role = parts
    token = json.loads(ask(strict, "/federation", post=True, Action="getSigninToken", Session=role)[1])["SigninToken"]
    login: dict[str, Any] = {"Action": "login", "SigninToken": token, "Destination": "https://console.aws.amazon.com/"}

    status, page = ask(strict, "/federation", **login)
    assert (status, "signed in as arn:aws:sts::234567890123:assumed-role/WebAdmin/" in page) == (200, True)
    assert ask(strict, "/federation", **{**login, "Destination": "https://evil.example/"})[0] == 400
    assert ask(strict, "/federation", **{**login, "SigninToken": token[1:]})[0] == 400
    back = f"{strict.url}/federation?{urlencode(login)}"
    assert ask(strict, "/oauth", Action="logout", redirect_uri=back) == (302, back)
    assert ask(strict, "/oauth", Action="logout", redirect_uri="https://evil.example/")[0] == 400

    strict.clock.advance(901)
    assert ask(strict, "/federation", **login)[0] == 400
    assert token not in json.dumps([call.as_json() for call in strict.calls()])
