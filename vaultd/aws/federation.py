"""One POST of getSigninToken, by botocore's own HTTP: the same proxies, CA bundle, time-outs and exceptions as STS.

Rules (aws-facts §2.3)
- The role's keys go in the body, to a host that `federation_allowed` takes, and a redirect is not followed.
- AWS tells a refusal by its status alone, in a page for people. The page is dropped: it may echo what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from vaultd.model.console import federation_allowed
from vaultd.model.partitions import Endpoint

if TYPE_CHECKING:
    from vaultd.aws.clients import Network, Signer

#: The codes by which a status travels to translate.py; `REFUSED` is for the session, or for its SessionDuration.
REFUSED = "SigninRefused"
_CODES = {400: REFUSED, 401: REFUSED, 403: REFUSED, 429: "Throttling"}
_OPERATION = "GetSigninToken"


def federated(network: Network, endpoint: Endpoint, signer: Signer, parameters: Mapping[str, object]) -> dict[str, Any]:
    """{"SigninToken", "ResponseMetadata"}; raises botocore's exceptions and Misconfigured. Threads only."""
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session

    url = endpoint.signin_url or ""
    if not federation_allowed(url, network.endpoint_allow):
        raise network.refused(url)
    request = AWSRequest(
        method="POST",
        url=url,
        headers={"Content-Type": "application/x-www-form-urlencoded", "Connection": "close", "User-Agent": "vaultd"},
        data=urlencode({"Action": "getSigninToken", **parameters, "Session": _session(signer)}),
    )
    terms: dict[str, Any] = {  # the stubs know fewer types than botocore takes
        "verify": network.bundle(endpoint),
        "proxies": {"https": network.https_proxy} if network.https_proxy and not network.direct(url) else {},
        "timeout": (network.connect_timeout, network.read_timeout),
    }
    sender = URLLib3Session(**terms)
    try:
        answer = sender.send(request.prepare())
        return _read(answer.status_code, dict(answer.headers), answer.content)
    finally:
        sender.close()


def _session(signer: Signer) -> str:
    token = "" if signer.session_token is None else signer.session_token.reveal()
    keys = {"sessionId": signer.access_key_id, "sessionKey": signer.secret_access_key.reveal(), "sessionToken": token}
    return json.dumps(keys)


def _read(status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    meta = {"HTTPStatusCode": status, "HTTPHeaders": {name.lower(): value for name, value in headers.items()}}
    if status != 200:
        error: Any = {"Error": {"Code": _CODES.get(status, ""), "Message": ""}, "ResponseMetadata": meta}
        raise ClientError(error, _OPERATION)
    found = json.loads(content)  # a captive portal's page is none: translate.py says that it makes no sense
    return {"SigninToken": found.get("SigninToken") if isinstance(found, dict) else None, "ResponseMetadata": meta}
