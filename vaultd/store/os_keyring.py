"""The operating system's keyring as an identity store; `keyring` is imported here, and at the first call only.

Rules (security.md §3.1, architecture.md §5)
- The backend's class is chosen here from an allow-list; `keyring.get_keyring()` is never called, because environment
  and configuration files can make it the null backend, a chainer or anything else (security.md §0.9).
- Calls run one at a time, each on a thread of its own, for 30 s at most (one_call.py).
- A write is believed when it reads back equal: that catches the null backend, a planted item that shadows ours, and a
  write that was abandoned and did or did not land.
- Nothing is cached: a lock of the keyring is a lock of ours.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol, cast

from vaultd.engine.seams import Clock
from vaultd.errors import KeyringBusy, StoreDamaged, StoreUnavailable, VaultdError
from vaultd.model.secret import Secret
from vaultd.store.one_call import BREAKER, DEADLINE, OneCall, Words

_log = logging.getLogger(__name__)

SERVICE = "vaultd:identity"

#: What opening asks for: an item that is never there, so that a locked keyring has to say so or ask.
_PROBE = "open"


class Backend(Protocol):
    """The part of keyring's KeyringBackend that we call; blocking."""

    def get_password(self, service: str, username: str) -> str | None:
        """The item's text, or None; may unlock, which may ask a person."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Write or replace the item."""

    def delete_password(self, service: str, username: str) -> None:
        """Delete the item; an absent one is an error."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One allowed backend: the id that the index records, and where keyring has its class."""

    id: str
    module: str
    name: str

    def make(self) -> Backend | None:
        """The backend, or None where it does not work; blocking, may ask the D-Bus session."""
        try:
            found = getattr(importlib.import_module(self.module), self.name)
            if found.priority <= 0:
                return None
            return cast("Backend", found())
        except Exception as exc:  # noqa: BLE001 - keyring's way to say "not here" is any exception of `priority`
            _log.debug("skip keyring backend=%s reason=%s", self.id, type(exc).__name__)
            return None


SECRET_SERVICE = Candidate("secret-service", "keyring.backends.SecretService", "Keyring")
KWALLET = Candidate("kwallet", "keyring.backends.kwallet", "DBusKeyring")
MACOS = Candidate("macos-keychain", "keyring.backends.macOS", "Keyring")


def allowed(platform: str = sys.platform) -> tuple[Candidate, ...]:
    """The allow-list, best first. Never null, fail, chainer, libsecret's twin or anything of keyrings.alt."""
    return (MACOS,) if platform == "darwin" else (SECRET_SERVICE, KWALLET)


@dataclass(frozen=True, slots=True)
class _Chosen:
    id: str
    backend: Backend


class OsKeyring:
    """The `IdentityStore` of engine/seams.py over the keyring of this session.

    `choose` makes the backend with its id, on the calling thread of a keyring call; None: there is no keyring here.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        choose: Callable[[], tuple[str, Backend] | None] | None = None,
        deadline: timedelta = DEADLINE,
        breaker: timedelta = BREAKER,
    ) -> None:
        chosen = choose or (lambda: first_of(allowed()))
        self._calls: OneCall[_Chosen] = OneCall(
            lambda: None if (made := chosen()) is None else _Chosen(*made),
            clock=clock,
            words=Words(
                late=f"The OS keyring did not answer within {deadline.total_seconds():.0f} seconds: unlock it, then "
                "run `vault-client unlock`.",
                undecided="The OS keyring has not answered an earlier call yet, which could undo this one: unlock the "
                "keyring and try again, or run `vaultd restart`.",
                absent=_unavailable,
                translate=translated,
            ),
            deadline=deadline,
            breaker=breaker,
        )

    @property
    def kind(self) -> Literal["keyring", "file"]:
        """Which `[store] backend` this is."""
        return "keyring"

    @property
    def backend(self) -> str:
        """The id that the index records; `keyring` before the first open."""
        return self._calls.found.id if self._calls.found else "keyring"

    @property
    def generation(self) -> int:
        """A keyring has none."""
        return 0

    @property
    def abandoned(self) -> bool:
        """True while a thread that nobody waits for any more is still in a call."""
        return self._calls.abandoned

    def needs_passphrase(self) -> bool:
        """False: the keyring asks for its own."""
        return False

    def names(self) -> None:
        """None: a keyring does not list its items."""

    def exists(self) -> bool:
        """True: a keyring is there, or is not, before us."""
        return True

    async def open(
        self,
        passphrase: Secret | None,
        *,
        create: bool = False,
        accept_rollback: bool = False,
        expected: bool = False,
        seen: int = 0,
    ) -> None:
        """Choose the backend and reach it once, so that a locked one asks now. Raises StoreUnavailable, KeyringBusy."""
        del passphrase, create, accept_rollback, expected, seen  # the file store's
        await self._calls.call(lambda chosen: chosen.backend.get_password(SERVICE, _PROBE))

    async def load(self, item: str) -> Secret | None:
        """The item, or None."""

        def read(chosen: _Chosen) -> Secret | None:
            value = chosen.backend.get_password(SERVICE, item)
            return None if value is None else Secret(value)

        return await self._calls.call(read)

    async def save(self, item: str, value: Secret) -> None:
        """Write, read back, compare; StoreDamaged when another value comes back."""
        kept = Secret(value.reveal_bytes())  # the caller may wipe his while we wait

        def write(chosen: _Chosen) -> bool:
            chosen.backend.set_password(SERVICE, item, kept.reveal())
            return _same(chosen.backend.get_password(SERVICE, item), kept)

        if not await self._calls.call(write, writes=True):
            raise StoreDamaged(
                f"The keyring does not give item {item} of {SERVICE} back as it was written, so another program has "
                "put one of that name there or it keeps nothing: remove that item in the keyring's own program, or "
                "choose the encrypted file with `VAULTD_STORE=file vaultd start`."
            )

    async def drop(self, item: str) -> None:
        """Delete the item; absent is fine."""

        def delete(chosen: _Chosen) -> None:
            if chosen.backend.get_password(SERVICE, item) is not None:
                chosen.backend.delete_password(SERVICE, item)

        await self._calls.call(delete, writes=True)

    def close(self) -> None:
        """Forget the backend: the next open chooses and asks again."""
        self._calls.forget()


def first_of(candidates: Iterable[Candidate]) -> tuple[str, Backend] | None:
    """The first candidate that works here, with its id."""
    for candidate in candidates:
        if (backend := candidate.make()) is not None:
            return candidate.id, backend
    return None


def translated(exc: Exception) -> VaultdError:
    """The one place where a keyring's exception becomes ours; by name, because its packages are optional here."""
    names = {each.__name__ for each in type(exc).__mro__}
    if names & {"KeyringLocked", "LockedException", "PromptDismissedException"}:
        return KeyringBusy("The OS keyring is locked: unlock it, then run `vault-client unlock`.", locked=True)
    if names & {"NoKeyringError", "InitError", "SecretServiceNotAvailableException"}:
        return _unavailable()
    return KeyringBusy(f"The OS keyring failed ({type(exc).__name__}): run `vaultd check`, then `vault-client unlock`.")


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable(
        "There is no OS keyring in this session: choose the encrypted file with `VAULTD_STORE=file vaultd start`, or "
        'with `backend = "file"` under `[store]` in config.toml and `vaultd restart`.'
    )


def _same(found: str | None, kept: Secret) -> bool:
    return found is not None and Secret(found) == kept
