"""IAM over botocore: what a bare key may call under a ForceMFA policy (aws-facts §0, §2.2), and a rotation's calls.

Rules
- ListMFADevices names no user: without UserName AWS means the caller, which is all that a bare key is allowed. The
  calls of a rotation name him: signed by a session, UpdateAccessKey does not know whose key is meant (aws-facts §2.1).
- What is temporary is tried three times (aws-facts §1.5 row 19): nobody above repeats these calls. But CreateAccessKey
  goes out once: the answer to the first may have been lost, and a user has two keys at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vaultd.aws.calls import Calls, Request
from vaultd.aws.sts import signer
from vaultd.aws.translate import Called, unavailable
from vaultd.engine.seams import ListedKey, NewKey
from vaultd.model.credentials import IdentityKey, MfaSession
from vaultd.model.partitions import Endpoint
from vaultd.model.secret import Secret

_ATTEMPTS = 3
Source = IdentityKey | MfaSession


class BotoIam:
    """The seam `Iam`."""

    def __init__(self, *, calls: Calls) -> None:
        self._calls = calls

    async def mfa_devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        """Every SerialNumber of the caller's own devices, FIDO included; a user has 8 at most, so one page."""
        called = _called("ListMFADevices", key, endpoint)
        reply = await self._call("list_mfa_devices", key, called, {}, endpoint=endpoint)
        devices = reply.get("MFADevices")
        if not isinstance(devices, list):
            raise unavailable(called, "the answer holds no list of devices, so it is not from AWS")
        return tuple(str(device["SerialNumber"]) for device in devices if device.get("SerialNumber"))

    async def keys(self, source: Source, *, user: str, endpoint: Endpoint) -> tuple[ListedKey, ...]:
        """ListAccessKeys; a user has two at most, so one page."""
        called = _called("ListAccessKeys", source, endpoint)
        reply = await self._call("list_access_keys", source, called, {"UserName": user}, endpoint=endpoint)
        listed = reply.get("AccessKeyMetadata")
        if not isinstance(listed, list):
            raise unavailable(called, "the answer holds no list of keys, so it is not from AWS")
        return tuple(_listed(each, called) for each in listed)

    async def create(self, source: Source, *, user: str, endpoint: Endpoint) -> NewKey:
        """CreateAccessKey, once."""
        called = _called("CreateAccessKey", source, endpoint)
        sent = {"UserName": user}
        reply = await self._call("create_access_key", source, called, sent, endpoint=endpoint, attempts=1)
        made = reply.get("AccessKey")
        fields = made if isinstance(made, dict) else {}
        key_id, secret, created = (fields.get(each) for each in ("AccessKeyId", "SecretAccessKey", "CreateDate"))
        if not (isinstance(key_id, str) and key_id and isinstance(secret, str) and secret):
            raise unavailable(called, "the answer holds no key, so it is not from AWS")
        if not isinstance(created, datetime):
            raise unavailable(called, "the answer does not say when the key was made, so it is not from AWS")
        return NewKey(key_id, Secret(secret), created)

    async def set_status(self, source: Source, key_id: str, *, active: bool, user: str, endpoint: Endpoint) -> None:
        """UpdateAccessKey."""
        called = _called("UpdateAccessKey", source, endpoint, target=key_id)
        sent = {"UserName": user, "AccessKeyId": key_id, "Status": "Active" if active else "Inactive"}
        await self._call("update_access_key", source, called, sent, endpoint=endpoint)

    async def delete(self, source: Source, key_id: str, *, user: str, endpoint: Endpoint) -> None:
        """DeleteAccessKey. Tried again after a lost answer it finds the key gone: NoSuchEntity."""
        called = _called("DeleteAccessKey", source, endpoint, target=key_id)
        sent = {"UserName": user, "AccessKeyId": key_id}
        await self._call("delete_access_key", source, called, sent, endpoint=endpoint)

    async def last_used(self, source: Source, key_id: str, *, endpoint: Endpoint) -> str:
        """GetAccessKeyLastUsed; best effort, so one attempt."""
        called = _called("GetAccessKeyLastUsed", source, endpoint, target=key_id)
        sent = {"AccessKeyId": key_id}
        reply = await self._call("get_access_key_last_used", source, called, sent, endpoint=endpoint, attempts=1)
        used = reply.get("AccessKeyLastUsed")
        fields = used if isinstance(used, dict) else {}
        moment = fields.get("LastUsedDate")
        if not isinstance(moment, datetime):
            return "never"
        return f"{moment:%Y-%m-%d} by {fields.get('ServiceName')} in {fields.get('Region')}"

    async def _call(
        self,
        method: str,
        source: Source,
        called: Called,
        sent: Mapping[str, object],
        *,
        endpoint: Endpoint,
        attempts: int = _ATTEMPTS,
    ) -> Mapping[str, Any]:
        request = Request("iam", method, called, signer(source), lambda: sent, attempts=attempts)
        return await self._calls.call(request, endpoint=endpoint)


def _listed(fields: Mapping[str, Any], called: Called) -> ListedKey:
    key_id, created = fields.get("AccessKeyId"), fields.get("CreateDate")
    if not (isinstance(key_id, str) and key_id and isinstance(created, datetime)):
        raise unavailable(called, "the answer holds a key without id or date, so it is not from AWS")
    return ListedKey(key_id, fields.get("Status") == "Active", created)


def _called(operation: str, source: Source, endpoint: Endpoint, *, target: str = "") -> Called:
    if isinstance(source, IdentityKey):
        return Called(operation, source.identity, f"identity {source.identity}", endpoint.region, target=target)
    name = source.handle.identity
    by = f"the MFA session of identity {name}"
    return Called(operation, name, by, endpoint.region, target=target, by_session=True)
