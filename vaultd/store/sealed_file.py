"""`secrets.sealed`: the identity store without an OS keyring, under a passphrase. Its bytes: sealed_format.py.

Rules
- The file is never written before it was opened, but for the one `create` where none is expected; each write is a
  new version with a new data key and a generation one higher, replaced whole and read back.
- The passphrase and the key derived from it are not kept: while open, the wrap and commit keys are, which a rewrite
  needs. Values are read from the file at each load.
- One derivation at a time, each on a thread of its own: it costs 64 MiB and 0.2 s, and the loop goes on meanwhile.
- A file older than the newest one seen is StoreRolledBack. What was seen is written after the file, so that a kill
  between the two never locks the user out (security.md §2.2 item 26).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vaultd.engine.seams import Clock
from vaultd.errors import (
    BadRequest,
    Locked,
    StoreDamaged,
    StoreRolledBack,
    StoreUnavailable,
    Unwritable,
    VaultdError,
    WrongPassphrase,
)
from vaultd.files import Files
from vaultd.model.secret import Secret
from vaultd.store.sealed_format import (
    HIGHEST_GENERATION,
    SALT_SIZE,
    Header,
    Kdf,
    Malformed,
    NotTheKey,
    default_kdf,
    derive,
    open_items,
    read_header,
    render,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Keys:
    wrap: Secret
    commit: Secret

    def wipe(self) -> None:
        self.wrap.wipe()
        self.commit.wipe()


@dataclass(frozen=True, slots=True)
class _Opened:
    keys: _Keys
    header: Header


@dataclass(frozen=True, slots=True)
class _Seen:
    file: str
    generation: int


class SealedFile:
    """The `IdentityStore` of engine/seams.py over one file.

    `seen` is the small file that remembers the newest generation; `kdf` is the cost of a store made here.
    """

    def __init__(self, files: Files, path: Path, *, seen: Path, clock: Clock, kdf: Kdf | None = None) -> None:
        self._files = files
        self._path = path
        self._seen_path = seen
        self._clock = clock
        self._kdf = kdf
        self._state: _Opened | None = None
        self._one_derivation = threading.Lock()

    @property
    def kind(self) -> Literal["keyring", "file"]:
        """Which `[store] backend` this is."""
        return "file"

    @property
    def backend(self) -> str:
        """The id that the index records."""
        return "file"

    @property
    def generation(self) -> int:
        """Of the version read or written last; 0 while shut."""
        return self._state.header.generation if self._state else 0

    def needs_passphrase(self) -> bool:
        """True while it is shut."""
        return self._state is None

    def names(self) -> frozenset[str] | None:
        """The items of the file as it lies there."""
        return frozenset(self._contents())

    def exists(self) -> bool:
        """True when the file is there."""
        return self._files.stat_key(self._path) is not None

    async def open(
        self,
        passphrase: Secret | None,
        *,
        create: bool = False,
        accept_rollback: bool = False,
        expected: bool = False,
        seen: int = 0,
    ) -> None:
        """Derive, verify, check the generation; an open store stays as it is when this fails.

        `accept_rollback` takes whatever lies there as the newest, and absence for the end of what was in it.
        Raises Locked (no passphrase, or no file and not `create`), BadRequest (an empty one), WrongPassphrase,
        StoreDamaged, StoreRolledBack, StoreUnavailable, FileRefused, Unwritable.
        """
        if passphrase is None:
            raise Locked(f"The store {self._path} is shut: run `vault-client unlock`.")
        if not passphrase:
            raise BadRequest("The passphrase is empty: run `vault-client unlock` and type one.")
        content = self._files.read(self._path)
        if content is None:
            # Given up: the new store stands above all that the index has seen, or the next start would refuse it.
            above = seen if accept_rollback else 0
            await self._create(passphrase, create=create, expected=expected and not accept_rollback, above=above)
            return
        header = self._header(content)
        keys = await self._derived(header.kdf, header.salt, passphrase)
        try:
            items = self._items(content, header, keys)
            newest = self._newest(header, seen=seen, accept_rollback=accept_rollback)
        except VaultdError:
            keys.wipe()
            raise
        self.close()
        self._state = _Opened(keys, replace(header, generation=newest))
        if newest == header.generation:
            self._remember(header)
        else:  # accepted: one generation above all that was ever seen, or the next start would refuse it again
            self._write(items)

    async def load(self, item: str) -> Secret | None:
        """Read the file and open the item; None when there is none of that name."""
        value = self._contents().get(item)
        return None if value is None else Secret(value)

    async def save(self, item: str, value: Secret) -> None:
        """Rewrite with the item, then read back and compare."""
        items = self._contents()
        items[item] = value.reveal_bytes()
        self._write(items)
        if self._contents().get(item) != items[item]:
            raise self._damaged("it did not read back as it was written")

    async def drop(self, item: str) -> None:
        """Rewrite without the item; absent is fine."""
        items = self._contents()
        if items.pop(item, None) is not None:
            self._write(items)

    def close(self) -> None:
        """Forget the keys."""
        if self._state is not None:
            self._state.keys.wipe()
            self._state = None

    # ---- the file ----

    async def _create(self, passphrase: Secret, *, create: bool, expected: bool, above: int) -> None:
        if expected:
            raise StoreDamaged(
                f"{self._path} is missing though identities are listed in it: restore it from a backup and run "
                "`vault-client unlock`, or give its keys up with `vaultd start --accept-rollback`."
            )
        if not create:
            raise Locked(f"There is no store {self._path} yet: run `vault-client unlock` to make it.")
        header = Header(
            kdf=self._kdf or default_kdf(),
            salt=secrets.token_bytes(SALT_SIZE),
            uuid=secrets.token_bytes(16),
            generation=above,
            created=int(self._clock.now().timestamp()),
        )
        keys = await self._derived(header.kdf, header.salt, passphrase)
        if self.exists():  # made while we derived, by someone who was first
            raise Locked(f"The store {self._path} was made meanwhile: run `vault-client unlock` again.")
        self.close()
        self._state = _Opened(keys, header)
        try:
            self._write({})
        except VaultdError:
            self.close()
            raise

    def _contents(self) -> dict[str, bytes]:
        state = self._require_open()
        content = self._files.read(self._path)
        if content is None:
            raise self._damaged("it is missing")
        header = self._header(content)
        if header.uuid != state.header.uuid or header.generation < state.header.generation:
            raise self._rolled_back(header, state.header.generation)
        try:
            items = self._items(content, header, state.keys)
        except WrongPassphrase as exc:
            raise self._damaged("its passphrase was changed elsewhere") from exc
        self._state = replace(state, header=header)
        return items

    def _write(self, items: dict[str, bytes]) -> None:
        state = self._require_open()
        header = replace(state.header, generation=state.header.generation + 1)
        keys = state.keys
        content = render(header, items, wrap=keys.wrap.reveal_bytes(), commit=keys.commit.reveal_bytes())
        self._files.replace(self._path, content)
        self._state = replace(state, header=header)
        self._remember(header)

    def _require_open(self) -> _Opened:
        if self._state is None:
            raise Locked(f"The store {self._path} is shut: run `vault-client unlock`.")
        return self._state

    def _header(self, content: bytes) -> Header:
        try:
            return read_header(content)
        except Malformed as exc:
            raise self._damaged(str(exc)) from exc

    def _items(self, content: bytes, header: Header, keys: _Keys) -> dict[str, bytes]:
        try:
            return open_items(content, header, wrap=keys.wrap.reveal_bytes(), commit=keys.commit.reveal_bytes())
        except NotTheKey as exc:
            raise WrongPassphrase(
                f"That passphrase does not open {self._path}: run `vault-client unlock` again."
            ) from exc
        except Malformed as exc:
            raise self._damaged(str(exc)) from exc

    # ---- the generation ----

    def _newest(self, header: Header, *, seen: int, accept_rollback: bool) -> int:
        """The highest generation known of: the file's own, unless an older file was accepted."""
        try:
            known = self._seen()
        except StoreRolledBack:
            if not accept_rollback:
                raise
            known = None
        newest = max(seen, header.generation, known.generation if known else 0)
        same_file = known is None or known.file == header.uuid.hex()
        if not accept_rollback and (newest > header.generation or not same_file):
            raise self._rolled_back(header, newest)
        return newest

    def _seen(self) -> _Seen | None:
        content = self._files.read(self._seen_path)
        if content is None:
            return None
        try:
            found = json.loads(content)
            return _Seen(str(found["file"]), _generation(found["generation"]))
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise StoreRolledBack(
                f"{self._seen_path} cannot be read, so nothing says whether {self._path} is the newest one: "
                "run `vaultd start --accept-rollback`."
            ) from exc

    def _remember(self, header: Header) -> None:
        seen = {"file": header.uuid.hex(), "generation": header.generation}
        try:
            self._files.replace(self._seen_path, json.dumps(seen).encode() + b"\n")
        except Unwritable as exc:  # the store itself is whole; an older note only sees less
            _log.warning("skip generation-note reason=%s", exc.message)

    def _rolled_back(self, header: Header, newest: int) -> StoreRolledBack:
        return StoreRolledBack(
            f"{self._path} (generation {header.generation}) is not the one last seen here (generation {newest}): "
            "restore the newer one, or run `vaultd start --accept-rollback`."
        )

    def _damaged(self, reason: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self._path} is damaged, {reason}: restore it from a backup and run `vault-client unlock`, "
            "or give its keys up: move it away and run `vaultd start --accept-rollback`."
        )

    # ---- the derivation ----

    async def _derived(self, kdf: Kdf, salt: bytes, passphrase: Secret) -> _Keys:
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[_Keys | Exception] = loop.create_future()
        phrase = self._text(passphrase)

        def work() -> None:
            with self._one_derivation:
                outcome = _attempt(kdf, salt, phrase)

            def land() -> None:  # a closure: asyncio's logs print the arguments of callbacks (security.md §0.5)
                if not landed.done():
                    landed.set_result(outcome)

            with suppress(RuntimeError):  # the loop is gone: nobody waits any more
                loop.call_soon_threadsafe(land)

        threading.Thread(target=work, name="vaultd-derive", daemon=True).start()
        outcome = await landed
        if isinstance(outcome, _Keys):
            return outcome
        raise StoreUnavailable(
            f"The key of {self._path} cannot be derived here ({type(outcome).__name__}): "
            "free some memory, or install cryptography with OpenSSL 3.2, then run `vault-client unlock`."
        ) from outcome

    @staticmethod
    def _text(passphrase: Secret) -> Secret:
        try:
            return Secret(passphrase.reveal())
        except UnicodeDecodeError:
            pass  # without `from`: the error of the codec carries the bytes
        raise BadRequest("The passphrase is not UTF-8 text: run `vault-client unlock` again.")


def _generation(value: object) -> int:
    """Of the note: one that the header's field cannot follow is none."""
    if type(value) is not int or not 0 <= value <= HIGHEST_GENERATION:
        raise ValueError("generation")
    return value


def _attempt(kdf: Kdf, salt: bytes, phrase: Secret) -> _Keys | Exception:
    try:
        wrap, commit = derive(kdf, salt, phrase.reveal())
        return _Keys(Secret(wrap), Secret(commit))
    except Exception as exc:  # noqa: BLE001 - MemoryError, UnsupportedAlgorithm: told to the one who waits
        return exc
    finally:
        phrase.wipe()
