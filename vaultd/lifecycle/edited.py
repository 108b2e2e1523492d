"""Whether config.toml says something else by now than the daemon goes by, which reads it once, when it starts.

Rule: what is compared is what a restart would make of it: a comment or another order of lines is no change. The file is
read again only where its stat differs from the last look's, since every `status` asks.
"""

from __future__ import annotations

from vaultd.errors import VaultdError
from vaultd.lifecycle.surroundings import Surroundings, read_settings


class Edited:
    """Owns the last look at the file."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._path = around.settings_path or around.layout.config_toml
        self._looked: tuple[tuple[int, ...] | None] | None = None
        self._said = ""

    def said(self) -> str:
        """A sentence that ends in what to type; empty while a restart would change nothing."""
        if not self._around.settings_read:
            return ""
        seen = (self._around.files.stat_key(self._path),)
        if seen != self._looked:
            self._looked, self._said = seen, self._look()
        return self._said

    def _look(self) -> str:
        around, settings = self._around, self._around.settings
        port = settings.listen.port if around.port_given else None
        changed = f"{self._path} was changed after vaultd started, which goes by what it said then"
        try:
            now = read_settings(around.files, around.layout, around.environ, port=port, config=around.settings_path)
        except VaultdError:
            return f"{changed} and would not start with it now: see why with `vaultd check`"
        return "" if now == settings else f"{changed}: type `vaultd restart`"
