"""Rules of model/partitions.py and model/endpoints.py."""

from __future__ import annotations

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultd.errors import BadProfile, Misconfigured
from vaultd.model.endpoints import find_endpoint
from vaultd.model.partitions import (
    DEFAULT_REGIONS,
    Endpoint,
    account_of,
    endpoint_allowed,
    parse_arn,
    partition_of,
    sts_region,
    valid_region,
)
from vaultd.model.profiles import parse

AWS_REGIONS = {
    region: partition
    for partition in botocore.session.get_session().get_available_partitions()
    for region in botocore.session.get_session().get_available_regions("sts", partition, allow_non_regional=False)
}


def test_every_region_that_botocore_knows_is_in_its_partition() -> None:
    """Prefixes decide, and agree with AWS's own list."""
    assert len(AWS_REGIONS) > 30
    for region, partition in AWS_REGIONS.items():
        assert partition_of(region) == partition, region
        assert valid_region(region)
    for partition, region in DEFAULT_REGIONS.items():
        assert partition_of(region) == partition


@pytest.mark.parametrize(
    "text", ["", "evil.example/#", "us-east-1.evil", "US-EAST-1", "eu west", "eu-west-1\n", "-a-1"]
)
def test_a_region_is_one_host_label(text: str) -> None:
    """Botocore builds the host from it: a hostile region must not name another host."""
    assert not valid_region(text)


@pytest.mark.parametrize(
    ("configured", "fallback", "partition", "expected"),
    [
        ("eu-west-1", None, "aws", ("eu-west-1", None)),
        ("eu-west-1", "us-east-1", "aws", ("eu-west-1", "us-east-1")),
        ("eu-west-1", "eu-west-1", "aws", ("eu-west-1", None)),
        (None, "eu-west-1", "aws", ("eu-west-1", None)),
        (None, None, "aws", ("us-east-1", None)),
        (None, None, "aws-cn", ("cn-north-1", None)),
        (None, None, "aws-us-gov", ("us-gov-west-1", None)),
        (None, None, "aws-eusc", ("eusc-de-east-1", None)),
        (None, "us-east-1", "aws-cn", ("cn-north-1", None)),
        ("cn-north-1", "us-east-1", "aws-cn", ("cn-north-1", None)),
        ("aws-global", None, "aws", ("us-east-1", None)),
    ],
)
def test_sts_region(
    configured: str | None, fallback: str | None, partition: str, expected: tuple[str, str | None]
) -> None:
    """The identity's region, one fallback of the same partition, never the global endpoint (aws-facts §1.4)."""
    assert sts_region(configured=configured, fallback=fallback, partition=partition) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5000",
        "http://127.1.2.3",
        "https://localhost:5000/path",
        "http://[::1]:5000",
        "https://sts.amazonaws.com",
        "https://sts.us-east-1.amazonaws.com",
        "https://sts-fips.us-east-1.amazonaws.com",
        "https://sts.us-gov-west-1.amazonaws.com",
        "https://sts.cn-north-1.amazonaws.com.cn",
        "https://sts.eusc-de-east-1.amazonaws.eu",
        "https://sts.us-east-1.api.aws",
        "https://iam.amazonaws.com",
        "https://iam.us-gov.amazonaws.com",
        "https://vpce-0a1-b2.sts.us-east-1.vpce.amazonaws.com",
        "http://sts.corp.example",
        "https://STS.corp.example:443",
        "https://other.example:8443/x",
    ],
)
def test_allowed_endpoints(url: str) -> None:
    """Loopback, AWS's own STS and IAM hosts, and what the user allowed."""
    assert endpoint_allowed(url, ["sts.corp.example", "other.example:8443"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sts.us-east-1.amazonaws.com",
        "https://evil.example",
        "http://sts.us-east-1.amazonaws.com",  # a code in clear
        "https://sts.us-east-1.amazonaws.com.evil.example",
        "https://evil-amazonaws.com",
        "https://sts.us-east-1.amazonaws.com@evil.example",
        "https://user:pw@127.0.0.1",
        "https://user@127.0.0.1",
        "https://127.0.0.1.evil.example",
        "https://127.0.0.1:5000\\@evil.example",
        "https://evil.example#.amazonaws.com",
        "https://evil.example?.amazonaws.com",
        "https://evil.example/.amazonaws.com",
        "https://sts.s3.amazonaws.com",  # anybody's bucket
        "https://my-lb.us-east-1.elb.amazonaws.com",
        "https://x.execute-api.us-east-1.amazonaws.com",
        "https://other.example:8444",
        "https://other.example",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "http://127.0.0.1:99999",
        "http://127.0.0.1 .evil.example",
        "http://localhost\u3002evil.example",
        "https://169.254.169.254",
    ],
)
def test_refused_endpoints(url: str) -> None:
    """security.md T11: a hostile endpoint_url gets no key, no code."""
    assert not endpoint_allowed(url, ["other.example:8443"])


