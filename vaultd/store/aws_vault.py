"""aws-vault's stores, read for an import: its file backend and its Secret Service collection; never written to.

Rules (security.md §3.2)
- What is a session or an Identity Center token is left out by its name and never opened.
- A file is opened only as a file of the user's that nobody else may read; its name is compared, never made into a
  path. One that cannot be read says why, and the others go on.
- What a store can cost is bounded before a key is derived: names, keys, and rounds of PBKDF2 in one call.
- Whoever is deleted is read again first and must be what was read: aws-vault may have rotated it meanwhile.
- KWallet, pass and the keychain are not read: `aws-vault export` writes what `import aws-credentials` reads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultd.engine.seams import Clock, ForeignKey, ForeignStore
from vaultd.errors import (
    BadRequest,
    FileRefused,
    KeyringBusy,
    Misconfigured,
    NotFound,
    NotImported,
    StoreUnavailable,
    Unwritable,
    VaultdError,
    WrongPassphrase,
)
from vaultd.files import Files
from vaultd.model.credentials import IdentityKey
from vaultd.model.importing import is_key, of_bus, of_file
from vaultd.model.secret import Secret
from vaultd.model.text import shown, typed
from vaultd.store import jwe
from vaultd.store.one_call import OneCall, Words

#: Of one directory or collection, sessions among them; of one call; and of all the keys of one call (4 s).
MOST_NAMES, MOST_KEYS, MOST_ROUNDS = 20_000, 500, 20 * jwe.MOST_ITERATIONS
#: A person is asked by the desktop; less than what a call may take (one_call.py).
_UNLOCK_SECONDS = 25.0
_AGAIN = "`vault-client import aws-vault`"
_ELSEWHERE = f"{_AGAIN} with --backend file, where aws-vault keeps them in files"


class _Unfit(Exception):
    """What was opened is no long-term key; says why."""


class _Ends(_Unfit):
    """It is a temporary one."""


@dataclass(frozen=True, slots=True)
class _Message:
    """A file that may hold a key: what is sealed in it, or what is wrong."""

    name: str
    mark: str = ""
    sealed: jwe.Sealed | None = None
    wrong: str = ""


class AwsVault:
    """The seam `ForeignKeys`. `connect` opens the session bus; blocking."""

    def __init__(self, files: Files, *, clock: Clock, connect: Callable[[], Any] | None = None) -> None:
        late = f"did not answer within 30 seconds: unlock it, then type {_AGAIN} again."
        self._files = files
        self._disk: OneCall[Files] = OneCall(
            lambda: files, clock=clock, words=Words(f"aws-vault's directory {late}", late, _unavailable, _translated)
        )
        self._bus: OneCall[Callable[[], Any]] = OneCall(
            lambda: connect or _session_bus,
            clock=clock,
            words=Words(
                f"The Secret Service {late}",
                f"The Secret Service has not answered an earlier call yet: unlock it, then type {_AGAIN} again.",
                _unavailable,
                _translated,
            ),
        )

    async def read(
        self, source: ForeignStore, *, passphrase: Secret | None, names: tuple[str, ...]
    ) -> tuple[ForeignKey, ...]:
        """See the seam."""
        if source.backend == "secret-service":
            return await self._bus.call(lambda connect: _in_collection(connect, source.place, names))
        phrase = None if passphrase is None else Secret(passphrase.reveal_bytes())  # the caller may wipe his
        directory = _directory(source)
        return await self._disk.call(lambda files: _in_directory(files, directory, phrase, names))

    async def drop(self, source: ForeignStore, found: ForeignKey) -> None:
        """See the seam."""
        if source.backend == "secret-service":
            await self._bus.call(lambda connect: _delete_item(connect, source.place, found), writes=True)
        else:
            directory = _directory(source)
            await self._disk.call(lambda files: _delete_file(files, directory, found), writes=True)


def _directory(source: ForeignStore) -> Path:
    directory = Path(source.place)
    if not directory.is_absolute() or "\0" in source.place:
        raise BadRequest("field place: a directory is given by its whole path; correct it and send it again")
    return directory


# ---- files ----


def _in_directory(
    files: Files, directory: Path, passphrase: Secret | None, names: tuple[str, ...]
) -> tuple[ForeignKey, ...]:
    messages = _messages(files, directory, names)
    if not messages:
        return ()
    if passphrase is None:
        raise BadRequest(f"field passphrase: the keys in {directory} are opened by one; type {_AGAIN}")
    secret, opened = passphrase.reveal_bytes(), 0
    found: list[ForeignKey] = []
    refused: list[str] = []
    for message in messages:
        try:
            found.append(_opened(message, secret))
            opened += 1
        except jwe.WrongKey:
            refused.append(message.name)
        except _Unfit as exc:
            found.append(_unfit(message.name, exc))
    if refused and not opened:
        raise WrongPassphrase(
            f"that passphrase does not open the keys in {directory}: type {_AGAIN} again with the one that aws-vault "
            "asks for"
        )
    other = "that passphrase opens others and not this one: it was sealed under another one, or was damaged"
    found += [ForeignKey(name, wrong=f"{other}; {_repair(name)}") for name in refused]
    return tuple(sorted(found, key=lambda each: each.name))


def _opened(message: _Message, passphrase: bytes) -> ForeignKey:
    """Raises WrongKey, _Unfit."""
    if message.sealed is None:
        raise _Unfit(message.wrong)
    try:
        item = jwe.opened(message.sealed, passphrase)
    except jwe.Changed as exc:
        raise _Unfit(f"it is damaged: the passphrase fits and the rest does not; {_repair(message.name)}") from exc
    return ForeignKey(message.name, _key(item, message.name), mark=message.mark)


def _messages(files: Files, directory: Path, names: tuple[str, ...]) -> list[_Message]:
    """What there is to open, with all that can be said of it before a key is derived."""
    by_name = _by_name(files, directory)
    wanted = [name for name in by_name if not names or name in names]
    _check_count(len(wanted), directory)
    messages, rounds = [], 0
    for name in sorted(wanted):
        message = _message(files, directory, name, by_name[name])
        rounds += message.sealed.iterations if message.sealed else 0
        if rounds > MOST_ROUNDS:
            message = _Message(name, wrong=f"to open it with the others takes too long; {_alone(name)}")
        messages.append(message)
    return messages


def _by_name(files: Files, directory: Path) -> dict[str, list[bytes]]:
    """The files of each key's name. A name that is no text can be nobody's key."""
    listed = files.names(directory, most=MOST_NAMES + 1)
    if listed is None:
        raise NotFound(
            f"there is no directory {directory}: set AWS_VAULT_FILE_DIR to where aws-vault keeps its files, or type "
            f"{_AGAIN} with --backend secret-service"
        )
    if len(listed) > MOST_NAMES:
        raise _too_many(f"more than {MOST_NAMES} files", directory)
    found: dict[str, list[bytes]] = {}
    for raw in listed:
        name = of_file(raw)
        if name is not None and is_key(name):
            found.setdefault(name, []).append(raw)
    return found


def _check_count(count: int, place: object) -> None:
    if count > MOST_KEYS:
        raise _too_many(f"{count} keys", place)


def _too_many(what: str, place: object) -> BadRequest:
    return BadRequest(
        f"{place} has {what}, and {MOST_KEYS} are read at once: name those that you want, type {_AGAIN[:-1]} NAME…`"
    )


def _message(files: Files, directory: Path, name: str, raw: list[bytes]) -> _Message:
    if len(raw) > 1:
        return _Message(name, wrong=f"{len(raw)} files have that name; delete all but one in {directory}")
    try:
        content = files.read(directory / raw[0].decode("utf-8", "surrogateescape"), last=jwe.MOST_BYTES + 1)
        if content is None:
            return _Message(name, wrong=f"it is gone; type {_AGAIN} again")
        return _Message(name, _mark(content), jwe.parsed(content))
    except jwe.NotReadable as exc:
        return _Message(name, wrong=f"it is damaged: {exc}; {_repair(name)}")
    except (FileRefused, Misconfigured) as exc:
        return _Message(name, wrong=exc.message)


def _delete_file(files: Files, directory: Path, found: ForeignKey) -> None:
    for raw in _by_name(files, directory).get(found.name, ()):
        path = directory / raw.decode("utf-8", "surrogateescape")
        content = files.read(path, last=jwe.MOST_BYTES + 1)
        if content is not None and _mark(content) != found.mark:
            raise _changed(found.name)
        try:
            files.remove(path)
        except Unwritable as exc:  # in the sandbox of `vaultd service install --strict` every home is read-only
            raise Unwritable(
                f"{path} cannot be deleted by vaultd, and its key is stored: type `rm {shlex.quote(str(path))}`",
                path=str(path),
            ) from exc


# ---- Secret Service ----


def _session_bus() -> Any:
    import secretstorage  # not at start: only who imports needs it, and on Linux only

    return secretstorage.dbus_init()


def _in_collection(connect: Callable[[], Any], collection: str, names: tuple[str, ...]) -> tuple[ForeignKey, ...]:
    with closing(connect()) as bus:
        items = [(name, item) for name, item in _items(bus, collection) if not names or name in names]
        _check_count(len(items), f"the collection {shown(collection)}")
        listed = [name for name, _ in items]
        found = [
            ForeignKey(name, wrong="several items have that name; delete all but one in the keyring's own program")
            if listed.count(name) > 1
            else _of_item(name, item)
            for name, item in items
        ]
        return tuple(sorted({each.name: each for each in found}.values(), key=lambda each: each.name))


def _of_item(name: str, item: Any) -> ForeignKey:
    secret = item.get_secret()
    try:
        return ForeignKey(name, _key(secret, name), mark=_mark(secret))
    except _Unfit as exc:
        return _unfit(name, exc)


def _items(bus: Any, collection: str) -> Iterable[tuple[str, Any]]:
    """The keys' items of the collection, which is unlocked first."""
    from secretstorage.collection import Collection, get_all_collections
    from secretstorage.util import open_session

    paths = [each.collection_path for each in get_all_collections(bus)]
    path = next((each for each in paths if of_bus(each) == collection), None)
    if path is None:
        raise NotFound(f"the Secret Service has no collection {shown(collection)}: type {_ELSEWHERE}")
    found = Collection(bus, path, open_session(bus))
    if found.is_locked() and found.unlock(timeout=_UNLOCK_SECONDS):
        raise _locked()
    items = list(found.get_all_items())
    if len(items) > MOST_NAMES:
        raise _too_many(f"more than {MOST_NAMES} items", f"the collection {shown(collection)}")
    named = ((item.get_attributes().get("profile") or item.get_label(), item) for item in items)
    return [(name, item) for name, item in named if is_key(name)]


