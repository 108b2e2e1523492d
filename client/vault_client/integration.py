"""Shell integration: what `use` and the function of functions.py say to each other.

Rules
- The function evaluates what this program printed for its shell and nothing else: all of it, known by its last line
  (`APPLY`), or none. A client that was killed half-way leaves the shell as it was, and no grant (`sweep`).
- The grant is bound to the shell that evaluates, be it one in brackets: it ends with that process, however that ends.
- What the shell remembers for `use -` are the words of its `use`: names and options, never a value of a variable.
- `VAULTD_INTEGRATION` may be anybody's who makes an environment (security.md T11): what is not as the function writes
  it, or names another shell than the one that reads what we print, is no integration; no word of it is evaluated.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH115, PTH208
from __future__ import annotations

import os
import sys

from vault_client import shell as shells
from vault_client.cli import Call
from vault_client.errors import USAGE, Stop
from vault_client.link import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: How the function tells of its shell: its name alone, or `NAME PID MAIN USED LAST BEFORE` where it will evaluate.
VARIABLE = shells.INTEGRATION
#: The last line of what is whole: to be evaluated by the function, or by the `eval` that its user typed around it.
APPLY, PRINT = ": vaultd apply", ": vaultd print"
_KEPT = ("imds", "region", "duration")
_NOTHING = "-"
_LONGEST_PID = 10


class Hook:
    """The shell that will evaluate our lines: `pid` of it, `main` of the one it was forked from, and its memory.
    `evaluates`: it is the one that reads them, as far as /proc tells.
    """

    __slots__ = ("before", "evaluates", "last", "marker", "name", "pid", "used")

    def __init__(self, words: list[str]) -> None:
        self.name, self.pid, main = words[0], int(words[1]), int(words[2])
        self.used = words[3] != "0"
        self.last, self.before = (word if word != _NOTHING and shells.is_kept(word) else "" for word in words[4:6])
        reads, known = shells.evaluator()
        self.evaluates = not known or reads == self.pid or _reader() == self.pid
        self.marker = APPLY
        if self.pid != main and (reader := _read_by_parent(self.pid)):
            self.pid, self.marker = reader, PRINT

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Hook | None:
        """None where no function of ours takes what we print."""
        words = environ.get(VARIABLE, "").split(" ")
        if len(words) < 4 or words[0] not in shells.INTEGRATED or not all(map(_is_pid, words[1:3])):
            return None
        if len(words) != 6:  # `_vaultd_last` or `_vaultd_before` are of somebody else: nothing to go back to
            words[4:] = [_NOTHING] * 2
        return None if sys.stdout.isatty() else cls(words)

    def whole(self, lines: str) -> str:
        """`lines` as the function takes them."""
        swept = self._swept() if self.forked else ""
        return f"{lines.rstrip()}\n{swept}{self.marker}\n"

    @property
    def forked(self) -> bool:
        """A process of the shell's for `$(…)`: only the shell knows whether it will evaluate what comes out of it."""
        return self.marker == PRINT

    def _swept(self) -> str:
        """The line that ends the grant of before, once the shell itself points at the new one: `x=$(vault-client use b;
        …)` never evaluates it, and is still who it was. Inside of the function, whose variable tells, it does nothing.
        """
        from vault_client.functions import client

        told = f"VAULTD_INTEGRATION='{self.name} {self.pid} {self.pid} 1 - -'"
        swept = f"{told} {client(self.name)} __sweep >/dev/null 2>&1"
        return f'\\builtin test -n "${{_vc_lines+x}}" || {swept} || :;\n'

    def remember(self, shell: shells.Dialect, call: Call, profile: str) -> str:
        """The lines by which `use -` will find this `use`, and then the one before it."""
        words = remembered(call, profile)
        before = self.last if self.last and self.last != words else self.before
        kept = [shell.keep("_vaultd_last", words), shell.keep("_vaultd_before", before or _NOTHING)]
        return "\n".join(kept) + "\n"

    def back(self, call: Call) -> Call:
        """What `use -` means: the one before, or after `unuse` the one that was undone; options of today come first."""
        words = (self.before if self.used else self.last).split("+")
        if not words[0]:
            raise Stop("use -: no other profile was in use in this shell: type `vault-client use PROFILE`")
        profile, *pairs = (_plain(word) for word in words)
        options = {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name in _KEPT}
        given = {name: str(call.value(name)) for name in (*_KEPT, "token-code") if call.value(name) is not None}
        return Call(operands=[profile], tail=[], options={**options, **given}, environ=call.environ)


