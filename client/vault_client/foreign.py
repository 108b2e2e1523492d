"""Where `import` takes keys from: the AWS CLI's credentials file, which is read here, and aws-vault's stores, which the
daemon's keeper reads: their secrets do not come through this process.

Rule: both give rows, store one, delete one, in the same words. A passphrase comes from the terminal or stdin, never
from argv or the environment.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH100, PTH112, PTH118
from __future__ import annotations

import os

from vault_client.credentials_file import KEY_LINES, Removal, sections
from vault_client.errors import NEEDS_PERSON, USAGE, Stop
from vault_client.keys import checked, stored
from vault_client.link import quoted
from vault_client.places import aws_credentials
from vault_client.sessions import stdin_line
from vault_client.tables import clean, typed
from vault_client.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vault_client.cli import Call

_LONGEST_NAME = 128
#: Backends of aws-vault that are not read; with what each is opened differs, and `aws-vault exec` opens all.
_UNREAD = frozenset({"kwallet", "pass", "keychain", "keyctl", "wincred", "op", "op-connect", "op-desktop"})


class Row:
    """One key: its name there, the identity's here, the last 4 of its id, and what is to be said of it. `like`: the
    identity that has the same key already.
    """

    __slots__ = ("ending", "identity", "like", "message", "name", "state")

    def __init__(self, name: str, identity: str, ending: str, state: str, message: str = "") -> None:
        self.name = name
        self.identity = identity
        self.ending = ending
        self.state = state
        self.message = message
        self.like = ""

    def akin(self, answer: dict[str, Any], where: str) -> Row:
        """What the daemon says of that key under other names. An old one is not stored again."""
        self.like = clean(answer.get("like") or "")
        if answer.get("old") is True and self.like:
            self.state = "old"
            self.message = (f"it is the old key of {self.like}, which was rotated, and is not stored again: once "
                            f"nothing uses it any more, delete it in {where}")  # fmt: skip
        return self


def called(name: str) -> str:
    """The identity's name, as the daemon makes it (vaultd.model.importing); "" where none can be made."""
    made = name if _fits(name) else name.replace("/", "-").replace("\\", "-").lstrip("-.")
    return made if _fits(made) else ""


def _fits(name: str) -> bool:
    short = 0 < len(name) <= _LONGEST_NAME
    return short and not name.startswith("-") and not {"/", "\\"} & set(name) and clean(name) == name


def again(call: Call) -> str:
    """The command as it was typed, for whoever is to type it again."""
    options = [f" --{name}" for name in ("delete-source", "stdin", "json") if call.flag(name)]
    if backend := call.value("backend"):
        options.insert(0, f" --backend {typed(backend)}")
    return f"vault-client import {' '.join(typed(each) for each in call.operands)}{''.join(options)}"


