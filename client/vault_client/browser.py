"""Which browser opens an address here, and how it is started.

Rules
- $BROWSER first (commands by colons, `%s` for the address), then what the system has: `open` on macOS, `wslview` from
  WSL, `xdg-open` and the browsers themselves where there is a display. Over SSH only $BROWSER.
- `--container` gives each profile cookies of its own, so that two accounts are open side by side: a Firefox container
  (by the add-on "Open external links in a container"), or a Chrome profile.
- It is started in a session of its own, with no terminal, and without the AWS variables of this shell.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH110, PTH119
from __future__ import annotations

import os
import sys

from vault_client.errors import Stop
from vault_client.link import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from subprocess import Popen

_OPENERS = ("xdg-open", "gio", "sensible-browser", "x-www-browser")
_FIREFOXES = ("firefox", "firefox-esr", "librewolf")
_CHROMES = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "brave-browser", "microsoft-edge")
_MAC = {"Firefox": "/Applications/Firefox.app", "Google Chrome": "/Applications/Google Chrome.app"}
_LONGEST_NAME = 100
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


class Browser:
    """A command with `%s` where the address goes. `outside`: it is no process of this system (Windows's, from WSL)."""

    def __init__(self, command: list[str], *, outside: bool = False) -> None:
        self._command = command if any("%s" in word for word in command) else [*command, "%s"]
        self.outside = outside
        self._process: Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """For a sentence."""
        return os.path.basename(self._command[0])

    def start(self, address: str, environ: Mapping[str, str]) -> bool:
        """False when it cannot be started at all."""
        import subprocess

        argv = [self._command[0], *(word.replace("%s", address) for word in self._command[1:])]
        kept = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the owner's own browser, without a shell
                argv,
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return False
        return True

    def failed(self) -> bool:
        """It ended, and not well. One that ended well has handed the address on."""
        return self._process is not None and (self._process.poll() or 0) != 0


def find(environ: Mapping[str, str]) -> list[Browser]:
    """What may open an address here, best first; empty where nobody would see it."""
    named = [Browser(each, outside=_outside(each, environ)) for each in _named(environ)]
    if named or environ.get("SSH_CONNECTION"):
        return named
    if sys.platform == "darwin":
        return [Browser(["open"])]
    if in_wsl(environ):
        return [Browser([found], outside=True) for found in _there(("wslview",), environ)]
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return []
    found = _there((*_OPENERS, *_FIREFOXES, *_CHROMES), environ)
    return [Browser([each, "open"] if os.path.basename(each) == "gio" else [each]) for each in found]


def contained(environ: Mapping[str, str], profile: str) -> list[Browser]:
    """The same, with cookies of this profile's own. Raises Stop where no browser is known to do that."""
    if not find(environ):
        return []
    made = [
        each
        for command in _candidates(environ)
        if (each := _contained(command, profile, outside=_outside(command, environ))) is not None
    ]
    if not made:
        raise Stop("neither Firefox nor a Chrome is here to keep a profile's cookies apart: leave out --container, or "
                   "set BROWSER to one of them")  # fmt: skip
    return made


def _candidates(environ: Mapping[str, str]) -> list[list[str]]:
    if named := _named(environ):
        return named
    if sys.platform == "darwin":
        return [["open", "-na", name, "--args"] for name, place in _MAC.items() if os.path.exists(place)]
    return [[each] for each in _there((*_FIREFOXES, *_CHROMES), environ)]


def _contained(command: list[str], profile: str, *, outside: bool) -> Browser | None:
    known = " ".join(os.path.basename(word).lower() for word in command if word != "%s")
    bare = [word for word in command if word != "%s"]
    if any(each in known for each in ("firefox", "librewolf")):
        # The address within the add-on's own: had the add-on not been there, Firefox would search the web for it, and
        # what a search engine is told so is an address of this machine that ends within seconds.
        return Browser([*bare, f"ext+container:name={quoted(profile)}&url=%s"], outside=outside)
    if any(each in known for each in ("chrom", "brave", "edge")):
        return Browser([*bare, f"--profile-directory=vaultd-{_directory(profile)}", "%s"], outside=outside)
    return None


def _directory(profile: str) -> str:
    """A directory that no other profile has: with its cookies, one would be signed in as that one."""
    kept = "".join(char if char in _NAME else "_" for char in profile)[:_LONGEST_NAME]
    if kept == profile:
        return kept
    import hashlib

    return f"{kept}-{hashlib.sha256(profile.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _named(environ: Mapping[str, str]) -> list[list[str]]:
    """$BROWSER, as far as it can be read; `%%` and `%c` are nobody's any more."""
    import shlex

    commands = []
    for each in environ.get("BROWSER", "").split(os.pathsep):
        try:
            words = shlex.split(each)
        except ValueError:
            continue
        if words:
            commands.append(words)
    return commands


def _there(names: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    import shutil

    return [found for name in names if (found := shutil.which(name, path=environ.get("PATH", ""))) is not None]


def _outside(command: list[str], environ: Mapping[str, str]) -> bool:
    """Windows's own, as BROWSER names it: what comes for the address is the relay of WSL, which runs as root."""
    name = os.path.basename(command[0]).lower()
    return in_wsl(environ) and (name == "wslview" or name.endswith(".exe"))


def in_wsl(environ: Mapping[str, str]) -> bool:
    """Windows Subsystem for Linux: the browser is Windows's."""
    return bool(environ.get("WSL_DISTRO_NAME"))
