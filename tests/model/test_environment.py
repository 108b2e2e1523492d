"""Rules of model/environment.py."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from vaultd.model.environment import NO_PROXY_HOSTS, ecs_change, imds_change, slug
from vaultd.model.secret import Secret

NAMES = st.text(max_size=40) | st.sampled_from([".", "..", "", "~", "team prod", "a~20b", "team~20prod", "~2E", "é"])
TOKEN = "canary-token"


@given(NAMES, NAMES)
def test_slug_is_injective(one: str, other: str) -> None:
    """Two profiles never share a path segment."""
    assert (slug(one) == slug(other)) == (one == other)


@given(NAMES)
def test_slug_is_one_plain_path_segment(name: str) -> None:
    """A segment that no client rewrites: unreserved characters only, no dot segment, never empty, short."""
    text = slug(name)
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", text)
    assert text not in {".", ".."}


@given(st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True))
def test_a_plain_name_is_its_own_slug(name: str) -> None:
    """interface.md §4: SLUG is the profile name where it is `[A-Za-z0-9._-]+`."""
    assert slug(name) == name or name in {".", ".."}


def test_slugs_of_odd_names() -> None:
    """The rewriting is stable: grants on disk hold it."""
    assert slug("team prod") == "team~20prod"
    assert slug("..") == "~2E~2E"
    assert slug("") == "~"
    assert slug("a/b") == "a~2Fb"
    long = slug("ü" * 500)
    assert long.startswith("~~")
    assert len(long) == 66


def test_ecs_variables_are_the_contracts() -> None:
    """interface.md §3, word for word."""
    change = ecs_change(
        port=9169,
        profile="team prod",
        grant_id="g1",
        token=Secret(TOKEN),
        token_path="/run/g1.token",
        region="eu-west-1",
    )
    assert change.set == {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9169/v1/credentials/team~20prod",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/run/g1.token",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "VAULTD_PROFILE": "team prod",
        "VAULTD_GRANT": "g1",
    }
    assert {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_METADATA_ENDPOINT",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        "AWS_EC2_METADATA_V1_DISABLED",
    } == set(change.unset)


def test_imds_variables_are_the_contracts() -> None:
    """With --imds the metadata set, its endpoint with a closing slash, and AWS_EC2_METADATA_DISABLED unset."""
    change = imds_change(port=41000, profile="p", grant_id="g1", region=None)
    assert change.set == {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:41000/",
        "AWS_METADATA_ENDPOINT": "http://127.0.0.1:41000/",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv4",
        "AWS_EC2_METADATA_V1_DISABLED": "true",
        "VAULTD_PROFILE": "p",
        "VAULTD_GRANT": "g1",
    }
    assert "AWS_EC2_METADATA_DISABLED" in change.unset
    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" in change.unset
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in change.unset


def test_nothing_is_set_and_unset() -> None:
    """A shell that applies both in any order ends in the same state; without a region none is guessed."""
    ecs = ecs_change(port=1, profile="p", grant_id="g", token=Secret(TOKEN), token_path="/t", region=None)
    imds = imds_change(port=1, profile="p", grant_id="g", region="us-east-1")
    for change in (ecs, imds):
        assert not set(change.set) & set(change.unset)
        assert not {"NO_PROXY", "no_proxy"} & (set(change.set) | set(change.unset))
    assert "AWS_REGION" not in ecs.set
    assert "AWS_REGION" not in ecs.unset
    assert NO_PROXY_HOSTS == ("127.0.0.1", "localhost")