class AwsCredentials:
    """~/.aws/credentials, or what AWS_SHARED_CREDENTIALS_FILE names."""

    name = "aws-credentials"
    weak = "what lay in a file in clear may have been read by any program of yours"

    def __init__(self, call: Call) -> None:
        for option in ("backend", "stdin"):
            if call.value(option) is not None:
                raise Stop(f"import: --{option} is for aws-vault: leave it out", USAGE)
        self._call = call
        self._path = aws_credentials(call.environ)
        self._sections: dict[str, dict[str, str]] = {}
        self.where = clean(self._path)
        self.left = f"the keys are still in {self.where} in clear"

    def rows(self, names: Sequence[str]) -> list[Row]:
        """Of each section with a key."""
        self._sections = sections(self._path, otherwise="type the key in with `vault-client add IDENTITY`")
        meant = [name for name, section in self._sections.items() if name in names or not names]
        listed = self._call.link.call("GET", "/v1/identities")["identities"]
        held, endings = {each["name"] for each in listed}, _endings(listed)
        return [self._row(name, held, endings) for name in meant if set(KEY_LINES) & set(self._sections[name])]

    def _row(self, name: str, held: set[str], endings: set[str]) -> Row:
        section, identity = self._sections[name], called(name)
        if section.get("aws_session_token") or section.get("aws_security_token"):
            return Row(name, identity, "", "temporary", "it is a temporary key, which ends by itself")
        try:
            key = self._key(name)
        except Stop as stop:
            return Row(name, identity, "", "wrong", stop.message)
        ending = key["AccessKeyId"][-4:]
        if not identity:
            return Row(name, "", ending, "wrong", "no identity can have its name; type `vault-client add IDENTITY "
                       "--from-env` with the key in the environment")  # fmt: skip
        if identity not in held and ending not in endings:
            return Row(name, identity, ending, "new")
        answer = self._compared(identity, key)
        if answer.get("same") is True:
            return Row(name, identity, ending, "same")
        return Row(name, identity, ending, "taken" if identity in held else "new").akin(answer, self.where)

    def _key(self, name: str) -> dict[str, str]:
        section = self._sections[name]
        key_id, secret = (section.get(line, "") for line in KEY_LINES)
        return checked({"AccessKeyId": key_id, "SecretAccessKey": secret})

    def _same(self, identity: str, key: dict[str, str]) -> bool:
        return self._compared(identity, key).get("same") is True

    def _compared(self, identity: str, key: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = self._call.link.call("POST", f"/v1/identities/{quoted(identity)}/compare", key)
        return answer

    def known(self) -> list[str]:
        """Every section."""
        return list(self._sections)

    def forget(self) -> None:
        """There is no passphrase."""

    def doomed(self, rows: Sequence[Row]) -> str:
        """The lines that go."""
        return Removal(self._path, [row.name for row in rows]).diff()

    def store(self, row: Row, *, again: str) -> dict[str, Any]:
        """By the way of `add`."""
        body: dict[str, Any] = {"name": row.identity, **self._key(row.name)}
        if serial := self._sections[row.name].get("mfa_serial"):
            body["MfaSerial"] = serial
        return stored(self._call, "/v1/identities", body, again=again)

    def discard(self, row: Row) -> None:
        """The lines of one section's key, when the store gave that key back and the file still has it."""
        key = self._key(row.name)
        if not self._same(row.identity, key):
            raise Stop("the store did not give that key back: look at it with `vault-client identities`")
        removal = Removal(self._path, [row.name])
        now = sections(self._path, otherwise="delete the key there yourself").get(row.name, {})
        if {line: now.get(line) for line in KEY_LINES} != {line: self._sections[row.name].get(line)
                                                           for line in KEY_LINES}:  # fmt: skip
            raise Stop(f"[{clean(row.name)}] was changed meanwhile: type the same again")
        removal.apply()


def _endings(identities: list[dict[str, Any]]) -> set[str]:
    """Of every key that is stored: only one with such an ending can be the same."""
    old = (each.get("rotation") or {} for each in identities)
    return {str(each.get("access_key_id")) for each in identities} | {str(each.get("old_key")) for each in old}


class AwsVault:
    """aws-vault's files or its collection of the Secret Service."""

    name = "aws-vault"
    weak = "aws-vault's files and backups of them can be guessed at fast (PBKDF2 with 8,192 rounds)"

    def __init__(self, call: Call) -> None:
        self._call = call
        self._passphrase: str | None = None
        self._found: list[Row] = []
        self._backend, self._place = _store(call)
        if self._backend == "file":
            self.where = f"aws-vault's files in {clean(self._place)}"
        else:
            self.where = f"aws-vault's collection {clean(self._place)} of the Secret Service"
            self.weak = "a key that was in another program's store may be in copies of that"
        self.left = f"the keys are still in {self.where}"

    def rows(self, names: Sequence[str]) -> list[Row]:
        """As the daemon sees them; it is told the names, so that one of 10,000 can be had."""
        body = {**self._body(), "names": list(names)}
        answer = self._call.link.call("POST", "/v1/imports/aws-vault", body)
        fields = ("name", "identity", "access_key_id", "state", "message")
        self._found = [
            Row(*(str(each.get(field) or "") for field in fields)).akin(each, self.where) for each in answer["keys"]
        ]
        return self._found

    def known(self) -> list[str]:
        """Of a file store every name there is, as far as it can be read here."""
        if self._backend != "file":
            return [row.name for row in self._found]
        try:
            return [name.replace("%2F", "/").replace("%25", "%") for name in os.listdir(self._place)]  # noqa: PTH208
        except OSError:
            return []

    def forget(self) -> None:
        """The passphrase was wrong."""
        self._passphrase = None

    def doomed(self, rows: Sequence[Row]) -> str:
        """The entries that go."""
        return f"--- {self.where}\n" + "".join(f"-{clean(row.name)} (…{row.ending})\n" for row in rows)

    def store(self, row: Row, *, again: str) -> dict[str, Any]:
        """The keeper reads it, verifies and stores it."""
        return stored(self._call, "/v1/imports/aws-vault/adopt", {**self._body(), "name": row.name}, again=again)

    def discard(self, row: Row) -> None:
        """The keeper compares first."""
        self._call.link.call("POST", "/v1/imports/aws-vault/discard", {**self._body(), "name": row.name})

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"backend": self._backend, "place": self._place}
        if self._backend == "file":
            if self._passphrase is None:
                self._passphrase = self._asked()
            body["passphrase"] = self._passphrase
        return body

    def _asked(self) -> str:
        same = f"`{again(self._call)}`"
        if self._call.flag("stdin"):
            return stdin_line()
        terminal = Terminal.find(f"{same} again")
        if terminal is None:
            raise Stop(f"there is no terminal to ask for the passphrase on: type `{again(self._call)} --stdin --yes` "
                       f"with it as one line of stdin", NEEDS_PERSON)  # fmt: skip
        with terminal:
            given = terminal.ask(f"Passphrase of {self.where}: ")
        if not given:
            raise Stop(f"no passphrase was given: type {same} again")
        return given


def _store(call: Call) -> tuple[str, str]:
    """(backend, place) as aws-vault itself finds them: options, then its environment, then where something is."""
    environ, chosen = call.environ, call.value("backend")
    if chosen is not None and chosen not in {"file", "secret-service"}:
        raise Stop(f"import: --backend is file or secret-service, not {clean(chosen)[:40]}: choose one", USAGE)
    backend = chosen or environ.get("AWS_VAULT_BACKEND") or ""
    if backend in _UNREAD:
        raise Stop(
            f"aws-vault keeps its keys in {clean(backend)} (AWS_VAULT_BACKEND), which is not read: for each, type "
            f"`aws-vault exec --no-session NAME -- vault-client add NAME --from-env`"
        )
    directory = _directory(environ.get("AWS_VAULT_FILE_DIR") or "~/.awsvault/keys", environ.get("HOME") or "~")
    if not backend:
        backend = "file" if os.path.isdir(directory) and os.listdir(directory) else "secret-service"  # noqa: PTH208
    if backend not in {"file", "secret-service"}:
        raise Stop(f"AWS_VAULT_BACKEND={typed(backend)} is no backend of aws-vault's: choose with --backend file or "
                   f"--backend secret-service")  # fmt: skip
    return backend, (
        directory if backend == "file" else environ.get("AWS_VAULT_SECRET_SERVICE_COLLECTION_NAME") or "awsvault"
    )


def _directory(path: str, home: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = os.path.join(os.path.expanduser(home), path[2:])  # noqa: PTH111
    return os.path.abspath(path)
