"""Programs that call, and what a profile says of them: relays, `allow_executables`, `protected` (security.md §5).

Rules
- The kernel's word on an executable is its path and its file (device and inode); a script's path is the process's own
  word, forgeable by code of the same user.
- A relay looks like a local program and lets others in: a container, a virtual machine, the far end of a tunnel. It is
  told by name, so a renamed one passes; that is friction for accidents, not a wall against same-user code.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from typing import Final

from vaultd.model.peer import Peer
from vaultd.model.text import shown

#: Family, as `relays` names it, and the names of its executables (security.md §5; Debian's socat is socat1).
RELAYS: Final[dict[str, tuple[str, ...]]] = {
    "ssh": ("ssh",),
    "sshd": ("sshd", "sshd-session"),
    "docker-proxy": ("docker-proxy",),
    "com.docker": ("com.docker.*",),
    "vpnkit": ("vpnkit*",),
    "gvproxy": ("gvproxy*",),
    "slirp4netns": ("slirp4netns",),
    "pasta": ("pasta", "pasta.*"),
    "passt": ("passt", "passt.*"),
    "rootlesskit": ("rootlesskit",),
    "rootlessport": ("rootlessport",),
    "conmon": ("conmon",),
    "socat": ("socat", "socat[0-9]"),
    "ncat": ("ncat",),
    "ngrok": ("ngrok",),
    "cloudflared": ("cloudflared",),
    "tailscaled": ("tailscaled",),
    "qemu": ("qemu*",),
    "VBoxHeadless": ("VBoxHeadless",),
    "kubectl": ("kubectl",),
    "code-tunnel": ("code-tunnel",),
}

#: All of them at once, for a scan that looks at the name of each process.
_ANY_RELAY: Final = re.compile("|".join(translate(each) for names in RELAYS.values() for each in names))
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
#: What the kernel appends to the path of a running program whose file is gone (an upgrade, for example).
_DELETED: Final = " (deleted)"

#: Device, inode, change time and size: another file, or the same one changed, is another program. Nobody but root sets
#: a change time, so this is as good as a hash for a consent of some hours, and costs 2 µs instead of 100 ms.
FileId = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Program:
    """A running program. `exe` is the kernel's path; `script` what an interpreter runs, by its own word."""

    peer: Peer
    exe: str
    file: FileId | None
    script: str | None = None
    script_file: FileId | None = None
    #: Its family in RELAYS, by executable or by script; None: no relay that is known. Told once: 40 patterns.
    relay: str | None = field(init=False)

    def __post_init__(self) -> None:
        """Look its names up."""
        family = relay_family(self.name) or (relay_family(name_of(self.script)) if self.script else None)
        object.__setattr__(self, "relay", family)

    @property
    def name(self) -> str:
        """The executable's name, without directories."""
        return name_of(self.exe)

    @property
    def path(self) -> str:
        """What a person would write into `allow_executables`."""
        return shown(self.script or self.exe.removesuffix(_DELETED))

    @property
    def key(self) -> tuple[object, ...]:
        """What a consent is for: this file at this path, running this script."""
        return self.exe, self.file, self.script, self.script_file


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up of a socket's holder came to. `hidden` are names of processes that may not be looked into
    (not dumpable), one of which may be it.
    """

    program: Program | None = None
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """`[profiles.NAME]`: which programs of this user may call."""

    protected: bool = False
    allow: tuple[str, ...] | None = None
    relays: frozenset[str] = frozenset()

    @property
    def strict(self) -> bool:
        """Who cannot be told is refused; without it he is served, being of this user."""
        return self.protected or self.allow is not None

    def refused_relay(self, found: Found) -> str | None:
        """The family of a relay that is not allowed here: the caller, or one that may be it."""
        known = found.program
        families = map(relay_family, found.hidden) if known is None else (known.relay,)
        return next((each for each in families if each is not None and each not in self.relays), None)


def relay_family(name: str) -> str | None:
    """The family of an executable's name; None when it is none."""
    return next((family for family, names in RELAYS.items() if any(fnmatchcase(name, each) for each in names)), None)


def may_relay(name: str) -> bool:
    """Whether an executable's name is one of a family; half a microsecond."""
    return _ANY_RELAY.match(name) is not None


def table_of(profile: str) -> str:
    """`[profiles.NAME]` as TOML has it: a name with other characters is quoted."""
    name = profile if _BARE_KEY.fullmatch(profile) else json.dumps(shown(profile), ensure_ascii=False)
    return f"[profiles.{name}]"


def name_of(path: str) -> str:
    """An executable's name, without directories."""
    return path.removesuffix(_DELETED).rpartition("/")[2]