@given(st.text(max_size=60))
def test_endpoint_allowed_never_raises(text: str) -> None:
    """Any text has an answer."""
    assert endpoint_allowed(text, []) in {True, False}
    assert not endpoint_allowed("https://" + text.replace("localhost", "") + ".evil.example", [])


def test_arns() -> None:
    """Account and partition are read from the ARN, in every partition."""
    assert account_of("arn:aws-cn:iam::123456789012:role/x") == "123456789012"
    assert account_of("arn:aws:iam::<prod-account-id>:role/x") is None
    arn = parse_arn("arn:aws-us-gov:iam::123456789012:user/team/franklin")
    assert arn is not None
    assert (arn.partition, arn.service, arn.account_id, arn.resource) == (
        "aws-us-gov",
        "iam",
        "123456789012",
        "user/team/franklin",
    )


CONFIG = """\
[profile base]
endpoint_url = http://127.0.0.1:1001
ca_bundle = /base.pem
use_fips_endpoint = true
[profile web]
source_profile = base
services = local
endpoint_url = http://127.0.0.1:1002
sts_regional_endpoints = legacy
[profile ignoring]
source_profile = base
ignore_configured_endpoint_urls = true
[profile bad]
endpoint_url = https://evil.example
[profile nowhere]
services = lokal
[profile flag]
use_fips_endpoint = yes
[services local]
sts =
  endpoint_url = http://127.0.0.1:1003
"""


def endpoint_of(name: str, environ: dict[str, str] | None = None, allow: tuple[str, ...] = ()) -> Endpoint:
    profiles = parse(CONFIG)
    chain = profiles.chain(name).profiles
    return find_endpoint(
        profiles,
        chain,
        configured=None,
        source="default",
        fallback=None,
        partition="aws",
        environ=environ or {},
        allow=allow,
    )[0]


def test_overrides_come_in_awss_own_order() -> None:
    """Service variable, global variable, services section, endpoint_url; each shows when the one before is gone."""
    every = {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:2"}
    assert endpoint_of("web", every).sts_url == "http://127.0.0.1:1"
    assert endpoint_of("web", every).iam_url == "http://127.0.0.1:2"
    assert endpoint_of("web", {"AWS_ENDPOINT_URL": "http://127.0.0.1:2"}).sts_url == "http://127.0.0.1:2"
    assert endpoint_of("web").sts_url == "http://127.0.0.1:1003"
    assert endpoint_of("web").iam_url == "http://127.0.0.1:1002"
    assert endpoint_of("base").sts_url == "http://127.0.0.1:1001"


def test_the_same_order_as_botocore(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is botocore itself, for every combination of the four places."""
    path = tmp_path_factory.mktemp("aws") / "config"
    path.write_text(CONFIG)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    for environ in (
        {},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:2"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:2", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:2", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    ):
        for name in ("web", "base"):
            with monkeypatch.context() as patch:
                for key, value in environ.items():
                    patch.setenv(key, value)
                client = botocore.session.Session(profile=name).create_client("sts", region_name="eu-west-1")
            ours = endpoint_of(name, environ).sts_url
            if ours is None:
                assert client.meta.endpoint_url.endswith(".amazonaws.com")
            else:
                assert client.meta.endpoint_url == ours


def test_ignoring_overrides() -> None:
    """AWS_IGNORE_CONFIGURED_ENDPOINT_URLS and the profile's key switch them off."""
    assert endpoint_of("web", {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"}).sts_url is None
    assert endpoint_of("ignoring").sts_url is None


def test_open_settings_are_taken_towards_the_identity() -> None:
    """The profile asked for decides, the next one of its chain fills what it leaves open."""
    endpoint = endpoint_of("web")
    assert endpoint.ca_bundle == "/base.pem"
    assert endpoint.use_fips
    assert not endpoint.use_dualstack


def test_a_foreign_override_is_refused_by_name() -> None:
    """Neither ignored nor followed: file:line for a profile, the variable's name for the environment."""
    with pytest.raises(
        BadProfile, match=r"config:14 \[profile bad\] endpoint_url=https://evil.example: .*endpoint_allow"
    ):
        endpoint_of("bad")
    assert endpoint_of("bad", allow=("evil.example",)).sts_url == "https://evil.example"
    with pytest.raises(Misconfigured, match=r"AWS_ENDPOINT_URL_STS=https://evil.example: .*unset AWS_ENDPOINT_URL_STS"):
        endpoint_of("web", {"AWS_ENDPOINT_URL_STS": "https://evil.example"})


def test_bad_values_are_named() -> None:
    """A services section that is not there, and a flag that is neither true nor false."""
    with pytest.raises(BadProfile, match=r"config:16 .*services=lokal.*Did you mean local\?"):
        endpoint_of("nowhere")
    with pytest.raises(BadProfile, match=r"config:18 .*use_fips_endpoint=yes: write true or false"):
        endpoint_of("flag")
