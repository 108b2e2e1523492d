"""IAM over botocore: what a bare key may call under a ForceMFA policy (aws-facts §0, §2.2).

Rules
- No UserName is ever sent: without it AWS means the caller, which is all that self-service policies allow.
- What is temporary is tried three times (aws-facts §1.5 row 19): nobody above repeats these calls.
"""

from __future__ import annotations

from vaultd.aws.calls import Calls, Request
from vaultd.aws.clients import Signer
from vaultd.aws.translate import Called, unavailable
from vaultd.model.credentials import IdentityKey
from vaultd.model.partitions import Endpoint

_ATTEMPTS = 3


class BotoIam:
    """The seam `Iam`."""

    def __init__(self, *, calls: Calls) -> None:
        self._calls = calls

    async def mfa_devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        """Every SerialNumber of the caller's own devices, FIDO included; a user has 8 at most, so one page."""
        called = Called("ListMFADevices", key.identity, f"identity {key.identity}", endpoint.region)
        signer = Signer(key.access_key_id, key.secret_access_key)
        request = Request("iam", "list_mfa_devices", called, signer, dict, attempts=_ATTEMPTS)
        reply = await self._calls.call(request, endpoint=endpoint)
        devices = reply.get("MFADevices")
        if not isinstance(devices, list):
            raise unavailable(called, "the answer holds no list of devices, so it is not from AWS")
        return tuple(str(device["SerialNumber"]) for device in devices if device.get("SerialNumber"))
