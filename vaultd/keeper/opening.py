"""Which store holds the keys, how far it opens without a person, and the data key in it.

Rules (interface.md §1, §2; security.md §3.1)
- `auto` is the store that the identities are recorded in, else an encrypted file that exists, else the OS keyring,
  else a new encrypted file. What was chosen once is never switched silently, from keyring to keyring neither.
- A missing `secrets.sealed` while identities are recorded in it is damage, never a reason for a new one.
- A file store without passphrase, and a keyring that does not answer, leave the daemon locked with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from vaultd.engine.seams import IdentityStore
from vaultd.errors import KeyringBusy, StoreDamaged, StoreUnavailable, VaultdError
from vaultd.keeper import codec
from vaultd.model.secret import Secret
from vaultd.model.text import shown

_DATA_KEY = "data-key"
Kind = Literal["keyring", "file"]
_OTHER_STORE = "choose the encrypted file instead with `vaultd stop`, then `VAULTD_STORE=file vaultd start`"
Choice = Literal["auto", "keyring", "file"]


@dataclass(frozen=True, slots=True)
class Shut:
    """The store stays shut, and why: one sentence that ends in what to type."""

    kind: Kind
    reason: str


class Stores:
    """The stores of this home, each made once; `choice` is `[store] backend` or VAULTD_STORE."""

    def __init__(self, makers: Mapping[Kind, Callable[[], IdentityStore]], *, choice: Choice) -> None:
        self._makers = makers
        self._choice = choice
        self._made: dict[Kind, IdentityStore] = {}

    def expected(self, recorded: AbstractSet[str]) -> Kind:
        """The kind that `open` would try first, without asking a keyring anything."""
        return self._settled(recorded) or "keyring"

    async def open(
        self, recorded: AbstractSet[str], *, passphrase: Secret | None, seen: int = 0, accept_rollback: bool = False
    ) -> IdentityStore | Shut:
        """`recorded`: the backends that the index names, `seen` its highest generation.

        Raises StoreUnavailable, StoreDamaged, StoreRolledBack, WrongPassphrase, KeyringBusy, FileRefused.
        """
        kind = self._settled(recorded)
        if kind != "file":
            opened = await self._keyring(recorded)
            if opened is not None:
                return opened
        return await self._file(recorded, passphrase, seen=seen, accept_rollback=accept_rollback)

    def _settled(self, recorded: AbstractSet[str]) -> Kind | None:
        """The kind where it is settled already; None: auto, and nothing was ever stored."""
        kinds = {_kind(backend) for backend in recorded}
        kind: Kind | None = None if self._choice == "auto" else self._choice
        if kind is None and len(kinds) == 1:
            kind = next(iter(kinds))
        if kind is not None and kinds - {kind}:
            raise _changed(recorded, kind)
        if kind is None and self._store("file").exists():
            kind = "file"
        return kind

    async def _keyring(self, recorded: AbstractSet[str]) -> IdentityStore | Shut | None:
        """None where `auto` goes on to the file."""
        try:
            store = self._store("keyring")
            await store.open(None)
        except StoreUnavailable as exc:
            if recorded:
                return Shut("keyring", exc.message)
            if self._choice == "auto":
                return None
            raise
        except KeyringBusy as exc:
            if recorded or not exc.details.get("locked"):  # another store would not have the keys that are in there
                raise
            raise KeyringBusy(f"{exc.message.removesuffix('.')}; or {_OTHER_STORE}.") from exc
        if recorded - {store.backend}:
            raise _changed(recorded, store.backend)
        return store

    async def _file(
        self, recorded: AbstractSet[str], passphrase: Secret | None, *, seen: int, accept_rollback: bool
    ) -> IdentityStore | Shut:
        store = self._store("file")
        new, expected = not store.exists(), "file" in recorded
        if new and expected and not accept_rollback:
            raise StoreDamaged(
                "secrets.sealed is missing while identities.json lists identities in it; restore it from a backup and "
                "run `vaultd start`, or give its keys up with `vaultd start --accept-rollback`"
            )
        if store.needs_passphrase() and passphrase is None:
            return Shut("file", _no_passphrase(new=new))
        await store.open(
            passphrase, create=new, accept_rollback=accept_rollback, expected=expected, seen=seen if expected else 0
        )
        return store

    def _store(self, kind: Kind) -> IdentityStore:
        if kind not in self._made:
            self._made[kind] = self._makers[kind]()
        return self._made[kind]


async def data_key(store: IdentityStore) -> Secret:
    """The data key of this home, made at the first open; where that cannot be had the store is shut again."""
    try:
        item = await store.load(_DATA_KEY)
        if item is not None:
            return codec.data_key_of(item)
        made = codec.new_data_key()
        await store.save(_DATA_KEY, codec.data_key_item(made))
    except VaultdError:
        store.close()
        raise
    return made


def _kind(backend: str) -> Kind:
    return "file" if backend == "file" else "keyring"


def _changed(recorded: AbstractSet[str], found: str) -> StoreUnavailable:
    was = shown(", ".join(sorted(recorded)))
    return StoreUnavailable(
        f"backend changed: the identities are in {was} and the store is now {shown(found)}; set `[store] backend` back "
        "in config.toml, or remove the identities under the old one first, and run `vaultd restart`"
    )


def _no_passphrase(*, new: bool) -> str:
    if new:
        return "keys will be kept in an encrypted file that has no passphrase yet; set one with `vault-client unlock`"
    return "the encrypted file store is shut; run `vault-client unlock`"
