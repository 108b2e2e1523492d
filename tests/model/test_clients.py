"""Rules of model/clients.py: sdk-facts as data."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vaultd.model.clients import LONGEST, bearing, closes_on_error

JSON = "application/json"


def fields(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize(
    ("agent", "name", "seconds"),
    [
        ("python-urllib3/2.5.0", "botocore", 120),
        ("Python/3.11 aiohttp/3.14.5", "unknown", 120),
        ("Go-http-client/1.1", "go", 120),
        ("aws-sdk-go/1.55.6 (go1.22; linux; amd64)", "go-v1", 120),
        ("aws-sdk-nodejs/2.1693.0 linux/v20", "js-v2", 120),
        ("aws-sdk-crt/ecs-credentials-provider", "crt", 120),
        ("aws-sdk-cpp/1.11.900", "cpp", 120),
        ("aws-sdk-java/2.29.0", "java", 120),
        ("Ruby", "unknown", 120),
        ("curl/8.9.1", "unknown", 120),
        ("object_store/0.14.2", "object_store", 25),
        ("polars/2.1.0", "polars", 25),
        ("obstore/0.12.1", "obstore", 25),
        ("deltalake/1.6.6", "deltalake", 25),
        ("rust-s3/0.37", "rust-s3", 25),
        ("attohttpc/0.28.0", "rust-s3", 25),
        ("aws-sdk-php/3.300.0 GuzzleHttp/7", "php", None),
        ("GuzzleHttp/7", "php", None),
    ],
)
def test_an_agent_bears_what_was_measured(agent: str, name: str, seconds: int | None) -> None:
    """sdk-facts §10.8; who is not known bears the drip (§9)."""
    found = bearing(fields(("Host", "127.0.0.1"), ("User-Agent", agent), ("Accept", JSON)))
    assert found.name == name
    assert found.hold == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ((("host", "127.0.0.1"), ("accept", JSON), ("authorization", "x")), "rust"),
        ((("host", "127.0.0.1"), ("accept", "*/*"), ("authorization", "x")), "no-agent"),  # opendal
        ((("Host", "127.0.0.1"), ("Accept", JSON), ("Authorization", "x")), "no-agent"),
        ((("Authorization", "x"), ("host", "127.0.0.1"), ("Connection", "keep-alive")), "no-agent"),  # JS v3
        ((("host", "127.0.0.1"), ("Accept", JSON)), "no-agent"),
        ((("host", "127.0.0.1"), ("user-agent", "new-sdk/1"), ("accept", JSON)), "unknown"),
        ((("host", "127.0.0.1"), ("user-agent", ""), ("accept", JSON)), "rust"),
    ],
)
def test_rust_is_known_by_what_it_does_not_say(pairs: tuple[tuple[str, str], ...], name: str) -> None:
    """No agent, lower-case names and `accept: application/json` together (sdk-facts §2); one alone says nothing."""
    found = bearing(fields(*pairs))
    assert found.name == name
    assert found.hold == (timedelta(seconds=21) if name == "rust" else LONGEST)


def test_bytes_of_any_kind_are_a_client_too() -> None:
    """What stands in a header field decides how long, never whether: nothing of it raises."""
    assert bearing([(b"User-Agent", bytes(range(128, 256))), (b"\xff", b"")]).hold == LONGEST
    assert bearing([]).hold == LONGEST


def test_only_the_crt_is_closed_on() -> None:
    """An error body on the IMDS credentials path aborts its process (sdk-facts §10.12); others read the text."""
    assert closes_on_error(b"aws-sdk-crt/aws-imds-client")
    assert closes_on_error(b"aws-sdk-crt/ecs-credentials-provider")
    for agent in (b"", b"Boto3/1.44", b"x aws-sdk-crt/1", b"aws-sdk-cpp/1.11.900"):
        assert not closes_on_error(agent)
