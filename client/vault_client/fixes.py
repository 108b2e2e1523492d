"""`doctor --fix`: what is safe to mend, shown, agreed to, done, and what is left to the person.

Rules
- Safe is what nobody can miss: modes of vaultd's own files, tokens of grants that have ended, and variables of a shell,
  which only that shell can unset: their line goes to stdout for its eval. No byte of ~/.aws is changed.
- Each change is shown before it is made, and looked at again as it is made: a path may have come to mean another file,
  so what is changed is the very file that was seen (device and inode), by no link, and with no other name.
"""

from __future__ import annotations

import os
import stat
import sys

from vault_client.errors import NEEDS_PERSON, UNREACHABLE, Stop
from vault_client.tables import clean, typed
from vault_client.terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from vault_client import shell as shells
    from vault_client.cli import Call
    from vault_client.shadows import Finding

    class Fix(Protocol):
        """A change to a file of ours."""

        path: str

        @property
        def line(self) -> str:
            """What it does, as a person would type it."""
            ...

        def apply(self, call: Call) -> str:
            """Why not; empty when it is done."""
            ...


class Mode:
    """A file or directory that others may read or write. `found`: as it was seen."""

    __slots__ = ("before", "path", "seen", "wanted")

    def __init__(self, path: str, found: os.stat_result, wanted: int) -> None:
        self.path, self.wanted = path, wanted
        self.before, self.seen = stat.S_IMODE(found.st_mode), _same(found)

    @property
    def line(self) -> str:
        """The command, and what is there now."""
        return f"chmod {self.wanted:03o} {typed(self.path)}    (mode {self.before:03o} → {self.wanted:03o})"

    def apply(self, call: Call) -> str:  # noqa: ARG002 - the file tells all
        """By descriptor: what is changed is what was looked at."""
        try:
            number = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            return str(exc.strerror)
        try:
            found = os.fstat(number)
            if not ours(found) or _same(found) != self.seen:
                return "it is another file now"
            os.fchmod(number, stat.S_IMODE(found.st_mode) & self.wanted)
        except OSError as exc:
            return str(exc.strerror)
        finally:
            os.close(number)
        return ""


class Stale:
    """The token file of a grant that has ended. `found`: as it was seen."""

    __slots__ = ("path", "seen")

    def __init__(self, path: str, found: os.stat_result) -> None:
        self.path, self.seen = path, _same(found)

    @property
    def line(self) -> str:
        """The command."""
        return f"rm {typed(self.path)}    (its grant has ended)"

    def apply(self, call: Call) -> str:
        """Asked once more: no grant of that name lives."""
        folder, _, name = self.path.rpartition("/")
        try:
            if any(f"{each.get('id')}.token" == name for each in call.link.call("GET", "/v1/grants")["grants"]):
                return "its grant lives"
            return self._remove(folder, name)
        except FileNotFoundError:
            return ""
        except OSError as exc:
            return str(exc.strerror)
        except Stop as stop:
            return stop.message

    def _remove(self, folder: str, name: str) -> str:
        """By the directory's descriptor: it may have become a link to another one."""
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _same(os.stat(name, dir_fd=number, follow_symlinks=False)) != self.seen:
                return "it is another file now"
            os.unlink(name, dir_fd=number)
        finally:
            os.close(number)
        return ""


def ours(found: os.stat_result) -> bool:
    """A directory of this user's, or a file of his with no other name: another may be anybody's (interface.md §1)."""
    if found.st_uid != os.getuid():
        return False
    return stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)


def _same(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def mend(call: Call, found: list[Finding], shell: shells.Dialect, listed: str) -> int:
    """Show, ask, do, and say what is left; 0 when nothing is, 69 when that is the daemon itself."""
    evaluated = not sys.stdout.isatty()
    tell(call, listed)
    files = [each for each in found if not each.ok and each.fix is not None]
    names = list(dict.fromkeys(name for each in found if not each.ok for name in each.unset))
    if files or names:
        tell(call, _proposal(files, names, shell))
        _agree(call)
    left = [each for each in found if not (each.ok or each.fix or each.unset)]
    left += [each for each in files if not _done(call, each)]
    if names and evaluated:
        call.out(shell.drop(names) + "\n")
    elif names:
        left += [each for each in found if not each.ok and each.unset]
        tell(call, f"only this shell can unset its variables: type {shell.drop(names)}\n")
    _rest(call, left)
    if not left:
        return 0
    return UNREACHABLE if any(each.name == "daemon" and "vaultd start" in each.remedy for each in left) else 1


def tell(call: Call, text: str) -> None:
    """To the person: stdout may be meant for eval."""
    if sys.stdout.isatty():
        call.out(text)
        return
    sys.stderr.write(text)
    sys.stderr.flush()


def _proposal(files: list[Finding], names: list[str], shell: shells.Dialect) -> str:
    lines = [each.fix.line for each in files if each.fix is not None]
    lines += [f"{shell.drop(names)}    (in this shell)"] if names else []
    return "\nwhat --fix does:\n" + "".join(f"  {clean(line)}\n" for line in lines)


def _agree(call: Call) -> None:
    if call.flag("yes"):
        return
    terminal = Terminal.find("`vault-client doctor --fix` to be asked again")
    if terminal is None:
        raise Stop("nothing was changed, because there is no terminal to ask on: add --yes", NEEDS_PERSON)
    nothing = "nothing was changed: to do it after all, type `vault-client doctor --fix`"
    try:
        with terminal:
            terminal.write("do it? [y/N] ")
            yes = terminal.understood(terminal.line())
    except KeyboardInterrupt:
        raise Stop(nothing, 130) from None
    if not yes:
        raise Stop(nothing)


def _done(call: Call, finding: Finding) -> bool:
    fix = finding.fix
    assert fix is not None
    why = fix.apply(call)
    tell(call, f"not done, {clean(why)}: {clean(fix.line)}\n" if why else f"done: {clean(fix.line)}\n")
    return not why


def _rest(call: Call, left: list[Finding]) -> None:
    if not left:
        tell(call, "nothing is left to mend\n")
        return
    tell(call, f"\nleft to you, {len(left)}:\n")
    for each in left:
        tell(call, f"  {each.message}\n    → {each.remedy or 'see above'}\n")
