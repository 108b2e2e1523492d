"""What an open says of a file that was lost, changed or damaged: one sentence each, which ends in what to type.

Rule: a loss is told, never mended silently; what is left is served (interface.md §1).
"""

from __future__ import annotations


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
    return [f"{lost} run `vaultd restart`, else run `vault-client add IDENTITY`"]


def of_log(*, damaged: bool, known: bool) -> list[str]:
    """One at most (interface.md §1): where the log was lost, what became of it and of the codes."""
    mute = "which codes were sent is not known and none is taken for the first 30 s; run `vault-client mfa`"
    if damaged:
        kept = "sessions.sealed was damaged and is kept as sessions.sealed.damaged"
        return [f"{kept}; run `vault-client mfa` to sign in again" if known else f"{kept}, so {mute} to sign in again"]
    return [] if known else [f"sessions.sealed was missing though keys are stored, so {mute} after that"]
