"""The AWS console by partition: where a sign-in token is asked for, where a browser goes, and the URL it is given.

Rules (aws-facts §2.3)
- The role's keys are for the federation host alone, and go there in a POST's body; the gate is `federation_allowed`.
- What nobody could verify is told as a `doubt`, beside the URL, never as a fact.
- A finished URL is a credential: `sign_in_url` is called by aws/ only, and what it gives is a Secret from there on.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit

from vaultd.errors import BadRequest, Misconfigured
from vaultd.model.credentials import RoleSession
from vaultd.model.partitions import default_region, endpoint_allowed, partition_of, valid_region
from vaultd.model.secret import Secret
from vaultd.model.text import shown

#: How long AWS takes a sign-in URL (aws-facts §2.3).
URL_LIVES = timedelta(minutes=15)
#: SessionDuration, where it may be given at all.
SHORTEST, LONGEST = timedelta(seconds=900), timedelta(seconds=43200)
ISSUER = "vaultd"

_SERVICE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SIGN_IN_HOST = re.compile(
    r"([a-z]{2,}(-[a-z]+)+-[0-9]+\.)?signin\.(aws\.amazon\.com|amazonaws\.cn|amazonaws-us-gov\.com|amazonaws-eusc\.eu)"
)
#: What people call a service where its page has another name; everything else is `/NAME/home`.
_PAGES = {
    "": "console",
    "beanstalk": "elasticbeanstalk",
    "cfn": "cloudformation",
    "cloudtrail": "cloudtrailv2",
    "cw": "cloudwatch",
    "ddb": "dynamodbv2",
    "dynamodb": "dynamodbv2",
    "eb": "elasticbeanstalk",
    "ecs": "ecs/v2",
    "eventbridge": "events",
    "home": "console",
    "r53": "route53/v2",
    "route53": "route53/v2",
    "sfn": "states",
    "sm": "secretsmanager",
    "sns": "sns/v3",
    "sqs": "sqs/v3",
    "ssm": "systems-manager",
    "stepfunctions": "states",
    "vpc": "vpcconsole",
}


@dataclass(frozen=True, slots=True)
class Site:
    """The console of one sign-in. `federation` and `logout` are URLs, `destination` the page that is wanted.

    `logout` empty: nobody is signed out first. `doubt` is a sentence on what nobody could verify, or empty.
    """

    federation: str
    destination: str
    logout: str = ""
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class MadeSignIn:
    """A sign-in as its caller gets it: the URL is taken until `expires`, the console it opens lasts until the other."""

    url: Secret
    expires: datetime
    console_until: datetime
    destination: str
    session: RoleSession
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Hosts:
    signin: str
    console: str
    #: The host that follows `redirect_uri` after signing out; AWS's global one does not.
    logout: str
    doubt: str = ""


_GUESSED = "AWS documents no federation endpoint for aws-eusc, and nobody here could try one: tell us what you see"
_LOGOUT_GUESSED = "signing out first was never tried in {partition}: if its page stays empty, leave out --logout-first"
_HOSTS = {
    "aws": _Hosts("signin.aws.amazon.com", "{region}.console.aws.amazon.com", "us-east-1.signin.aws.amazon.com"),
    "aws-cn": _Hosts("signin.amazonaws.cn", "console.amazonaws.cn", "signin.amazonaws.cn"),
    "aws-us-gov": _Hosts("signin.amazonaws-us-gov.com", "console.amazonaws-us-gov.com", "signin.amazonaws-us-gov.com"),
    "aws-eusc": _Hosts(
        "eusc-de-east-1.signin.amazonaws-eusc.eu",
        "{region}.console.amazonaws-eusc.eu",
        "eusc-de-east-1.signin.amazonaws-eusc.eu",
        _GUESSED,
    ),
}
#: Where signing out first was seen to work by others.
_LOGOUT_SEEN = frozenset({"aws", "aws-us-gov"})


def site(*, partition: str, region: str | None, service: str | None, logout_first: bool, override: str | None) -> Site:
    """`override` is VAULTD_FEDERATION_URL. Raises BadRequest for a service or region that is none of that partition."""
    hosts = _HOSTS.get(partition)
    if hosts is None:
        raise Misconfigured(
            f"no console sign-in is known for the partition {shown(partition)}: sign in there by hand, and use the "
            "profile with `vault-client use`"
        )
    host = hosts.logout if logout_first else hosts.signin
    federation = override or f"https://{host}/federation"
    doubts = [hosts.doubt]
    if logout_first and not hosts.doubt and partition not in _LOGOUT_SEEN:
        doubts.append(_LOGOUT_GUESSED.format(partition=partition))
    return Site(
        federation=federation,
        destination=_destination(hosts.console, partition, region, service),
        logout=f"{federation.removesuffix('/federation')}/oauth" if logout_first else "",
        doubt="; ".join(each for each in doubts if each),
    )


def _destination(console: str, partition: str, region: str | None, service: str | None) -> str:
    chosen = region if region and region != "aws-global" else default_region(partition)
    if not valid_region(chosen):
        raise BadRequest(f"region: {shown(chosen)} is no region, pass one such as {default_region(partition)}")
    if partition_of(chosen) != partition:
        raise BadRequest(
            f"region: {shown(chosen)} is not in {partition}, where the role is; pass one such as "
            f"{default_region(partition)}"
        )
    name = (service or "").lower()
    if name and not _SERVICE.fullmatch(name):
        raise BadRequest(f"service: {shown(name)} is no service of the console, pass one such as s3")
    page = _PAGES.get(name, name)
    return f"https://{console.format(region=chosen)}/{page}/home?{urlencode({'region': chosen})}"


def sign_in_url(place: Site, token: str) -> str:
    """What the browser opens. A credential."""
    fields = {"Action": "login", "Issuer": ISSUER, "Destination": place.destination, "SigninToken": token}
    url = f"{place.federation}?{urlencode(fields)}"
    if not place.logout:
        return url
    return f"{place.logout}?{urlencode({'Action': 'logout', 'redirect_uri': url})}"


def federation_allowed(url: str, allow: Collection[str]) -> bool:
    """May a role's keys be sent to `url`? Loopback and `allow` also over http; AWS's sign-in hosts over https only."""
    if endpoint_allowed(url, allow):
        return True
    if not url.startswith("https://") or "@" in url or not url.isprintable() or "\\" in url or " " in url:
        return False
    return _SIGN_IN_HOST.fullmatch((urlsplit(url).netloc).lower()) is not None


def session_duration(asked: timedelta) -> timedelta:
    """Within AWS's bounds."""
    return min(max(asked, SHORTEST), LONGEST)
