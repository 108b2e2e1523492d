"""SigV4 as AWS's front door checks it, computed by botocore's own signer so that no second opinion can differ."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.strict_sts.replies import AwsError

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
BASIC = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Wire:
    """One request as it arrived. Header names are in lower case; `akid` is empty when it was not signed."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    akid: str = ""
    region: str = ""
    service: str = ""
    signed: tuple[str, ...] = ()
    signature: str = ""

    @property
    def json_protocol(self) -> bool:
        return "x-amz-target" in self.headers or "x-amz-json" in self.headers.get("content-type", "")

    def params(self) -> dict[str, str]:
        """The query protocol's parameters; empty for other protocols."""
        if not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return {}
        return {name: values[0] for name, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}


def read(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Wire:
    """Who signed this, for which service and region; an unreadable signature counts as none."""
    low = {name.lower(): value for name, value in headers.items()}
    found = AUTHORIZATION.fullmatch(low.get("authorization", ""))
    if not found:
        return Wire(method, url, low, body)
    akid, _, region, service, signed, signature = found.groups()
    return Wire(method, url, low, body, akid, region, service, tuple(signed.split(";")), signature)


def check_signature(wire: Wire, secret: str) -> None:
    """Raises SignatureDoesNotMatch (aws-facts §1.5 row 11)."""
    signer = S3SigV4Auth if wire.service == "s3" else SigV4Auth
    auth = signer(Credentials(wire.akid, secret), wire.service, wire.region)
    signed = {name: wire.headers[name] for name in wire.signed if name in wire.headers}
    request = AWSRequest(method=wire.method, url=wire.url, data=wire.body, headers=signed)
    request.context["timestamp"] = wire.headers.get("x-amz-date", "")
    wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if "host" not in signed or not hmac.compare_digest(wanted, wire.signature):
        raise AwsError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        )


def check_skew(wire: Wire, now: datetime, skew: timedelta) -> None:
    """Raises SignatureDoesNotMatch with both times in it (aws-facts §1.5 row 12)."""
    try:
        signed = datetime.strptime(wire.headers.get("x-amz-date", ""), BASIC).replace(tzinfo=UTC)
    except ValueError:
        raise AwsError(400, "IncompleteSignature", "Date must be in ISO-8601 'basic format'.") from None
    minutes = int(skew.total_seconds() // 60)
    mine, theirs = now.strftime(BASIC), signed.strftime(BASIC)
    if signed < now - skew:
        edge = (now - skew).strftime(BASIC)
        text = f"Signature expired: {theirs} is now earlier than {edge} ({mine} - {minutes} min.)"
        raise AwsError(403, "SignatureDoesNotMatch", text)
    if signed > now + skew:
        edge = (now + skew).strftime(BASIC)
        text = f"Signature not yet current: {theirs} is still later than {edge} ({mine} + {minutes} min.)"
        raise AwsError(403, "SignatureDoesNotMatch", text)
