"""config.toml + ~/.aws/config + the identities' names → one frozen, numbered Catalog (architecture.md §1).

Rule: a GET reads the snapshot and never a file. The files are looked at (stat) at most once a second, and parsed again
only when they changed, in a thread, one parse at a time (10,000 profiles take a second, and the loop serves SDKs); the
loop alone exchanges the snapshot (architecture.md §8). A broken file keeps the last good snapshot and `trouble` says
so. Plans are built when first asked for, once per snapshot: 1,000 profiles cost a parse, not a thousand plans.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from vaultd.config import Settings
from vaultd.errors import BadProfile, Misconfigured, UnknownProfile, VaultdError
from vaultd.files import Files
from vaultd.model.credentials import Identity
from vaultd.model.draft import Draft, Rules
from vaultd.model.endpoints import ENDPOINT_VARIABLES
from vaultd.model.environment import slug
from vaultd.model.ground import Ground, find_ground
from vaultd.model.partitions import account_of
from vaultd.model.plan import Callers, Overrides, Plan
from vaultd.model.planner import make_plan
from vaultd.model.profiles import Chain, Profile, Profiles, parse
from vaultd.model.programs import table_of
from vaultd.model.text import shown

_NO_OVERRIDES = Overrides()
_NEVER = datetime.fromtimestamp(0, tz=UTC)
_LOOK_SECONDS = 1.0
#: No stat is like it.
_UNREAD: tuple[int, ...] = ()
# Overrides carry policies of grants: of their plans the oldest goes before they could fill the memory. Plans without
# are as many as profiles, and all are kept: `list` of more than fit would plan each of them anew.
_MOST_SHAPED = 4096
#: So many profiles, or plans of them, are set aside from the collector: its walk over 1,000 plans takes 5 ms, one over
#: 10,000 held the loop for 0.2 s, six times for one `list`.
_MANY = 1000
#: Plans freed in one turn of the loop: 0.2 ms.
_FREED = 64

_SUMMARY = ("profile", "account_id", "role_arn", "identity", "mfa_serial")


class Boottime(Protocol):
    """The part of the Clock seam that a look needs."""

    def boottime(self) -> float:
        """Seconds that count suspend."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """One snapshot; implements model.plan.Plans. `unread` says why the file cannot be read (the profiles are those of
    before), `fault` too, or that it has no profile.
    """

    number: int
    profiles: Profiles
    rules: Rules
    identities: Mapping[str, Identity]
    problems: tuple[str, ...] = ()
    fault: Misconfigured | None = None
    unread: str | None = None
    _slugs: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _plans: dict[tuple[str, Overrides], Plan] = field(default_factory=dict, repr=False, compare=False)
    _shaped: deque[tuple[str, Overrides]] = field(default_factory=deque, repr=False, compare=False)
    _faults: dict[str, VaultdError] = field(default_factory=dict, repr=False, compare=False)
    _by_cell: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)
    _planned: list[str] = field(default_factory=list, repr=False, compare=False)
    _summaries: dict[str, dict[str, str | None]] = field(default_factory=dict, repr=False, compare=False)

    def names(self) -> tuple[str, ...]:
        """Every profile, in file order."""
        return self.profiles.names()

    def slug(self, profile: str) -> str:
        """The profile's path segment under /v1/credentials/."""
        return slug(profile)

    def by_slug(self, slug: str) -> str | None:
        """The profile of a path segment; None when there is none."""
        if not self._slugs:
            self._slugs.update((self.slug(name), name) for name in self.names())
        return self._slugs.get(slug)

    def plan(self, profile: str, overrides: Overrides = _NO_OVERRIDES) -> Plan:
        """Raises UnknownProfile with the nearest names, UnknownIdentity, BadProfile naming file:line, BadRequest."""
        key = (profile, overrides)
        found = self._plans.get(key)
        if found is None:
            found = self._plain(profile) if overrides == _NO_OVERRIDES else self._make(profile, overrides)
            self._plans[key] = found
            if overrides != _NO_OVERRIDES:
                self._shaped.append(key)
                if len(self._shaped) > _MOST_SHAPED:
                    self._plans.pop(self._shaped.popleft(), None)
        return found

    async def fade(self) -> None:
        """It was replaced: its plans go some at a time, as 10,000 at once hold the loop for 30 ms. Who still holds it
        has them made anew.
        """
        while self._plans:
            for _ in range(min(_FREED, len(self._plans))):
                self._plans.popitem()
            await asyncio.sleep(0)

    def _plain(self, profile: str) -> Plan:
        """What a profile of the file means by itself, or what is wrong with it: found out once."""
        if (fault := self._faults.get(profile)) is not None:
            raise _again(fault)
        try:
            made = self._make(profile, _NO_OVERRIDES)
        except VaultdError as exc:
            if profile in self.profiles.profiles:
                self._faults[profile] = _again(exc)  # not `exc`: its traceback holds frames
            raise
        self._by_cell.setdefault(made.last.fingerprint, []).append(profile)
        self._planned.append(profile)
        if len(self._planned) % _MANY == 0:
            _set_aside()
        return made

    def marked(self, cells: Collection[str]) -> list[str]:
        """Of the profiles that were planned: those whose last step has one of these cells, or that cannot be planned;
        in file order.
        """
        found = {name for cell in cells for name in self._by_cell.get(cell, ())} | self._faults.keys()
        return [name for name in self.names() if name in found] if found else []

    def _make(self, profile: str, overrides: Overrides) -> Plan:
        try:
            return make_plan(self.profiles, self.rules, self.identities, profile, overrides)
        except UnknownProfile:
            # it may stand in the part that cannot be read; a key's name is told as one
            if self.fault is not None and (self.unread or profile not in self.identities):
                raise type(self.fault)(self.fault.message) from None
            raise

    def served_as(self, profile: str) -> str:
        """The profile whose session `list` shows for it: itself, or the one that its credential_process asks us for."""
        return self.profiles.served_as(profile)

    def summary(self, profile: str) -> Mapping[str, str | None]:
        """The static part of interface.md §6's profile, also for a profile that cannot be planned; see `trouble_of`.
        Every string is fit for the wire.
        """
        found = self._summaries.get(profile)
        if found is None:
            found = self._summarised(profile)
            if profile in self.profiles.profiles:
                self._summaries[profile] = found
        return found

    def _summarised(self, profile: str) -> dict[str, str | None]:
        try:
            chain = self.profiles.chain(self.served_as(profile))
        except VaultdError:
            return {
                **dict.fromkeys(_SUMMARY),
                "profile": shown(profile),
            }
        role = next((value for each in chain.profiles if (value := each.get("role_arn"))), None)
        serial = next((value for each in chain.profiles if (value := each.get("mfa_serial"))), None)
        known = self.identities.get(chain.identity)
        listed = self.rules.identity_serials.get(chain.identity)
        return {
            "profile": shown(profile),
            "account_id": account_of(role.text) if role else known.account_id if known else None,
            "role_arn": shown(role.text) if role else None,
            "identity": shown(chain.identity),
            "mfa_serial": shown(serial.text) if serial else listed or (known.mfa_serial if known else None),
        }

    def identity_ground(self, name: str) -> Ground:
        """Device and endpoint of an identity's own calls, also before it was added: by the first profile that ends
        in it, its own section before others. Raises BadProfile and Misconfigured as a plan does.
        """
        known = self.identities.get(name) or Identity(name, "", "", None, "", _NEVER)
        chain = self._ending_in(name) or Chain((Profile(name, 0, {}),), name, None)
        return find_ground(Draft(chain.profiles[0].name, self.profiles, self.rules, chain, known, _NO_OVERRIDES))

    def _ending_in(self, identity: str) -> Chain | None:
        own = [identity] if identity in self.profiles.profiles else []
        for name in (*own, *self.names()):
            with suppress(BadProfile):
                chain = self.profiles.chain(name)
                if chain.identity == identity:
                    return chain
        return None

    def trouble_of(self, profile: str) -> VaultdError | None:
        """Why the profile cannot be planned: what `list` shows beside it, and `explain` says."""
        try:
            self.plan(profile)
        except VaultdError as exc:
            return exc
        return None

    def trouble(self) -> tuple[str, ...]:
        """What of the file cannot be read, or is overlooked: beside every list of its profiles."""
        return (*((self.unread,) if self.unread else ()), *self.problems)


