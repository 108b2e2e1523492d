"""The rotation of an identity's key: how far it is, what it meant to do, and when a person is reminded of a key's age.

Rules (aws-facts §2.1, architecture.md §6.5)
- A `Rotation` is written down before what follows it is asked of AWS: whoever finds one knows what may have happened.
- No secret is in it; access key ids are none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

#: intent: the new key is about to be made, or was made and its answer lost. pending: it is stored and not in use.
#: swapped: it is in use and the old one Active. inactive: the old one is Inactive and waits for its end.
#: reactivated: a person has set the old one Active again.
Stage = Literal["intent", "pending", "swapped", "inactive", "reactivated"]
#: What is wanted of the next step. go: on with the rotation, or begin one; on: on with the one that is under way; undo:
#: the old key Active again; abandon: the new one gone; end: unasked, delete the old key if its grace is over.
Wish = Literal["go", "on", "undo", "abandon", "end"]

#: How long the old key is kept Inactive, where nobody says otherwise.
GRACE = timedelta(hours=24)
#: From this age on a person is reminded.
OLD = timedelta(days=90)
#: So many GetCallerIdentity in a row, within so long a time; else the new key is not usable yet (aws-facts §2.1).
USABLE, USABLE_WITHIN = 3, timedelta(seconds=60)
#: How long before the next look at a new key, or the next step.
LOOK_AGAIN = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The last arrow of architecture.md §6.5 that was written, `since` when by AWS's clock.

    `item`: the uuid under which the new key is kept, chosen before there is one. `listed`: the key ids that AWS listed
    before, which is the old one. `new`: the new one's id, from `pending` on. `grace` counts from `inactive` on.
    `stray`: keys that AWS made for an answer that was lost: nobody has their secret.
    """

    stage: Stage
    item: str
    listed: tuple[str, ...]
    since: datetime
    grace: timedelta = GRACE
    new: str = ""
    stray: tuple[str, ...] = ()

    @property
    def old(self) -> str:
        """The id of the key that is rotated out."""
        return self.listed[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """Every key of AWS's that it knows of, the old one first."""
        return tuple(dict.fromkeys(each for each in (*self.listed, self.new, *self.stray) if each))

    @property
    def delete_after(self) -> datetime | None:
        """When the old key may be deleted; None while that is not in sight."""
        return self.since + self.grace if self.stage == "inactive" else None

    def over(self, now: datetime) -> bool:
        """Has the grace passed? One of no length has, whatever two clocks say."""
        return self.delete_after is not None and (not self.grace or now >= self.delete_after)

    def within(self, grace: timedelta | None) -> Rotation:
        """With another grace, where one is given."""
        return self if grace is None else replace(self, grace=grace)


def calls_iam(rotation: Rotation | None, wish: Wish, grace: timedelta | None, now: datetime) -> bool:
    """Does the next step ask something of IAM, so that a ForceMFA policy wants the MFA session for it?"""
    if rotation is None:
        return wish == "go"
    if wish == "abandon":
        return rotation.stage in {"intent", "pending"}
    if wish == "undo":
        return rotation.stage == "inactive"
    if rotation.stage == "inactive":
        return rotation.within(grace).over(now)
    return rotation.stage != "pending"
