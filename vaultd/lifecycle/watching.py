"""The profiles of a daemon's life: read at its start, looked at while it runs, made anew when an identity changes.

Rule: the config files are never looked at on a GET; a person's command is answered from the file as it is now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaultd.catalog import Catalog, CatalogWatch
from vaultd.layout import Layout
from vaultd.lifecycle.surroundings import Surroundings
from vaultd.model.credentials import Identity

#: The config files are looked at so often while somebody holds a grant, and so often else.
LOOK_SECONDS, IDLE_LOOK_SECONDS = 1.0, 5.0


class Watching:
    """From `begin` on; before it there are no profiles to ask for."""

    def __init__(self, around: Surroundings, *, identities: Callable[[], tuple[Identity, ...]]) -> None:
        self._around = around
        self._identities = identities
        self._watch: CatalogWatch | None = None

    def begin(self) -> None:
        """Read them."""
        around = self._around
        self._watch = CatalogWatch(
            files=around.files,
            settings=around.settings,
            environ=around.environ,
            config_path=self._config_path(),
            identities=self._identities,
            clock=around.clock,
            settings_path=around.settings_path or around.layout.config_toml,
        )

    def _config_path(self) -> Path:
        configured = self._around.settings.aws.config_file
        return Path(configured).expanduser() if configured else Layout.aws_config(self._around.environ)

    @property
    def watch(self) -> CatalogWatch:
        """What is wrong with them, too."""
        assert self._watch is not None
        return self._watch

    def current(self) -> Catalog:
        """The snapshot; no I/O."""
        return self.watch.current

    async def looked(self) -> Catalog:
        """For a person's command: the file as it is now, looked at once a second at most."""
        await self.watch.look()
        return self.watch.current

    def reload(self) -> None:
        """The identities have changed, so plans are made anew."""
        if self._watch is not None:
            self._watch.reload()

    async def run(self, *, held: Callable[[], object], changed: Callable[[], None]) -> None:
        """Look at the files until cancelled; more often while grants are `held`."""
        while True:
            await self._around.clock.sleep(LOOK_SECONDS if held() else IDLE_LOOK_SECONDS)
            if await self.watch.look():
                changed()
