"""Stock boto3 as the tests' customer: franklin's usual steps, and the outcome of a call as one word."""

import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.strict_sts.live import SERIAL, Desk, role

Keys = Mapping[str, Any]  # the Credentials of an STS answer


@functools.cache
def _session() -> boto3.Session:
    """One botocore loader for all clients: its models are read once."""
    return boto3.Session()


class StillClock:
    """Stands at ten seconds into a step: no test races a code's end."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 22, 12, 0, 10, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class Bench:
    """Calls against one running emulator."""

    def __init__(self, strict: Desk) -> None:
        self.strict = strict

    def client(
        self,
        service: str,
        keys: Keys | None = None,
        *,
        user: str = "franklin",
        region: str = "us-east-1",
        **config: Any,
    ) -> Any:
        """A client with a session's keys, or the user's long-term key. One attempt, as vaultd's (aws-facts §1.3(6))."""
        if keys is None:
            long_term = self.strict.key(user)
            keys = {"AccessKeyId": long_term.id, "SecretAccessKey": long_term.secret}
        config = {"retries": {"total_max_attempts": 1}, "proxies": {}, **config}
        return _session().client(
            service,  # type: ignore[call-overload]
            region_name=region,
            endpoint_url=self.strict.url,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(**config),
        )

    def mfa(self, *, step: int = 0, **params: Any) -> Keys:
        """GetSessionToken with a code: the MFA session M."""
        shown = {"SerialNumber": SERIAL, "TokenCode": self.strict.totp(step=step), **params}
        keys: Keys = self.client("sts").get_session_token(**shown)["Credentials"]
        return keys

    def plain(self, *, user: str = "franklin") -> Keys:
        """GetSessionToken without a code."""
        keys: Keys = self.client("sts", user=user).get_session_token()["Credentials"]
        return keys

    def assume(self, name: str, keys: Keys | None = None, *, user: str = "franklin", **params: Any) -> Keys:
        """The Credentials of a role session."""
        given = {"RoleArn": role(name), "RoleSessionName": user, **params}
        answer: Keys = self.client("sts", keys, user=user).assume_role(**given)["Credentials"]
        return answer


def outcome(call: Callable[[], object]) -> str:
    """`allowed`, or the code of AWS's error."""
    try:
        call()
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])
    return "allowed"


def message(call: Callable[[], object]) -> str:
    """The text of AWS's error. AssertionError when there was none."""
    try:
        call()
    except ClientError as exc:
        return str(exc.response["Error"]["Message"])
    raise AssertionError("the call went through")
