"""Whose key a new one is, by AWS, and which MFA device that user has.

Rules
- Root's and temporary keys are refused; so is what AWS does not accept.
- The device is AWS's answer or what the user said, never made up from the user name (aws-facts §2.2).
"""

from __future__ import annotations

import logging
import re

from vaultd.engine.seams import Iam, Sts
from vaultd.errors import BadRequest, IdentityBroken, RoleDenied
from vaultd.model.credentials import IdentityKey
from vaultd.model.partitions import Endpoint, parse_arn
from vaultd.model.text import shown, typed

log = logging.getLogger(__name__)


class Verification:
    """The questions to AWS about a key that is not stored yet."""

    def __init__(self, *, sts: Sts, iam: Iam) -> None:
        self._sts = sts
        self._iam = iam

    async def user(self, key: IdentityKey, *, endpoint: Endpoint) -> str:
        """The ARN of the user whose key it is. Raises BadRequest, IdentityBroken."""
        if not re.fullmatch(r"[A-Z0-9]{16,128}", key.access_key_id):
            raise BadRequest("AccessKeyId has not the shape of an access key id; run `vault-client add` again")
        if key.access_key_id.startswith("ASIA"):
            raise BadRequest(
                "AccessKeyId is a temporary key (ASIA…), which would be dead within hours; create an access key for "
                "your IAM user and run `vault-client add` with that"
            )
        try:
            arn = await self._sts.caller_identity(key, endpoint=endpoint)
        except IdentityBroken as exc:
            raise IdentityBroken(
                f"AWS does not accept that key for identity {shown(key.identity)}; check key id and secret and run "
                f"`vault-client add {typed(key.identity)}` again"
            ) from exc
        parsed = parse_arn(arn)
        if parsed is None or not parsed.resource.startswith("user/"):
            raise BadRequest(
                f"AccessKeyId belongs to {shown(arn)}, which is no IAM user (root cannot assume roles); create an IAM "
                "user and run `vault-client add` with a key of that"
            )
        return arn

    async def device(
        self, key: IdentityKey, *, endpoint: Endpoint, given: str | None, fallback: str | None
    ) -> str | None:
        """What the person said, else the one usable device, None for none. Raises BadRequest, with several of them.

        A refusal to tell is no reason not to store the key: it keeps `fallback`.
        """
        if serial := _checked_serial(given):
            return serial
        try:
            serials = await self.devices(key, endpoint=endpoint)
        except RoleDenied as exc:
            log.info("skip mfa-detection identity=%s reason=%s", shown(key.identity), exc.kind)
            return fallback
        if len(serials) > 1:
            raise BadRequest(
                f"MfaSerial: the user of identity {shown(key.identity)} has several MFA devices: "
                f"{', '.join(shown(serial) for serial in serials)}; run "
                f"`vault-client add {typed(key.identity)} --mfa-serial ARN`",
                mfa_serials=[shown(serial) for serial in serials],
            )
        return serials[0] if serials else None

    async def devices(self, key: IdentityKey, *, endpoint: Endpoint) -> tuple[str, ...]:
        """The usable ones."""
        found = await self._iam.mfa_devices(key, endpoint=endpoint)
        return tuple(serial for serial in found if _usable(serial))


def _usable(serial: str) -> bool:
    """`:mfa/` ARNs and the bare serials of hardware; FIDO devices never work with STS (aws-facts §1.1, §2.2)."""
    return ":mfa/" in serial or not serial.startswith("arn:")


def _checked_serial(serial: str | None) -> str | None:
    if serial is None or _usable(serial):
        return serial
    what = "a FIDO device, which STS cannot use" if ":u2f/" in serial else "not the ARN of an MFA device"
    raise BadRequest(f"MfaSerial: {shown(serial)} is {what}; run `vault-client add` with --mfa-serial arn:…:mfa/NAME")
