"""The console by partition: hosts, pages, sign-out, and which host a role's keys may be sent to (aws-facts §2.3)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from vaultd.errors import BadRequest, Misconfigured
from vaultd.model.console import federation_allowed, session_duration, sign_in_url, site

#: partition, region, federation host, console host: the table of aws-facts §2.3.
PARTITIONS = [
    ("aws", "us-east-2", "signin.aws.amazon.com", "us-east-2.console.aws.amazon.com"),
    ("aws-cn", "cn-northwest-1", "signin.amazonaws.cn", "console.amazonaws.cn"),
    ("aws-us-gov", "us-gov-east-1", "signin.amazonaws-us-gov.com", "console.amazonaws-us-gov.com"),
    (
        "aws-eusc",
        "eusc-de-east-1",
        "eusc-de-east-1.signin.amazonaws-eusc.eu",
        "eusc-de-east-1.console.amazonaws-eusc.eu",
    ),
]


def place(**changed: Any) -> Any:
    asked = {"partition": "aws", "region": "us-east-2", "service": None, "logout_first": False, "override": None}
    return site(**{**asked, **changed})


@pytest.mark.parametrize(("partition", "region", "signin", "console"), PARTITIONS)
def test_g5_hosts_of_each_partition(partition: str, region: str, signin: str, console: str) -> None:
    """G5: the right hosts, the page and its region in the destination; keys may be sent there, over https only."""
    made = place(partition=partition, region=region, service="s3")

    assert made.federation == f"https://{signin}/federation"
    assert made.destination == f"https://{console}/s3/home?region={region}"
    assert federation_allowed(made.federation, ())
    assert not federation_allowed(made.federation.replace("https", "http"), ())
    assert made.logout == ""


def test_what_nobody_could_verify_is_told() -> None:
    """aws-facts §2.3 has a question mark for aws-eusc, and nobody saw a sign-out with redirect in China."""
    doubts = {name: place(partition=name, region=region).doubt for name, region, _, _ in PARTITIONS}

    assert {name for name, doubt in doubts.items() if doubt} == {"aws-eusc"}
    assert "--logout-first" in place(partition="aws-cn", region="cn-north-1", logout_first=True).doubt
    assert place(logout_first=True).doubt == ""


@pytest.mark.parametrize(("partition", "region", "signin", "console"), PARTITIONS)
def test_the_url(partition: str, region: str, signin: str, console: str) -> None:
    """Action, Issuer, Destination and the token, each escaped; signing out first wraps all of it."""
    made = place(partition=partition, region=region)
    url = urlsplit(sign_in_url(made, "to+k/en="))
    given = {"Action": ["login"], "Issuer": ["vaultd"], "SigninToken": ["to+k/en="], "Destination": [made.destination]}

    assert (url.netloc, url.path, parse_qs(url.query)) == (signin, "/federation", given)
    assert urlsplit(made.destination)[:3] == ("https", console, "/console/home")

    out = urlsplit(sign_in_url(place(partition=partition, region=region, logout_first=True), "to+k/en="))
    asked = parse_qs(out.query)
    then = urlsplit(asked["redirect_uri"][0])
    assert (out.path, asked["Action"]) == ("/oauth", ["logout"])
    assert out.netloc == then.netloc  # one that is not its own is not followed
    assert parse_qs(then.query) == given


def test_the_host_that_follows_a_redirect() -> None:
    """In `aws` the global host forgets redirect_uri after signing out, the regional one does not."""
    assert place(logout_first=True).logout == "https://us-east-1.signin.aws.amazon.com/oauth"
    assert place(logout_first=True).federation == "https://us-east-1.signin.aws.amazon.com/federation"


@pytest.mark.parametrize(
    ("name", "path"),
    [("s3", "s3"), ("ddb", "dynamodbv2"), ("EB", "elasticbeanstalk"), ("route53", "route53/v2"), ("kms", "kms")],
)
def test_pages(name: str, path: str) -> None:
    """A service's page, by the name that people know it by; an unknown one is /NAME/home."""
    assert place(service=name).destination == f"https://us-east-2.console.aws.amazon.com/{path}/home?region=us-east-2"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"service": "s3/../x"}, "service: s3/../x is no service of the console"),
        ({"service": "a@evil.example"}, "service: "),
        ({"region": "evil.example/#-1"}, "region: "),
        ({"region": "cn-north-1"}, "region: cn-north-1 is not in aws, where the role is"),
        ({"partition": "aws-cn", "region": "us-east-1"}, "pass one such as cn-north-1"),
    ],
)
def test_what_is_no_destination(changed: dict[str, str], said: str) -> None:
    """Nothing that was typed becomes a host, a path or another partition."""
    with pytest.raises(BadRequest) as refused:
        place(**changed)
    assert said in refused.value.message


def test_without_a_region() -> None:
    """The partition's oldest one; `aws-global` is no region of the console."""
    assert "us-east-1.console" in place(region=None).destination
    assert "region=us-gov-west-1" in place(partition="aws-us-gov", region="aws-global").destination


def test_a_partition_without_a_known_console() -> None:
    """A sentence, not a guess."""
    with pytest.raises(Misconfigured, match="no console sign-in is known for the partition aws-iso:"):
        place(partition="aws-iso", region="us-iso-east-1")


@pytest.mark.parametrize(
    "url",
    [
        "https://signin.aws.amazon.com.evil.example/federation",
        "https://signin.aws.amazon.com@evil.example/federation",
        "https://evil.example/signin.aws.amazon.com",
        "https://evil.signin.aws.amazon.com/federation",
        "https://signin.aws.amazon.com:444/federation",
        "https://signin.amazonaws.com/federation",
        "https://signin.aws.amazon.com\\@evil.example/",
        "ftp://127.0.0.1/federation",
        "",
    ],
)
def test_keys_go_nowhere_else(url: str) -> None:
    """The gate's no; loopback and what `endpoint_allow` names are its other yes."""
    assert not federation_allowed(url, ("proxy.example",))
    assert federation_allowed("http://127.0.0.1:8000/federation", ())
    assert federation_allowed("https://proxy.example/federation", ("proxy.example",))


def test_session_duration_is_within_bounds() -> None:
    """900 to 43200 s."""
    seconds = [session_duration(timedelta(seconds=each)).total_seconds() for each in (60, 7200, 90000)]
    assert seconds == [900, 7200, 43200]