class CatalogWatch:
    """Owns the current Catalog and replaces it when a file or the identities change."""

    def __init__(
        self,
        *,
        files: Files,
        settings: Settings,
        environ: Mapping[str, str],
        config_path: Path,
        identities: Callable[[], tuple[Identity, ...]],
        clock: Boottime,
        settings_path: Path | None = None,
    ) -> None:
        self._files = files
        self._rules = rules_of(settings, environ, settings_file=settings_path.name if settings_path else "config.toml")
        self._listed = tuple(settings.profiles)
        self._config_path = config_path
        self._said_path = said(config_path, environ.get("HOME"))
        self._identities = identities
        self._clock = clock
        self.trouble: str | None = None
        self._looked = clock.boottime()
        self._reading: asyncio.Future[None] | None = None
        nothing = Profiles(self._said_path)
        self._current = Catalog(number=0, profiles=nothing, rules=self._rules, identities={})
        self._fault: Misconfigured | None = None
        self._seen = self._stat()  # before reading: a change in between is seen by the next look
        self._adopt(self._read())

    @property
    def current(self) -> Catalog:
        """The snapshot; no I/O."""
        return self._current

    async def look(self) -> bool:
        """Stat the files, at most once a second; True when there is a new snapshot, or a new `trouble`. Who comes while
        they are read waits for the same reading, looks again, as the file may have changed since that began, and may
        leave at any time.
        """
        joined = self._reading is not None
        if self._reading is None:
            now = self._clock.boottime()
            if now - self._looked < _LOOK_SECONDS:
                return False
            self._looked = now
            if (seen := self._stat()) == self._seen:
                return False
            self._seen = seen
            self._reading = asyncio.ensure_future(self._read_beside())
        reading = self._reading
        await asyncio.wait({reading})
        if reading.cancelled():
            return False
        reading.result()
        if joined:
            await self.look()
        return True

    async def _read_beside(self) -> None:
        try:
            with _uncollected():
                found = await asyncio.to_thread(self._read)
                if isinstance(found, Profiles) and len(found.profiles) >= _MANY:
                    _set_aside()
            before = self._current
            self._adopt(found)
            await before.fade()
        except BaseException:
            self._seen = _UNREAD  # the next look reads it again
            raise
        finally:
            self._reading = None

    def reload(self) -> None:
        """A new snapshot of the same parse: an identity was added or removed. The next look is not put off, and a file
        that could not be read is read again.
        """
        self._looked = self._clock.boottime() - _LOOK_SECONDS
        if self._fault is not None:
            self._seen = _UNREAD
        self._renew(self._current.profiles)

    def _adopt(self, found: Profiles | Misconfigured) -> None:
        """What was read, or why it could not be."""
        self._fault = found if isinstance(found, Misconfigured) else None
        self._renew(self._current.profiles if isinstance(found, Misconfigured) else found)

    def _renew(self, profiles: Profiles) -> None:
        fault = self._fault
        self.trouble = fault.message if fault else None
        if not profiles.names():
            fault = fault or _no_profiles(self._config_path)
        self._current = Catalog(
            number=self._current.number + 1,
            profiles=profiles,
            rules=self._rules,
            identities={each.name: each for each in self._identities()},
            problems=(*profiles.problems, *unlisted(self._listed, profiles, self._rules.settings_file)),
            fault=fault,
            unread=self.trouble,
        )

    def _stat(self) -> tuple[int, ...] | None:
        return self._files.stat_key(self._config_path)

    def _read(self) -> Profiles | Misconfigured:
        """Blocks, and changes nothing here."""
        try:
            content = self._files.read_config(self._config_path)
            return Profiles(self._said_path) if content is None else profiles_in(content, self._said_path)
        except Misconfigured as exc:
            return exc


