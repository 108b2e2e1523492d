"""Nothing of the user's AWS environment reaches botocore: not its files, not its variables, not its proxies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aws.rooms import Aws, SkippingClock
from tests.strict_sts import FRANKLIN, StrictSts
from vaultd.aws.clients import Clients, Network
from vaultd.model.partitions import Endpoint

BROKEN = "[profile broken\nregion ="
VARIABLES = {
    "AWS_PROFILE": "nobody",
    "AWS_DEFAULT_PROFILE": "nobody",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9",
    "AWS_ENDPOINT_URL_IAM": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT00000",
    "AWS_SECRET_ACCESS_KEY": "environment",
    "AWS_SESSION_TOKEN": "environment",
    "AWS_REGION": "us-west-1",
    "AWS_DEFAULT_REGION": "us-west-1",
    "AWS_MAX_ATTEMPTS": "7",
    "AWS_RETRY_MODE": "adaptive",
    "AWS_DEFAULTS_MODE": "auto",
    "AWS_STS_REGIONAL_ENDPOINTS": "legacy",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_SDK_UA_APP_ID": "other",
    "AWS_DATA_PATH": "/nowhere",
    "AWS_CA_BUNDLE": "/nowhere/ca.pem",
    "REQUESTS_CA_BUNDLE": "/nowhere/ca.pem",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
}


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home whose AWS files are broken and whose models are not AWS's, and every variable botocore knows."""
    aws = tmp_path / ".aws"
    models = aws / "models" / "sts" / "2011-06-15"
    models.mkdir(parents=True)
    (models / "service-2.json").write_text("{}")
    for name in ("config", "credentials"):
        (aws / name).write_text(BROKEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def test_the_fixture_is_hostile(hostile: None) -> None:
    """Positive control: a stock session fails on it."""
    import botocore.exceptions
    import botocore.session

    with pytest.raises(botocore.exceptions.BotoCoreError):
        botocore.session.Session().create_client("sts")


@pytest.mark.usefixtures("hostile")
async def test_calls_go_where_they_are_told(strict: StrictSts, clock: SkippingClock) -> None:
    """The key, endpoint, region and app id that were given, one attempt each."""
    aws = Aws(strict, clock)

    assert await aws.whoami() == FRANKLIN
    await aws.iam.mfa_devices(aws.key(), endpoint=aws.endpoint())
    strict.fault("http", times=0)
    with pytest.raises(Exception, match="unavailable"):
        await aws.mfa()

    calls = strict.calls()
    assert [call.op for call in calls] == ["GetCallerIdentity", "ListMFADevices", "GetSessionToken"]
    assert {call.akid for call in calls} == {strict.key().id}
    assert calls[0].region == "eu-west-1"
    assert "app/vaultd" in calls[0].user_agent


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (Endpoint("us-east-1"), "https://sts.us-east-1.amazonaws.com"),
        (Endpoint("eu-west-1"), "https://sts.eu-west-1.amazonaws.com"),
        (Endpoint("ap-east-1"), "https://sts.ap-east-1.amazonaws.com"),
        (Endpoint("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn"),
        (Endpoint("us-gov-west-1"), "https://sts.us-gov-west-1.amazonaws.com"),
        (Endpoint("eusc-de-east-1"), "https://sts.eusc-de-east-1.amazonaws.eu"),
        (Endpoint("us-east-1", use_fips=True), "https://sts-fips.us-east-1.amazonaws.com"),
        (Endpoint("us-gov-west-1", use_fips=True), "https://sts.us-gov-west-1.amazonaws.com"),
        (Endpoint("us-east-1", use_dualstack=True), "https://sts.us-east-1.api.aws"),
    ],
)
def test_every_partition_is_called_in_its_region(endpoint: Endpoint, url: str) -> None:
    """aws-facts §1.4: regional always, the global endpoint never; the gate lets each of them through."""
    clients = Clients(Network())
    client = clients._client("sts", endpoint)

    assert client.meta.endpoint_url == url
    clients._gate(url + "/")


@pytest.mark.parametrize(
    ("region", "url"),
    [("eu-west-1", "https://iam.amazonaws.com"), ("cn-north-1", "https://iam.cn-north-1.amazonaws.com.cn")],
)
def test_iam_is_one_per_partition(region: str, url: str) -> None:
    """And passes the gate."""
    clients = Clients(Network())

    assert clients._client("iam", Endpoint(region)).meta.endpoint_url == url
    clients._gate(url + "/")


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("https://sts.eu-west-1.amazonaws.com", False),
        ("https://sts.internal.example", True),
        ("https://internal.example:8443", True),
        ("https://127.0.0.1:4566", True),
        ("https://127.1.2.3", True),
        ("http://localhost:4566", True),
        ("https://[::1]:1", True),
    ],
)
def test_no_proxy(url: str, *, direct: bool) -> None:
    """NO_PROXY as curl and Python read it; loopback is never proxied."""
    network = Network(https_proxy="http://proxy.example:3128", no_proxy="internal.example,10.0.0.1")

    assert network.direct(url) is direct


def test_the_proxys_password_is_in_no_repr() -> None:
    """https_proxy may carry one."""
    assert "hunter2" not in repr(Network(https_proxy="http://user:hunter2@proxy.example:3128"))
