"""What a person is told who would put another key in the place of one whose rotation is not over.

Rule: a rotation has two keys in IAM, and only `identities.json` knows of the second. It is not forgotten while the
rotation can be ended, and the sentence says what stands there and how to end it from that stage.
"""

from __future__ import annotations

from vaultd.errors import RotationStopped
from vaultd.model.rotation import Rotation, Stage
from vaultd.model.text import shown, typed

_STANDS: dict[Stage, str] = {
    "intent": "a new key may have been made in IAM already",
    "pending": "the new key …{new} is Active in IAM and not in use yet",
    "swapped": "the new key …{new} is in use, and the old one …{old} is Active in IAM, too",
    "inactive": "the new key …{new} is in use, and the old one …{old} is Inactive in IAM until its grace is over",
    "reactivated": "the new key …{new} is in use, and the old one …{old} was set Active in IAM again",
}
_MADE = "`{rotate}` to finish it, or `{rotate} --abandon` to delete what it made"
_SWAPPED = "`{rotate} --grace 0s` to finish it, which deletes the old key"
_WAYS: dict[Stage, str] = {
    "intent": _MADE,
    "pending": _MADE,
    "swapped": _SWAPPED,
    "inactive": f"{_SWAPPED} (`{{rotate}} --undo` sets it Active again)",
    "reactivated": _SWAPPED,
}


def unfinished(name: str, rotation: Rotation) -> RotationStopped:
    """409; nothing has changed."""
    stands = _STANDS[rotation.stage].format(new=rotation.new[-4:], old=rotation.old[-4:])
    way = _WAYS[rotation.stage].format(rotate=f"vault-client rotate {typed(name)}")
    return RotationStopped(
        f"the key of identity {shown(name)} is being rotated ({stands}), and another key in its place would leave that "
        f"untold; first type {way}; where that cannot be done, `vault-client remove {typed(name)}` forgets both"
    )
