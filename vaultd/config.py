"""`config.toml` → frozen `Settings`, the sections of interface.md §7.

Rule: an unknown key, a wrong type or a bare number for a duration is Misconfigured (78), naming file:line, the key and
the nearest known one, or its table. A key of a part that does not exist yet is never taken in silence: it is a notice,
since nothing that it would shut stays open.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vaultd import config_refusal
from vaultd.errors import Misconfigured
from vaultd.model.programs import RELAYS, table_of

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+)([smhd])")
#: No duration of ours is meant to be longer, and a date that it is added to has to exist.
_LONGEST = timedelta(days=3650)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")

#: What `[sessions] role_session_name` may name.
SESSION_NAME_FIELDS = ("iam_user", "identity", "profile")


def _parse_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a duration is a number and its unit; write "90s", "30m", "12h" or "7d"')
    number = match[1].lstrip("0") or "0"
    return timedelta(seconds=int(number) * _UNITS[match[2]]) if len(number) <= 9 else timedelta.max


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError('write a duration above zero, such as "30s"')
    if value > _LONGEST:
        raise ValueError('it is longer than 3650 days; write "3650d" or less')
    return value


def _parse_duration_or_never(value: object) -> timedelta | None:
    if value is None or value == "never":
        return None
    try:
        return _positive(_parse_duration(value))
    except ValueError as exc:
        raise ValueError(f'{exc}, or "never"') from exc


def _mfa_duration(value: timedelta) -> timedelta:
    if not timedelta(seconds=900) <= value <= timedelta(hours=36):
        raise ValueError('GetSessionToken takes 15 minutes to 36 hours; write "15m" to "36h"')
    return value


def _hold_max(value: timedelta) -> timedelta:
    if not timedelta(seconds=1) <= value <= timedelta(seconds=120):
        raise ValueError('a request is held for 1 to 120 seconds; write "1s" to "120s"')
    return value


def _session_name(value: str) -> str:
    rest = _PLACEHOLDER.sub("", value)
    unknown = [name for name in _PLACEHOLDER.findall(value) if name not in SESSION_NAME_FIELDS]
    if unknown or not value or "{" in rest or "}" in rest:
        raise ValueError('it knows {iam_user}, {identity} and {profile}; write "{iam_user}"')
    return value


def _region(value: str) -> str:
    if not _REGION.fullmatch(value):
        raise ValueError('it is not a region; write one such as "eu-west-1"')
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError('it takes hosts without scheme or path; write "sts.corp.example" or "sts.corp.example:8443"')
    return value.lower()


def _program(value: str) -> str:
    """A path that means one file wherever the daemon was started."""
    if not value.startswith(("/", "~/")) or "\0" in value:
        raise ValueError(f'{value!r} is no full path; write one such as "/usr/bin/terraform"')
    return value


def _relay(value: str) -> str:
    if value not in RELAYS:
        raise ValueError(f"{value!r} is no relay that vaultd knows; write one of {', '.join(RELAYS)}")
    return value


def _proxy(value: str) -> str:
    """A proxy's URL may carry a password, so no message repeats it."""
    try:
        url = urlsplit(value)
        good = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
        bare = url.path in {"", "/"} and not url.query and not url.fragment
    except ValueError:  # a port that is no number, or above 65535
        good = bare = False
    if not (good and bare) or re.search(r"\s", value):
        raise ValueError('it takes http://HOST[:PORT] or https://HOST[:PORT]; write "http://proxy.example:3128"')
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_positive)]
Never = Annotated[timedelta | None, BeforeValidator(_parse_duration_or_never)]
Region = Annotated[str, AfterValidator(_region)]
Proxy = Annotated[str, AfterValidator(_proxy)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Programs = Annotated[tuple[Annotated[str, AfterValidator(_program)], ...], Field(strict=False)]
Relays = Annotated[tuple[Annotated[str, AfterValidator(_relay)], ...], Field(strict=False)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], Field(strict=False)]