def _delete_item(connect: Callable[[], Any], collection: str, found: ForeignKey) -> None:
    with closing(connect()) as bus:
        for name, item in _items(bus, collection):
            if name == found.name:
                if _mark(item.get_secret()) != found.mark:
                    raise _changed(name)
                item.delete()


def _translated(exc: Exception) -> VaultdError:
    """By name: jeepney and SecretStorage are optional here. What they say is not repeated."""
    names = {each.__name__ for each in type(exc).__mro__}
    if names & {"LockedException", "PromptDismissedException", "TimeoutError"}:
        return _locked()
    if names & {"ImportError", "SecretServiceNotAvailableException", "FileNotFoundError"}:  # the last: no bus's socket
        return _unavailable()
    return KeyringBusy(f"aws-vault's store failed ({type(exc).__name__}): type `vaultd check`, then {_AGAIN} again.")


def _locked() -> KeyringBusy:
    return KeyringBusy(f"aws-vault's collection is locked: unlock it in the keyring's own program, then type {_AGAIN}.")


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable(f"There is no Secret Service in vaultd's session: type {_ELSEWHERE}.")


# ---- what both hold ----


def _unfit(name: str, exc: _Unfit) -> ForeignKey:
    return ForeignKey(name, wrong=str(exc), ends=isinstance(exc, _Ends))


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _changed(name: str) -> NotImported:
    return NotImported(
        f"{shown(name)} has changed in aws-vault's store since it was imported, so it is not deleted there: type "
        f"{_AGAIN[:-1]} {typed(name)}`"
    )


