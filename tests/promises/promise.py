"""One promise as a value: what is promised, where its control stands, its tests, and how the control is taken away.

Rule: a break removes or weakens exactly one control, so that the program still starts and works; every test named
beside it must then fail, and passes on the tree as it is. `old` stands exactly once in its file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """One edit of one product file: `old` (exactly once there, unchanged indentation) becomes `new`."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Promise:
    #: The threat of security.md §1 and a short name in the field's words: `T1-peer-uid`. Unique, and never used anew.
    name: str
    #: One sentence, as SECURITY.md prints it.
    says: str
    #: Where the control stands, for a reader: `vaultd/host/peers.py: allowed`.
    control: str
    #: pytest node ids, each of which must fail under the break: one is enough, two when they look from different sides.
    tests: tuple[str, ...]
    #: Usually one edit; several only where the control is said twice (defence in depth), in words in `note`.
    breaks: tuple[Break, ...]
    #: What a reader must know of this row: why two edits, what the test's own control is.
    note: str = ""

    @property
    def threat(self) -> str:
        return self.name.split("-", 1)[0]
