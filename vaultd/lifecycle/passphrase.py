"""Where the file store's passphrase is on file, and what to tell a person when that file does not do.

Rule: every sentence names the file, because a daemon that starts locked in spite of it is a riddle otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vaultd.errors import Misconfigured
from vaultd.files import Files
from vaultd.model.secret import Secret

_OR = "and type `vaultd restart`, or type `vault-client unlock`"


class PassphraseFile:
    """VAULTD_PASSPHRASE_FILE, or the service manager's credential `vaultd-passphrase`; or neither."""

    def __init__(self, files: Files, environ: Mapping[str, str]) -> None:
        named, directory = environ.get("VAULTD_PASSPHRASE_FILE"), environ.get("CREDENTIALS_DIRECTORY")
        self._files = files
        self._named = bool(named)
        self._path = Path(named) if named else Path(directory) / "vaultd-passphrase" if directory else None

    def read(self) -> Secret | None:
        """The passphrase, one newline stripped; None where there is none. FileRefused: others may read or write it."""
        content = None if self._path is None else self._files.read_secret(self._path, delivered=not self._named)
        phrase = (content or b"").removesuffix(b"\n")
        return Secret(phrase) if phrase else None

    def missing(self, *, new: bool = False) -> str:
        """Why `read` gave none although a file is named; empty where none is. `new`: there is no store yet."""
        if self._path is None or not (self._named or self._path.exists()):
            return ""
        if not self._named:  # `vaultd service install` has an empty one stand in for a file that is gone
            return (
                f"the service manager's credential {self._path.name} is empty: put the file back that LoadCredential= "
                f"of its unit names {_OR}"
            )
        state = "holds no passphrase" if self._path.exists() else "is not there"
        remedy = f"write the passphrase into it {_OR}{', which sets a new one' if new else ''}"
        return f"{self._path}, which VAULTD_PASSPHRASE_FILE names, {state}: {remedy}"

    def wrong(self) -> str:
        """What was read does not open the store; empty where no file is named."""
        if self._path is None:
            return ""
        if not self._named:  # a copy that the service manager made
            return (
                f"the service manager's credential {self._path.name} does not open the store: write the right one "
                f"into the file that LoadCredential= of its unit names {_OR}"
            )
        return f"the passphrase in {self._path} does not open the store: write the right one into it {_OR}"

    def check(self) -> None:
        """Raises FileRefused, or Misconfigured for a file that is named and gives nothing."""
        if self.read() is None and (missing := self.missing()):
            raise Misconfigured(missing)