def _repair(name: str) -> str:
    return f"type `vault-client add {typed(name)}` with the key itself"


def _alone(name: str) -> str:
    return f"type {_AGAIN[:-1]} {typed(name)}`"


def _key(item: bytes, name: str) -> IdentityKey:
    """Of the JSON of a keyring's item, with a JSON of Go's `aws.Credentials` in it. Raises _Unfit."""
    outer = _object(item, name)
    if outer.get("key") != name:
        raise _Unfit(f"what is in it was written for another name; {_repair(name)}")
    try:
        inner = base64.b64decode(str(outer.get("data")), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _Unfit(f"it is damaged; {_repair(name)}") from exc
    fields = _object(inner, name)
    key_id, secret = fields.get("accesskeyid"), fields.get("secretaccesskey")
    if fields.get("sessiontoken"):
        raise _Ends("it is a temporary key, which ends by itself; nothing is to be done")
    if not isinstance(key_id, str) or not re.fullmatch(r"[A-Z0-9]{16,128}", key_id, re.ASCII):
        raise _Unfit(f"it holds no access key id; {_repair(name)}")
    if not isinstance(secret, str) or not re.fullmatch(r"[!-~]+", secret):
        raise _Unfit(f"it holds no secret access key; {_repair(name)}")
    return IdentityKey(name, key_id, Secret(secret))


def _object(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object, its names in lower case: Go reads them in any."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _Unfit(f"it is damaged; {_repair(name)}")
    return {key.lower(): value for key, value in found.items()}
