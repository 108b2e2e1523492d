"""Keys, sessions and notes ↔ the bytes that the stores keep; the keeper's place of `reveal()`.

Rule: everything is versioned JSON. A sealed record that does not read (a later version wrote it) is None and counts as
absent; an identity's item that is not what the index says is never used (security.md §3.1).
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from datetime import datetime
from typing import Any

from vaultd.engine.seams import Head
from vaultd.errors import IdentityBroken, StoreDamaged
from vaultd.model.credentials import Identity, IdentityKey, MfaHandle, MfaSession, RoleSession
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed

_DATA_KEY_SIZE = 32


def new_data_key() -> Secret:
    """32 random bytes."""
    return Secret(secrets.token_bytes(_DATA_KEY_SIZE))


def data_key_item(data_key: Secret) -> Secret:
    """As text, since keyrings keep text."""
    return Secret(base64.b64encode(data_key.reveal_bytes()))


def data_key_of(item: Secret) -> Secret:
    """Raises StoreDamaged when the item is not a data key of ours."""
    try:
        raw = base64.b64decode(item.reveal_bytes(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _DATA_KEY_SIZE:
        raise StoreDamaged("the store's data key is damaged; restore the store from a backup and run `vaultd restart`")
    return Secret(raw)


def key_item(key: IdentityKey, *, uuid: str) -> Secret:
    """The item of an identity key: under 400 bytes, so that it fits every keyring (security.md §3.1)."""
    fields = {"v": 1, "uuid": uuid, "akid": key.access_key_id, "secret": key.secret_access_key.reveal()}
    return Secret(json.dumps(fields, separators=(",", ":")))


def key_of(item: Secret, *, identity: Identity, uuid: str) -> IdentityKey:
    """Raises IdentityBroken unless the item is the index's: another program may have planted one of the same name."""
    found = stored_key(item, name=identity.name, uuid=uuid)
    if found is None or not found.access_key_id.endswith(identity.key_ending):
        raise IdentityBroken(
            f"what the store holds for identity {shown(identity.name)} is not the key that was added, and is not used; "
            f"run `vault-client add {typed(identity.name)} --replace`"
        )
    return found


def stored_key(item: Secret, *, name: str, uuid: str) -> IdentityKey | None:
    """The key that was stored under `uuid`, whatever its id; None for anything else of that name."""
    fields = _fields(item.reveal_bytes() if item else b"")
    akid, secret = fields.get("akid"), fields.get("secret")
    if fields.get("uuid") != uuid or not isinstance(akid, str) or not _can_be_secret(secret):
        return None
    return IdentityKey(name, akid, Secret(str(secret)))


def mfa_record(session: MfaSession, *, region: str) -> bytes:
    """An MFA session, with the region whose STS made it."""
    handle = session.handle
    return _json(
        identity=handle.identity,
        serial=handle.mfa_serial,
        issued=handle.issued.isoformat(),
        expiration=handle.expiration.isoformat(),
        region=region,
        akid=session.access_key_id,
        secret=session.secret_access_key.reveal(),
        token=session.session_token.reveal(),
        opened_by=session.opened_by,
    )


def mfa_of(record: bytes) -> tuple[MfaSession, str] | None:
    """(session, region), or None."""
    fields = _fields(record)
    try:
        handle = MfaHandle(fields["identity"], fields["serial"], _time(fields["issued"]), _time(fields["expiration"]))
        secret, token, opened_by = _secret(fields["secret"]), _secret(fields["token"]), str(fields.get("opened_by", ""))
        session = MfaSession(handle, fields["akid"], secret, token, opened_by)
        return session, str(fields["region"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def session_record(session: RoleSession) -> bytes:
    """A role session of a cell."""
    return _json(
        akid=session.access_key_id,
        secret=session.secret_access_key.reveal(),
        token=session.session_token.reveal(),
        issued=session.issued.isoformat(),
        expiration=session.expiration.isoformat(),
        account_id=session.account_id,
        role_arn=session.role_arn,
        role_session_name=session.role_session_name,
        packed_policy_size=session.packed_policy_size,
        aws_request_id=session.aws_request_id,
    )


def session_of(record: bytes) -> RoleSession | None:
    """None when it does not read."""
    fields = _fields(record)
    try:
        return RoleSession(
            access_key_id=fields["akid"],
            secret_access_key=_secret(fields["secret"]),
            session_token=_secret(fields["token"]),
            issued=_time(fields["issued"]),
            expiration=_time(fields["expiration"]),
            account_id=fields["account_id"],
            role_arn=fields["role_arn"],
            role_session_name=fields["role_session_name"],
            packed_policy_size=fields["packed_policy_size"],
            aws_request_id=fields["aws_request_id"],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def seconds_record(seconds: int) -> bytes:
    """A learned limit or an accepted duration."""
    return _json(seconds=seconds)


def seconds_of(record: bytes) -> int | None:
    """None when it does not read."""
    found = _fields(record).get("seconds")
    return found if isinstance(found, int) else None


def head_record(head: Head) -> bytes:
    """The audit head."""
    return _json(seq=head.seq, digest=head.digest)


def head_of(record: bytes) -> Head | None:
    """None when it does not read."""
    fields = _fields(record)
    seq, digest = fields.get("seq"), fields.get("digest")
    return Head(seq, digest) if isinstance(seq, int) and isinstance(digest, str) else None


def _json(**fields: object) -> bytes:
    return json.dumps({"v": 1, **fields}, separators=(",", ":")).encode()


def _fields(record: bytes) -> dict[str, Any]:
    """The JSON object, or an empty one for anything else."""
    try:
        found = json.loads(record)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("v") == 1 else {}


def _secret(value: object) -> Secret:
    """Raises TypeError for what is none."""
    if not (isinstance(value, str) and _can_be_secret(value)):
        raise TypeError("no secret")
    return Secret(value)


def _can_be_secret(value: object) -> bool:
    """A text with something in it, and no half of a surrogate pair; a number would be taken for a size."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= each <= "\udfff" for each in value)


def _time(text: str) -> datetime:
    """Raises ValueError for a time without zone, which could not be compared with any of ours."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without zone")
    return moment