class _Section(BaseModel):
    """Frozen, strict (`"9169"` is no port), and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Listen(_Section):
    """`port` 0 lets the kernel choose one."""

    port: int = Field(default=9169, ge=0, le=65535)


class Aws(_Section):
    """`https_proxy`, `no_proxy` and `ca_bundle` fall back to the environment of `vaultd start`."""

    config_file: str | None = None
    sts_region_fallback: Region | None = None
    endpoint_allow: Hosts = ()
    https_proxy: Proxy | None = None
    no_proxy: str | None = None
    ca_bundle: str | None = None


class Sessions(_Section):
    """`mfa_duration` is GetSessionToken's DurationSeconds: 900 s to 36 h (aws-facts §1.1)."""

    mfa_duration: Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_mfa_duration)] = timedelta(
        hours=12
    )
    persist: bool = True
    role_session_name: Annotated[str, AfterValidator(_session_name)] = "{iam_user}"


class Store(_Section):
    """Where identity keys live, and what locks them."""

    backend: Literal["auto", "keyring", "file"] = "auto"
    lock_after_idle: Never = None
    lock_on_suspend: bool = False
    lock_on_screen_lock: bool = False


class KeeperProcess(_Section):
    """`process`: identity keys, MFA sessions and the data key live in a process of their own, without a listener."""

    process: bool = True


class Prompt(_Section):
    """How a person is asked, and how long an SDK's request waits for the answer (sdk-facts §10.8: 120 s at most)."""

    drivers: Names = ("auto",)
    timeout: Duration = timedelta(seconds=120)
    cancel_cooldown: Duration = timedelta(seconds=120)
    hold: Literal["auto", "off", "always"] = "auto"
    hold_max: Annotated[timedelta, BeforeValidator(_parse_duration), AfterValidator(_hold_max)] = timedelta(seconds=100)


class GrantLimits(_Section):
    """How long a grant lives at most, and without being used."""

    max_age: Duration = timedelta(days=7)
    idle_timeout: Duration = timedelta(hours=24)


class AuditFiles(_Section):
    """`max_bytes` of one file, and how many old ones are kept."""

    max_bytes: int = Field(default=16 * 1024 * 1024, ge=64 * 1024)
    keep: int = Field(default=4, ge=0, le=1000)


class IdentitySettings(_Section):
    """`[identities.NAME]`."""

    mfa_serial: str | None = None
    mfa_process: str | None = None
    region: Region | None = None


class ProfileSettings(_Section):
    """`[profiles.NAME]`; `allow_executables` None: any program of this user may call."""

    protected: bool = False
    mfa_max_age: Duration | None = None
    allow_executables: Programs | None = None
    run_executables: Names = ()
    relays: Relays = ()


#: Of parts that are not there yet, without which nothing is open that should be shut: no program of ours is ever run,
#: and a code is asked for on a terminal only.
_NOT_YET_NOTICED = {
    "prompt": ("drivers",),
    "identities": ("mfa_process",),
    "profiles": ("run_executables",),
}
#: What already is as those parts would have it: a terminal is the only driver.
_TRUE_ALREADY: tuple[object, ...] = (("terminal",),)