def _is_pid(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= _LONGEST_PID


def remembered(call: Call, profile: str) -> str:
    """The words of a `use`, in characters that every shell takes as they are inside single quotes."""
    pairs = [f"{name}={call.value(name)}" for name in _KEPT if call.value(name) is not None]
    return "+".join(quoted(word).replace("~", "%7E").replace("%", "@") for word in (profile, *pairs))


def _plain(word: str) -> str:
    head, *rest = word.split("@")
    try:
        raw = os.fsencode(head) + b"".join(bytes([int(part[:2], 16)]) + os.fsencode(part[2:]) for part in rest)
    except ValueError:
        raise Stop("use -: what this shell remembers was changed: type `vault-client use PROFILE`") from None
    return os.fsdecode(raw)


def _read_by_parent(pid: int) -> int | None:
    """The parent of a forked shell, when it reads what that one writes: `eval "$(vault-client use P)"`, by habit. What
    the function sets is gone with the fork there, so that its lines are printed, too. None where /proc does not tell.
    """
    try:
        pipe = os.readlink(f"/proc/{pid}/fd/1")
        parent = shells.parent_of(pid)
        if pipe.startswith("pipe:") and _reads(parent, {pipe}):
            return parent
    except OSError:
        pass
    return None


def _reader() -> int | None:
    """The nearest ancestor that reads what we write, or what one between us and it does: the client that a shell finds
    may be a wrapper, `real "$@" | cat`, where no ancestor reads our own pipe. None where there is none.
    """
    pid, pipes = os.getppid(), set[str]()
    try:
        pipes.add(os.readlink("/proc/self/fd/1"))
        while pid > 1 and not _reads(pid, pipes):
            if (own := _written(pid)) is not None:
                pipes.add(own)
            pid = shells.parent_of(pid)
    except OSError:
        return None
    return pid if pid > 1 else None


def _written(pid: int) -> str | None:
    """The pipe that is the stdout of a process."""
    try:
        pipe = os.readlink(f"/proc/{pid}/fd/1")
    except FileNotFoundError:  # closed
        return None
    return pipe if shells.is_end(f"/proc/{pid}/fd/1", {pipe}, shells.WRITES) else None


def _reads(pid: int, pipes: set[str]) -> bool:
    """Has that process the reading end of one? A shell whose own output is a pipe holds the other end."""
    ours = {pipe for pipe in pipes if pipe.startswith("pipe:")}
    return any(shells.is_end(f"/proc/{pid}/fd/{fd}", ours, shells.READS) for fd in os.listdir(f"/proc/{pid}/fd"))


def sweep(arguments: list[str], environ: Mapping[str, str]) -> int:
    """`__sweep`: what a `use` that was killed may have left, the grants of this shell that no variable of it names;
    with `-`, also the one of the lines on stdin, which the function did not evaluate.
    """
    hook = Hook.of(environ)
    if hook is None:
        return USAGE
    call = Call(operands=[], tail=[], options={}, environ=environ)
    named = {environ.get("VAULTD_GRANT"), environ.get("VAULTD_SUBSHELL")}
    dropped = _dropped(sys.stdin.read()) if arguments == ["-"] else set()
    for grant in call.link.call("GET", "/v1/grants")["grants"]:
        holder = grant.get("peer") or {}
        left = holder.get("pid") == hook.pid or grant["id"] in dropped
        if grant["kind"] == "shell" and left and grant["id"] not in named:
            call.link.call("DELETE", f"/v1/grants/{quoted(grant['id'])}")
    return 0


def _dropped(lines: str) -> set[str]:
    """The grant that lines for any shell set: `use` of a client that did not take the function for one."""
    after = [part.lstrip(" =") for part in lines.split("VAULTD_GRANT")[1:]]
    return {part.split("'")[1] for part in after if part.startswith("'") and part.count("'") > 1}
