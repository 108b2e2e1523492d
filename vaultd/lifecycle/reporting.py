"""What the daemon says of itself: to `vaultd start`, in GET /v1/status, and as the diagnoses of `vaultd check`.

Rule: a sentence that is shown ends in what to type, and what is broken is said until it is mended.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any

from vaultd import __version__, checks
from vaultd.catalog import CatalogWatch
from vaultd.engine.audit import Audit
from vaultd.engine.broker import Broker
from vaultd.engine.seams import Outlook
from vaultd.lifecycle.edited import Edited
from vaultd.lifecycle.surroundings import Surroundings
from vaultd.lifecycle.unlocking import Unlocking
from vaultd.model.text import counted


class Reporting:
    """`notices`: what a person should know once, at the start. `found`: what was seen to be wrong when it began."""

    def __init__(
        self,
        *,
        around: Surroundings,
        outlook: Outlook,
        broker: Broker,
        audit: Audit,
        unlocking: Unlocking,
        watch: Callable[[], CatalogWatch],
        doors: Callable[[], Iterable[str]],
        presence: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._around = around
        self._outlook = outlook
        self._broker = broker
        self._audit = audit
        self._unlocking = unlocking
        self._watch = watch
        self._doors = doors
        self._presence = presence
        self._edited = Edited(around)
        self.notices: tuple[str, ...] = around.settings.notices
        self.found: tuple[str, ...] = ()

    def status(self, port: int) -> dict[str, Any]:
        """What is true of the daemon itself."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "keeper_pid": self._outlook.residence().pid,
            "port": port,
            "port_given": self._around.port_given,
            "config_given": None if self._around.settings_path is None else str(self._around.settings_path),
            "store": self._unlocking.store,
            "locked": self._shut,
            "locked_reason": self._locked_reason,
            "locked_by": (self._unlocking.locked_by or None) if self._broker.locked else None,
            "clock_skew_seconds": self._outlook.skew(),
            "lost_audit_lines": self._audit.lost,
            "log": str(self._around.layout.log_file),
            "keyless": list(self._unlocking.keyless),
            "trouble": [*self._trouble(), *self._edits, *self._around.settings.notices],
        }

    def introduction(self, port: int, *, identities: int) -> dict[str, Any]:
        """The status, and what `vaultd start` needs to say the next step."""
        layout = self._around.layout
        by_person = self._around.files.read(layout.locked_marker) is not None
        return {
            **self.status(port),
            "identities": identities,
            "warnings": [*self.notices, *self._unserved(), *self.warnings],
            "wants_passphrase": self._broker.locked and self._unlocking.store == "file" and not by_person,
            "new_store": not layout.secrets_sealed.exists(),
        }

    async def checks(self, port: int) -> list[dict[str, Any]]:
        """Every diagnosis, with what only a running daemon knows."""
        live = checks.Live(
            port=port,
            skew_seconds=self._outlook.skew(),
            residence=self._outlook.residence(),
            keyring=self._asking_for_keyring(),
            locked_reason=self._locked_reason,
            trouble=(*self._presence(), *self._unlocking.store_warnings),
            lost_audit_lines=self._audit.lost,
            settings_path=self._around.settings_path,
            edited=self._edited.said(),
            audit=(*self.found, *self._unlocking.audit_warnings),
            head=self._audit.head,
        )
        around = self._around
        found = await asyncio.to_thread(checks.run, around.layout, around.files, around.environ, live=live)
        return [each.wire() for each in found]

    @property
    def _edits(self) -> tuple[str, ...]:
        return (said,) if (said := self._edited.said()) else ()

    def _asking_for_keyring(self) -> Callable[[], str | None]:
        """For the thread of the checks: the keeper looks for the keyring, which this process need not know."""
        loop = asyncio.get_running_loop()
        return lambda: asyncio.run_coroutine_threadsafe(self._outlook.keyring(), loop).result()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong and stays so until mended."""
        keeper = [each for each in self._outlook.residence().warnings if each not in self.notices]
        return (*self.found, *keeper, *self._doors(), *self._presence(), *self._unlocking.warnings)

    @property
    def _locked_reason(self) -> str:
        return self._unlocking.reason if self._shut else ""

    @property
    def _shut(self) -> bool:
        """Somebody has to unlock it; when only the keeper is shut, what is at hand is served on."""
        return self._broker.locked or self._broker.stranded

    def _trouble(self) -> list[str]:
        """The worst first."""
        reason, lost = self._locked_reason, self._audit.lost
        said = f"{counted(lost, 'audit line')} could not be written: make room, then type `vaultd check`"
        return [*([reason] if reason else []), *([said] if lost else []), *self._unserved(), *self.warnings]

    def _unserved(self) -> list[str]:
        """What is wrong with the profiles."""
        watch = self._watch()
        return [*([watch.trouble] if watch.trouble else []), *watch.current.problems]
