"""What a person is reminded of about his keys: sentences that end in what to type (`list`, `identities`, `doctor`).

Rule: a reminder is no fault. What is half done and waits for a person is told before a key's age, and last an old key
that only waits for its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from vaultd.model.credentials import Identity
from vaultd.model.rotation import Rotation
from vaultd.model.text import shown, typed


def reminders(identities: Iterable[Identity], now: datetime) -> list[str]:
    """One for each identity at most; what asks for nothing comes last."""
    asking, waiting = list[str](), list[str]()
    for each in identities:
        if grace := _waiting(each, now):
            waiting.append(grace)
        elif said := _unfinished(each, now) or _aged(each, now):
            asking.append(said)
    return asking + waiting


def left_behind(identity: Identity, left: Sequence[str]) -> str:
    """What is told once where a rotation was forgotten: of `left`, the ids of its keys, only AWS knows from now on."""
    keys = [f"…{each[-4:]}" for each in left]
    if identity.rotation is not None and identity.rotation.stage == "intent" and not identity.rotation.stray:
        keys.append("a key that was being made")
    if not keys:
        return ""
    return (
        f"the rotation of {shown(identity.name)} is forgotten: AWS may still have {' and '.join(keys)}, which vaultd "
        f"knows no more; to see, type `aws iam list-access-keys --user-name {typed(identity.user_name)}`"
    )


def _unfinished(identity: Identity, now: datetime) -> str:
    rotation = identity.rotation
    if rotation is None or (rotation.stage == "inactive" and not rotation.over(now)):
        return ""
    way = f"type `vault-client rotate {typed(identity.name)}`"
    return f"the rotation of {shown(identity.name)} is not finished: {_state(rotation)}; {way}"


def _waiting(identity: Identity, now: datetime) -> str:
    """A grace that runs."""
    rotation = identity.rotation
    if rotation is None or rotation.delete_after is None or rotation.over(now):
        return ""
    return (
        f"the old key …{rotation.old[-4:]} of {shown(identity.name)} is Inactive, and vaultd deletes it after "
        f"{rotation.delete_after:%Y-%m-%d %H:%M} UTC: if something still needs it, type "
        f"`vault-client rotate {typed(identity.name)} --undo`"
    )


def _state(rotation: Rotation) -> str:
    """What stands at AWS."""
    old, new = f"…{rotation.old[-4:]}", f"…{rotation.new[-4:]}"
    if rotation.stage == "intent":
        if rotation.stray:
            return f"{old} is in use, and of {', '.join(rotation.stray)} nobody has the secret"
        return f"{old} is in use, and a new key may have been made"
    if rotation.stage == "pending":
        return f"{old} is in use, and {new} is not yet"
    if rotation.stage == "inactive":
        return f"{new} is in use, and {old} may be deleted, which needs an MFA session"
    return f"{new} is in use, and {old} is Active, too"


def _aged(identity: Identity, now: datetime) -> str:
    if not identity.key_old(now):
        return ""
    least = "" if identity.key_created else "at least "
    return (
        f"the key …{identity.key_ending} of {shown(identity.name)} is {least}{identity.key_age(now).days} days old: "
        f"type `vault-client rotate {typed(identity.name)}`"
    )
