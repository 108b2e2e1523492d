"""What the keeper takes for the index of identities: its lines, the file of them, and how a line is made.

Rule: the class of a line is the file's own (store/identities.py), which the keeper may not import.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from vaultd.model.credentials import Identity


class Entry(Protocol):
    """One line of the index: the identity, and the item `uuid` of store `backend` that holds its key."""

    @property
    def identity(self) -> Identity:
        """Whose key it is."""

    @property
    def uuid(self) -> str:
        """The item's name."""

    @property
    def backend(self) -> str:
        """`file`, or the keyring's id."""

    @property
    def generation(self) -> int:
        """The store's when it was written."""

    @property
    def state(self) -> Literal["active", "pending", "retired"]:
        """`active` for the key in use (aws-facts §2.1 for the others)."""


class Index(Protocol):
    """`identities.json`, loaded and saved whole (store/identities.py). `entries` are of its own class."""

    @property
    def digest(self) -> str:
        """Of the file as it was loaded or saved last."""

    def load(self) -> tuple[Entry, ...]:
        """Raises FileRefused, Misconfigured."""

    def save(self, entries: tuple[Any, ...]) -> None:
        """Raises Unwritable; the old index then stands."""

    def digest_of(self, entries: tuple[Any, ...]) -> str:
        """What `digest` is once they are saved."""


class MakeEntry(Protocol):
    """Makes a line of the index's own class."""

    def __call__(
        self,
        identity: Identity,
        uuid: str,
        backend: str,
        *,
        generation: int,
        state: Literal["active", "pending", "retired"] = "active",
    ) -> Entry:
        """`generation` is the store's after the key was written."""
