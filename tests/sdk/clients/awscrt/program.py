"""The CRT's default chain and its signer; the signed request is sent by the standard library."""

from __future__ import annotations

import http.client
import io
import os
import re
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from awscrt.auth import AwsCredentialsProvider, AwsSigningConfig, aws_sign_request
from awscrt.http import HttpHeaders, HttpRequest
from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup, InputStream
from speaking import Said, speak

BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
STS = urlsplit(os.environ["AWS_ENDPOINT_URL_STS"])
#: Longer than any hold (interface.md, `hold_max`).
SECONDS = 200


class Kept:
    """A provider; made at the first call, made anew by `fresh`."""

    def __init__(self) -> None:
        group = EventLoopGroup(1)
        self.bootstrap = ClientBootstrap(group, DefaultHostResolver(group))
        self.provider: Any = None

    def call(self) -> Said:
        if self.provider is None:
            self.provider = AwsCredentialsProvider.new_default_chain(self.bootstrap)
        headers = HttpHeaders(
            [("Host", STS.netloc), ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]
        )
        request = HttpRequest("POST", "/", headers, InputStream(io.BytesIO(BODY)))
        config = AwsSigningConfig(
            credentials_provider=self.provider,
            region=os.environ.get("AWS_REGION", "us-east-1"),
            service="sts",
        )
        aws_sign_request(request, config).result(SECONDS)
        arn, key = _sent(dict(request.headers))
        return {"arn": arn, "key": key, "expiration": None}

    def fresh(self) -> Said:
        self.provider = None
        return self.call()


def _sent(headers: dict[str, str]) -> tuple[str, str]:
    connection = http.client.HTTPConnection(STS.hostname or "", STS.port, timeout=30)
    try:
        connection.request("POST", "/", body=BODY, headers=headers)
        reply = connection.getresponse()
        text = reply.read().decode()
    finally:
        connection.close()
    found = re.search("<Arn>(.*)</Arn>", text)
    if reply.status != 200 or found is None:
        raise RuntimeError(f"STS answered {reply.status}: {text}")
    return found[1], headers["Authorization"].split("Credential=")[1].split("/")[0]


kept = Kept()
speak("awscrt", version("awscrt"), call=kept.call, fresh=kept.fresh)