@contextmanager
def _uncollected() -> Iterator[None]:
    """While a file is parsed, which is a second at most: a walk over what is not done yet finds nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _set_aside() -> None:
    """What lives now is walked over no more. A snapshot holds no cycle, so it goes with whoever held it last, set aside
    or not.
    """
    gc.freeze()


def _again(fault: VaultdError) -> VaultdError:
    return type(fault)(fault.message, **fault.details)


def rules_of(settings: Settings, environ: Mapping[str, str], *, settings_file: str = "config.toml") -> Rules:
    """What the planner needs of config.toml and of the daemon's environment."""
    return Rules(
        mfa_duration=settings.sessions.mfa_duration,
        role_session_name=settings.sessions.role_session_name,
        region_fallback=settings.aws.sts_region_fallback,
        endpoint_allow=settings.aws.endpoint_allow,
        identity_regions={name: each.region for name, each in settings.identities.items() if each.region},
        identity_serials={name: each.mfa_serial for name, each in settings.identities.items() if each.mfa_serial},
        mfa_max_age={name: each.mfa_max_age for name, each in settings.profiles.items() if each.mfa_max_age},
        callers={
            name: Callers(each.protected, each.allow_executables, each.relays)
            for name, each in settings.profiles.items()
        },
        environ={name: environ[name] for name in ENDPOINT_VARIABLES if environ.get(name)},
        settings_file=settings_file,
    )


def profiles_in(content: bytes, file: str) -> Profiles:
    """Raises BadProfile: not text, or not an AWS config file."""
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise BadProfile(f"{file}:{line}: this is not UTF-8 text; save it as UTF-8.") from exc
    return parse(text, file=file)


def unlisted(names: Iterable[str], profiles: Profiles, settings_file: str) -> tuple[str, ...]:
    """`[profiles.NAME]` of config.toml for a profile that is not there protects nothing: said, not guessed."""
    return tuple(
        f"{settings_file} {table_of(name)} names no profile of {profiles.file}, so nothing is done by it: "
        f"{_instead(name, profiles)}remove the table, then type `vaultd restart`"
        for name in names
        if name not in profiles.profiles
    )


def _instead(name: str, profiles: Profiles) -> str:
    close = profiles.index().close(name, most=1)
    return f"write `{table_of(close[0])}` or " if close else "correct the name or "


def said(path: Path, home: str | None) -> str:
    """`~/.aws/config` as people write it; any other path whole, so that it can be opened from the message."""
    return f"~/{path.relative_to(home)}" if home and path.is_relative_to(home) else str(path)


def _no_profiles(path: Path) -> Misconfigured:
    return Misconfigured(f"{path} has no profile: write `[profile NAME]` with role_arn and source_profile into it")
