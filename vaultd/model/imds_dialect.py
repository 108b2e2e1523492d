"""What an EC2 instance says of itself, said of a grant: the tree of IMDS paths, its credentials and its errors.

Rules (interface.md §5)
- Everything is `text/plain`. An error is `Code: message`, the message once more as the reason phrase; never a byte of
  the request.
- A credentials object has no RoleArn; AccountId is in the extended one alone.
- A directory lists what is there. What is not known is not there: no region, no `placement/` and no identity document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from vaultd.errors import VaultdError
from vaultd.model.credentials import RoleSession
from vaultd.model.dialects import credentials_object, http_message, seen, stamp
from vaultd.model.partitions import Arn, parse_arn
from vaultd.model.text import reason_phrase

#: Where a metadata token is asked for.
TOKEN_PATH: Final = "/latest/api/token"  # noqa: S105 (no password)
TTL_HEADER: Final = "X-aws-ec2-metadata-token-ttl-seconds"
#: Below them, the credentials under the grant's one name.
CREDENTIALS: Final = "/latest/meta-data/iam/security-credentials"
EXTENDED: Final = "/latest/meta-data/iam/security-credentials-extended"

_PLAIN: Final = "text/plain"
_META: Final = "/latest/meta-data"
_DOCUMENT: Final = "/latest/dynamic/instance-identity/document"
#: As EC2 has it: versions and their parts are listed bare, everything below with a slash behind a directory.
_BARE: Final = frozenset({"", "/latest"})
_FIELDS: Final = ("Code", "LastUpdated", "Type", "AccessKeyId", "SecretAccessKey", "Token", "Expiration")
_DOMAINS: Final = {
    "aws": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-us-gov": "amazonaws.com",
    "aws-eusc": "amazonaws.eu",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-e": "cloud.adc-e.uk",
    "aws-iso-f": "csp.hci.ic.gov",
}


@dataclass(frozen=True, slots=True)
class Instance:
    """A grant, told as an instance. `name` is the profile's slug; `arn` that of its role, else of its user."""

    grant_id: str
    name: str
    arn: str | None
    region: str | None
    created: datetime

    @property
    def instance_id(self) -> str:
        """`i-` and 17 hexadecimal digits, the same for as long as the grant lives."""
        return f"i-{self._digest[:17]}"

    @property
    def _digest(self) -> str:
        return sha256(f"instance {self.grant_id}".encode()).hexdigest()

    def tree(self) -> dict[str, bytes]:
        """Path without its closing slash → what is answered, directories included; credentials as empty leaves."""
        return _with_directories({path: text.encode() for path, text in self._leaves().items()})

    def _leaves(self) -> dict[str, str]:
        arn = None if self.arn is None else parse_arn(self.arn)
        partition = "aws" if arn is None else arn.partition
        leaves = {
            f"{CREDENTIALS}/{self.name}": "",
            f"{EXTENDED}/{self.name}": "",
            f"{_META}/instance-id": self.instance_id,
            f"{_META}/services/domain": _DOMAINS.get(partition, _DOMAINS["aws"]),
            f"{_META}/services/partition": partition,
        }
        if arn is not None:
            leaves[f"{_META}/iam/info"] = _text(self._info(arn))
        if self.region is not None:
            leaves[f"{_META}/placement/region"] = self.region
            leaves[f"{_META}/placement/availability-zone"] = _zone(self.region)
            leaves[_DOCUMENT] = _text(self._document(arn, self.region))
        return leaves

    def _info(self, arn: Arn) -> dict[str, Any]:
        name = arn.resource.rpartition("/")[2]
        return {
            "Code": "Success",
            "LastUpdated": stamp(self.created),
            "InstanceProfileArn": f"arn:{arn.partition}:iam::{arn.account_id}:instance-profile/{name}",
            "InstanceProfileId": f"AIPA{self._digest[17:34].upper()}",
        }

    def _document(self, arn: Arn | None, region: str) -> dict[str, Any]:
        return {
            "accountId": None if arn is None else arn.account_id,
            "availabilityZone": _zone(region),
            "instanceId": self.instance_id,
            "pendingTime": stamp(self.created),
            "region": region,
            "version": "2017-09-30",
        }


def metadata_reply(text: bytes, *, headers: Mapping[str, str] | None = None) -> bytes:
    """The whole HTTP message for what is known."""
    return http_message(200, "OK", text, content_type=_PLAIN, headers=headers)


def imds_credentials(session: RoleSession) -> bytes:
    """The whole HTTP message of `iam/security-credentials/{name}`. Raises ValueError when a secret was wiped."""
    return metadata_reply(_text(_credentials(session)).encode())


def imds_extended(session: RoleSession) -> bytes:
    """The same of `iam/security-credentials-extended/{name}`."""
    return metadata_reply(_text(_credentials(session, "AccountId")).encode())


def imds_error(error: VaultdError, *, status: int | None = None, allow: str = "GET") -> bytes:
    """The whole HTTP message for an error; `status` where the place has one of its own."""
    own, code, message = seen(error)
    found = own if status is None else status
    headers = {"Allow": allow} if found == 405 else {}
    body = f"{code}: {message}".encode()
    return http_message(found, reason_phrase(message), body, content_type=_PLAIN, headers=headers)


def _credentials(session: RoleSession, *more: str) -> dict[str, str]:
    known = credentials_object(session)
    return {name: known[name] for name in (*_FIELDS, *more)}


def _zone(region: str) -> str:
    """Clients that know no `placement/region` (C++, old botocore) cut the last letter off."""
    return f"{region}a"


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2)


def _with_directories(leaves: Mapping[str, bytes]) -> dict[str, bytes]:
    listed: dict[str, set[str]] = {}
    for path in leaves:
        below = ""
        while path:
            path, _, name = path.rpartition("/")  # noqa: PLW2901 (one step up)
            listed.setdefault(path, set()).add(name if path in _BARE else name + below)
            below = "/"
    directories = {path: "\n".join(sorted(names)).encode() for path, names in listed.items()}
    return {**leaves, **directories}
