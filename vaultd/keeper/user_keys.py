"""A user's access keys at AWS, as one step of a rotation sees and changes them, and the words for what stands there.

Rules (aws-facts §2.1)
- Each change names the user and is logged by four characters of the key. A key that is gone already was deleted.
- A step goes on after whoever asked for it, and AWS takes its time: `current` says whether the rotation is still that
  of the name before anything is written for it, since `remove` and `add --replace` do not wait.
- Moments that are compared with AWS's are AWS's: this machine's clock may be wrong, and be set right meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from vaultd.engine.seams import Clock, Did, Iam, ListedKey, NewKey, Rotated, Sts
from vaultd.errors import IdentityBroken, RoleDenied, RotationStopped, VaultdError
from vaultd.keeper.custody import Identities
from vaultd.model.credentials import Identity, IdentityKey, MfaSession
from vaultd.model.partitions import Endpoint
from vaultd.model.rotation import Rotation, Wish
from vaultd.model.text import shown, typed

#: How far the date of a key that we had made may be from the moment of its intent. A clock that is off by less is
#: right: AWS's own dates are of whole seconds.
MINUTE = timedelta(seconds=60)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """One call of `Custody.rotate`. `user` is AWS's name of the identity's user when it began, `source` signs IAM's
    calls, `still` raises Locked once the keeper was closed.
    """

    name: str
    user: str
    endpoint: Endpoint
    source: IdentityKey | MfaSession
    wish: Wish
    grace: timedelta | None
    still: Callable[[], None]


class UserKeys:
    """The calls to IAM of a rotation."""

    def __init__(self, *, identities: Identities, sts: Sts, iam: Iam, clock: Clock) -> None:
        self._identities = identities
        self._sts = sts
        self._iam = iam
        self._clock = clock

    def now(self) -> datetime:
        """By AWS's clock, as the last answer told it."""
        skew = timedelta(seconds=self._sts.clock_skew() or 0.0)
        return self._clock.now() - (skew if abs(skew) > MINUTE else timedelta())

    def current(self, order: Order, rotation: Rotation) -> None:
        """Raises UnknownIdentity, or RotationStopped where another key has taken the name."""
        now = self._identities.identity(order.name).rotation
        if now is None or now.item != rotation.item:
            raise RotationStopped(
                f"another key was stored as {shown(order.name)} under way, which ended its rotation; type "
                f"`vault-client identities`"
            )

    async def listed(self, order: Order) -> tuple[ListedKey, ...]:
        """Both of them, at most."""
        try:
            return await self._iam.keys(order.source, user=order.user, endpoint=order.endpoint)
        except RoleDenied as exc:
            raise denied(order, exc, "nothing has changed at AWS") from exc

    async def create(self, order: Order) -> NewKey:
        """Sent once."""
        made = await self._iam.create(order.source, user=order.user, endpoint=order.endpoint)
        log.info("create key identity=%s key=%s", shown(order.name), made.id[-4:])
        return made

    async def set(self, order: Order, key_id: str, *, active: bool) -> None:
        """Active, or Inactive."""
        await self._iam.set_status(order.source, key_id, active=active, user=order.user, endpoint=order.endpoint)
        log.info("set key identity=%s key=%s active=%s", shown(order.name), key_id[-4:], active)

    async def gone(self, order: Order, key_id: str) -> None:
        """Deleted, or it was not there any more."""
        try:
            await self._iam.delete(order.source, key_id, user=order.user, endpoint=order.endpoint)
        except RoleDenied as exc:
            if not no_such_key(exc):
                raise

    async def last_used(self, order: Order, key_id: str) -> str:
        """AWS's word, or nothing: W0 does not grant it (aws-facts §0)."""
        with suppress(VaultdError):
            return await self._iam.last_used(order.source, key_id, endpoint=order.endpoint)
        return ""


def own(listed: tuple[ListedKey, ...], key_id: str, name: str) -> ListedKey:
    """The key in use among those that AWS has (E8: it may have been deleted elsewhere)."""
    found = next((each for each in listed if each.id == key_id), None)
    if found is None or not found.active:
        what = "has no key" if found is None else "has set Inactive the key"
        raise IdentityBroken(
            f"AWS {what} …{key_id[-4:]} of identity {shown(name)}, so there is nothing to rotate; "
            f"run `vault-client add {typed(name)} --replace`"
        )
    return found


def two_keys(name: str, listed: tuple[ListedKey, ...], mine: str, *, stored_as: str | None) -> RotationStopped:
    """AWS allows two, and Inactive ones count (aws-facts §2.1): a third is not even asked for.

    `stored_as`: the identity that the other one is the key of, here; it is in use then, and not to be deleted first.
    """
    other = next(each for each in listed if each.id != mine)
    state = "Active" if other.active else "Inactive"
    way = f"delete that in IAM if nothing uses it, then type `vault-client rotate {typed(name)}`"
    if stored_as is not None:
        way = (
            f"which vaultd serves as identity {shown(stored_as)}; if nothing needs that, first type "
            f"`vault-client remove {typed(stored_as)}` and delete the key in IAM, then type "
            f"`vault-client rotate {typed(name)}`"
        )
    return RotationStopped(
        f"the user of {shown(name)} has two keys already, which is AWS's most: beside …{mine[-4:]} in use there is "
        f"{other.id} ({state}, made {other.created:%Y-%m-%d}){',' if stored_as else ';'} {way}"
    )


def denied(order: Order, exc: RoleDenied, stands: str) -> RoleDenied:
    """AWS's no, with what stands at AWS and how to go on."""
    said = exc.message.partition("; run `vault-client explain")[0]
    return type(exc)(
        f"{said}; {stands}: mend that in IAM, then type `vault-client rotate {typed(order.name)}`", **exc.details
    )


def no_such_key(exc: RoleDenied) -> bool:
    """Is it gone already?"""
    return exc.details.get("aws_code") == "NoSuchEntity"


def did(what: Did, identity: Identity, rotation: Rotation, *, usable: int = 0, last_used: str = "") -> Rotated:
    """What a step did."""
    return Rotated(
        identity,
        what,
        old_key=rotation.old[-4:],
        new_key=rotation.new[-4:],
        usable=usable,
        last_used=last_used,
    )
