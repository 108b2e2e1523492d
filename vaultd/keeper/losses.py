"""What an open says of a file that was lost, changed or damaged: one sentence each, which ends in what to type.

Rule: a loss is told, never mended silently; what is left is served (interface.md §1).
"""

from __future__ import annotations

from vaultd.model.text import shown, typed


def of_index(unlisted: int, *, newest: bool) -> list[str]:
    """An index that was lost, over a store that was not: it lists nothing, and looks like a new home. Or one that is
    not as it was written: it may list fewer keys, or another state of one.
    """
    if not unlisted and newest:
        return []
    if not unlisted:
        said = "identities.json is not the one that sessions.sealed knows, so one of them is older or was changed"
        return [f"{said}; see what it lists with `vault-client identities`"]
    keys = "a key" if unlisted == 1 else f"{unlisted} keys"
    lost = f"the store holds {keys} and identities.json lists none; if that file was lost, restore it from a backup and"
    new = "with a new one from the IAM console where vaultd had the only copy, as after a rotation"
    return [f"{lost} run `vaultd restart`, else, {new}, run `vault-client add IDENTITY`"]


def of_key(name: str) -> str:
    """An index that lists a key which the store does not hold, as after `--accept-rollback`."""
    return f"the store holds no key for identity {shown(name)}; run `vault-client add {typed(name)} --replace`"


def of_log(*, damaged: bool, known: bool, given_up: bool = False) -> list[str]:
    """One at most (interface.md §1): where the log was lost, what became of it and of the codes. `given_up`: every key
    went with a store that held the log's data key, too, so nobody has damaged the log; what is next is to add a key.
    """
    if given_up:
        kept = "sessions.sealed was sealed with the store that is gone and is kept as sessions.sealed.damaged"
        return [f"{kept}; see whose key is wanted with `vault-client status`"] if damaged else []
    mute = "which codes were sent is not known and none is taken for the first 30 s; run `vault-client mfa`"
    if damaged:
        kept = "sessions.sealed was damaged and is kept as sessions.sealed.damaged"
        return [f"{kept}; run `vault-client mfa` to sign in again" if known else f"{kept}, so {mute} to sign in again"]
    return [] if known else [f"sessions.sealed was missing though keys are stored, so {mute} after that"]