class Settings(_Section):
    """The whole of `config.toml`; `Settings()` is what an absent file means."""

    listen: Listen = Listen()
    aws: Aws = Aws()
    sessions: Sessions = Sessions()
    store: Store = Store()
    keeper: KeeperProcess = KeeperProcess()
    prompt: Prompt = Prompt()
    grants: GrantLimits = GrantLimits()
    audit: AuditFiles = AuditFiles()
    identities: dict[str, IdentitySettings] = {}
    profiles: dict[str, ProfileSettings] = {}

    @property
    def notices(self) -> tuple[str, ...]:
        """A sentence for each key that is taken and does nothing yet."""
        return tuple(
            f"{config_refusal.spelled(keys)} is not there yet and changes nothing: remove the line"
            for keys in self.not_there_yet(_NOT_YET_NOTICED)
        )

    def misses(self) -> tuple[str, ...]:
        """A sentence for each entry of `allow_executables` that is no program now. Looks at the files."""
        return tuple(
            f"{table_of(name)} allow_executables lets nobody in by {each!r}, which {why}: correct that path, "
            "then type `vaultd restart`"
            for name, section in self.profiles.items()
            for each in section.allow_executables or ()
            if (why := _no_program(Path(each).expanduser()))
        )

    def not_there_yet(self, table: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The keys of `table` that say something else than what holds anyway."""
        return [(*where, name) for where, section in self._sections(table) for name in _said(section, table[where[0]])]

    def _sections(self, names: Iterable[str]) -> Iterator[tuple[tuple[str, ...], _Section]]:
        for name in names:
            section = getattr(self, name)
            if isinstance(section, dict):
                yield from (((name, each), settings) for each, settings in section.items())
            else:
                yield (name,), section

    def with_environment(self, environ: Mapping[str, str]) -> Settings:
        """What the environment of `vaultd start` adds: proxy and CA where the file says none, VAULTD_STORE over it."""
        aws = self.aws.model_copy(
            update={
                "https_proxy": self.aws.https_proxy or _proxy_of(environ),
                "no_proxy": self.aws.no_proxy or _either(environ, "NO_PROXY", "no_proxy"),
                "ca_bundle": self.aws.ca_bundle or environ.get("AWS_CA_BUNDLE") or None,
            }
        )
        backend = environ.get("VAULTD_STORE") or self.store.backend
        if backend not in {"auto", "keyring", "file"}:
            raise Misconfigured(f"VAULTD_STORE={backend!r} is no store: set VAULTD_STORE=file or VAULTD_STORE=keyring")
        return self.model_copy(update={"aws": aws, "store": self.store.model_copy(update={"backend": backend})})


def _said(section: _Section, names: Iterable[str]) -> list[str]:
    fields = type(section).model_fields
    said = {name: getattr(section, name) for name in names}
    return [name for name, value in said.items() if value != fields[name].default and value not in _TRUE_ALREADY]


def _either(environ: Mapping[str, str], *names: str) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _proxy_of(environ: Mapping[str, str]) -> str | None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        if value := environ.get(name):
            try:
                return _proxy(value)
            except ValueError as exc:
                raise Misconfigured(f"{name} in the environment is refused: {exc}, or type `unset {name}`") from exc
    return None


def load_for(text: str, environ: Mapping[str, str], *, path: str) -> Settings:
    """As `load_settings`, with what the environment adds; raises Misconfigured too where the CA bundle gives none."""
    settings = load_settings(text, path=path)
    whole = settings.with_environment(environ)
    if bundle := whole.aws.ca_bundle:
        where = f"{path}:{config_refusal.line_of(text, ('aws', 'ca_bundle'))}: [aws] ca_bundle"
        _check_bundle(bundle, where if settings.aws.ca_bundle else "AWS_CA_BUNDLE in the environment")
    return whole


def _check_bundle(bundle: str, where: str) -> None:
    """Before the first call to AWS, which would be the first to miss it."""
    if why := _unreadable(Path(bundle)):
        raise Misconfigured(f"{where} is refused: {bundle!r} {why}; write the full path of a PEM file")


def _unreadable(path: Path, *, mode: int = os.R_OK) -> str:
    """Without opening it: a FIFO would hold the start up."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError):
        return "cannot be looked at"
    if not regular:
        return "is not a file"
    return "" if os.access(path, mode) else "may not be read by you"


def _no_program(path: Path) -> str:
    """A script that an interpreter is given (it has a suffix) need not be executable."""
    why = _unreadable(path, mode=os.F_OK if path.suffix else os.X_OK)
    return why.replace("may not be read by you", "is not executable")


def load_settings(text: str, *, path: str) -> Settings:
    """Parse and check; raises Misconfigured naming `path`:line, the key and the nearest known key."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise Misconfigured(config_refusal.syntax_message(str(exc), path=path, lines=text.count("\n") + 1)) from exc
    except (ValueError, RecursionError) as exc:  # what the parser itself does not expect
        said = "a number has more than 4300 digits, or values are nested too deeply"
        raise Misconfigured(config_refusal.syntax_message(said, path=path, lines=text.count("\n") + 1)) from exc
    try:
        settings = Settings.model_validate(content)
    except ValidationError as exc:
        raise Misconfigured(config_refusal.message(exc, model=Settings, text=text, path=path)) from exc
    return settings
