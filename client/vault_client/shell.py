"""The lines that a shell evaluates: `use`, `unuse` and `export`, for sh (bash, zsh, dash, ksh), fish and PowerShell.

Rules (interface.md §3, `use`)
- What `use` replaces is kept in unexported shell variables, by reference and never by value (`_vaultd_old_NAME=$NAME`):
  an old secret key never passes through this program's output. A variable that was unset has no `_vaultd_old_NAME`.
- The shell itself decides whether it is in use already (`_vaultd_saved`), because only it sees its unexported
  variables: a second `use` puts the originals back first and does not save its own values over them.
- A shell that holds our grant by its pid and remembers nothing took the place of the one that asked (`exec zsh`, after
  an edit of its rc file): what is ours there is no original, or `unuse` would bring a grant back that has ended.
- Every line ends in `;`, so that `eval $(…)` without quotes, which joins the lines, still works. There the shell takes
  each word for a file name pattern before it evaluates any of it, quotes and all, and a file of a chosen name in the
  working directory would be run in its place: the sh lines have no `*`, `?`, `[` or parenthesis, not even in a value.
- A value is quoted whatever it holds.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH115, PTH119, PTH123
from __future__ import annotations

import os

from vault_client.errors import USAGE, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Set or unset by the shell lines of any grant, so that `unuse` needs no memory of the grant (interface.md §3).
CONTAINER = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
IMDS = (
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_METADATA_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
)
#: The pid of the shell whose eval took the grant: a child inherits VAULTD_GRANT, but is not who may end it.
HOLDER = "VAULTD_SHELL"
#: Set by the function of `shell-init`, for one call of ours: which shell asks, and what it remembers.
INTEGRATION = "VAULTD_INTEGRATION"
#: The shells that have such a function.
INTEGRATED = ("bash", "zsh", "fish", "pwsh")
#: Ours alone. VAULTD_REGION repeats a region that we chose, which tells it from one that the user set.
OURS = (*CONTAINER, *IMDS, "AWS_EC2_METADATA_DISABLED", "VAULTD_PROFILE", "VAULTD_GRANT", HOLDER, "VAULTD_REGION")
REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
SHADOWING = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
)
MANAGED = (*OURS, *REGION, "NO_PROXY", "no_proxy", *SHADOWING)


#: In single quotes these mean themselves, to `eval "$(…)"` and to `eval $(…)`: no quote, blank, pattern or backslash.
_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,-./:=@_")
#: What a shell keeps for `use -` comes back by a variable, which whoever makes an environment may set: no quote, blank
#: or backslash, whatever the shell.
_KEPT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-._@")


def is_kept(words: str) -> bool:
    """May a shell keep these words? All that `remembered` makes is of this kind."""
    return _KEPT.issuperset(words)


def _kept(words: str) -> str:
    if not is_kept(words):
        raise Stop("what this shell remembers is not what use wrote, so nothing was changed: start a new shell")
    return words


class Posix:
    """bash, zsh, dash, ksh and sh: nothing that POSIX does not have."""

    __slots__ = ("call", "evaluation")
    fail = "false;"

    def __init__(self) -> None:
        #: How a person has the lines of a command evaluated.
        self.evaluation = 'eval "$(%s)"'
        #: Before a builtin's name, where the shell has a way past a function of that name.
        self.call = ""

    @property
    def undo(self) -> str:
        """What a person types to be where he was."""
        return self.evaluation % "vault-client unuse"

    def redo(self, arguments: str) -> str:
        """What a person types to use a profile, again."""
        return self.evaluation % f"vault-client use {arguments}"

    def keep(self, name: str, value: str) -> str:
        """A variable of the shell alone, of a value that `remembered` made."""
        return f"{name}='{_kept(value)}';"

    def drop(self, names: Iterable[str]) -> str:
        """What a person types to be without these variables."""
        return "unset " + " ".join(names)

    def set(self, name: str, value: str) -> str:
        """An exported variable; any other character makes all of the value octal digits, in backquotes because
        parentheses are a pattern to some shells, and with a dot at its end because newlines there are lost.
        """
        if _BARE.issuperset(value):
            return f"{self.call}export {name}='{value}';"
        octal = "".join("%%" if byte == 0x25 else f"\\{byte:03o}" for byte in os.fsencode(value))
        made = f"""{self.call}export {name}="`{self.call}printf '{octal}.'`";"""
        return f"""{made} {self.call}export {name}="${{{name}%.}}";"""

    def unset(self, name: str) -> str:
        """No such variable any more."""
        return f"{self.call}unset {name};"

    def save(self, names: Iterable[str], holder: str) -> list[str]:
        """Keep the originals at the first `use`; at a later one put them back. `holder`: the shell's pid."""
        kept = [f'if {self.call}test -n "${{{name}+x}}"; then _vaultd_old_{name}=${name}; fi;' for name in names]
        again = [f"""if {self.call}test "${{VAULTD_SHELL:-}}" = '{holder}'; then""", *self._leave(), "fi;"]
        head = f'if {self.call}test -z "${{_vaultd_saved+x}}"; then'
        return [head, *again, *kept, "_vaultd_saved=1;", "else", *self._back(names), "fi;"]

    def restore(self, names: Iterable[str]) -> list[str]:
        """Put the originals back and forget them; a shell that kept none only drops what is ours."""
        forget = [self.unset(f"_vaultd_old_{name}") for name in names]
        head = f'if {self.call}test -n "${{_vaultd_saved+x}}"; then'
        return [head, *self._back(names), *forget, self.unset("_vaultd_saved"), "else", *self._leave(), "fi;"]

    def _leave(self) -> list[str]:
        """Nothing of ours any more, nor the region that it chose."""
        regions = [
            f'if {self.call}test "${{{name}:-}}" = "${{VAULTD_REGION:-/}}"; then {self.unset(name)} fi;'
            for name in REGION
        ]
        return [*regions, *map(self.unset, OURS)]

    def region(self, region: str) -> list[str]:
        """The profile's region, unless the user set one: then both names say the user's."""
        ours = " ".join(self.set(name, region) for name in (*REGION, "VAULTD_REGION"))
        either = "${AWS_REGION:-}/${AWS_DEFAULT_REGION:-}"
        test, export = f"{self.call}test", f"{self.call}export"
        return [
            f'if {test} "{either}" = "${{VAULTD_REGION:-}}/${{VAULTD_REGION:-}}"; then {ours}',
            f'elif {test} -z "${{AWS_REGION:-}}"; then {export} AWS_REGION="$AWS_DEFAULT_REGION";',
            f'elif {test} -z "${{AWS_DEFAULT_REGION:-}}"; then {export} AWS_DEFAULT_REGION="$AWS_REGION"; fi;',
        ]

    def _back(self, names: Iterable[str]) -> list[str]:
        test, export = f"{self.call}test", f"{self.call}export"
        return [
            f'if {test} -n "${{_vaultd_old_{name}+x}}"; then {export} {name}="$_vaultd_old_{name}"; '
            f"else {self.unset(name)} fi;"
            for name in names
        ]


class Fish:
    """fish. A universal variable is never erased, because that would lose it for good and in every other session; and
    it cannot be hidden from children either (fish 3.6 exports it past an unexported global one), so it is named.
    """

    fail = "false;"
    #: How a person has the lines of a command evaluated.
    evaluation = "%s | source"

    @property
    def undo(self) -> str:
        """What a person types to be where he was."""
        return self.evaluation % "vault-client unuse"

    def redo(self, arguments: str) -> str:
        """What a person types to use a profile, again."""
        return self.evaluation % f"vault-client use {arguments}"

    def keep(self, name: str, value: str) -> str:
        """A variable of the shell alone, of a value that `remembered` made."""
        return f"set -g {name} '{_kept(value)}';"

    def drop(self, names: Iterable[str]) -> str:
        """What a person types to be without these variables, in whatever scope they are."""
        return "set -e " + " ".join(names)

    def quote(self, value: str) -> str:
        """Single quotes, inside which a backslash escapes itself and the quote."""
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def set(self, name: str, value: str) -> str:
        """An exported global variable."""
        return f"set -gx {name} {self.quote(value)};"

    def unset(self, name: str) -> str:
        """Gone from the global scope; one that is universal too is named, with what to type."""
        said = f"vault-client: warning: the universal variable {name} goes before the profile: type set -eU {name}"
        # an `if` that does not hold ends in 0, and a `set` that follows would pass anything else on
        return f"set -eg {name}; if set -qx {name}; echo {self.quote(said)} >&2; end;"

    def save(self, names: Iterable[str], holder: str) -> list[str]:
        """Keep the originals at the first `use`; at a later one put them back. `holder`: the shell's pid."""
        kept = [f"set -q {name}; and set -g _vaultd_old_{name} ${name};" for name in names]
        again = [f"""if test "$VAULTD_SHELL" = '{holder}';""", *self._leave(), "end;"]
        head = "if not set -q _vaultd_saved;"
        return [head, *again, *kept, "set -g _vaultd_saved 1;", "else;", *self._back(names), "end;"]

    def restore(self, names: Iterable[str]) -> list[str]:
        """Put the originals back and forget them; a shell that kept none only drops what is ours."""
        forget = [f"set -eg _vaultd_old_{name};" for name in names]
        head = "if set -q _vaultd_saved;"
        return [head, *self._back(names), *forget, "set -eg _vaultd_saved;", "else;", *self._leave(), "end;"]

    def _leave(self) -> list[str]:
        """Nothing of ours any more, nor the region that it chose."""
        ours = 'set -q VAULTD_REGION; and test "${0}" = "$VAULTD_REGION"; and set -eg {0};'
        return [*(ours.format(name) for name in REGION), *map(self.unset, OURS)]

    def region(self, region: str) -> list[str]:
        """The profile's region, unless the user set one: then both names say the user's."""
        ours = " ".join(self.set(name, region) for name in (*REGION, "VAULTD_REGION"))
        return [
            f'if test "$AWS_REGION/$AWS_DEFAULT_REGION" = "$VAULTD_REGION/$VAULTD_REGION"; {ours}',
            'else if test -z "$AWS_REGION"; set -gx AWS_REGION "$AWS_DEFAULT_REGION";',
            'else if test -z "$AWS_DEFAULT_REGION"; set -gx AWS_DEFAULT_REGION "$AWS_REGION"; end;',
        ]

    def _back(self, names: Iterable[str]) -> list[str]:
        return [
            f"set -eg {name}; if set -q _vaultd_old_{name}; and not set -q {name}; "
            f"set -gx {name} $_vaultd_old_{name}; end;"
            for name in names
        ]


class PowerShell:
    """PowerShell: one statement a line, because `| Invoke-Expression` takes them one by one."""

    fail = "throw 'vault-client has failed, see above';"
    #: How a person has the lines of a command evaluated.
    evaluation = "%s | Out-String | Invoke-Expression"

    @property
    def undo(self) -> str:
        """What a person types to be where he was."""
        return self.evaluation % "vault-client unuse"

    def redo(self, arguments: str) -> str:
        """What a person types to use a profile, again."""
        return self.evaluation % f"vault-client use {arguments}"

    def keep(self, name: str, value: str) -> str:
        """A variable of the shell alone, of a value that `remembered` made."""
        return f"$global:{name} = '{_kept(value)}';"

    def drop(self, names: Iterable[str]) -> str:
        """What a person types to be without these variables."""
        return "Remove-Item " + ", ".join(f"Env:{name}" for name in names)

    def quote(self, value: str) -> str:
        """Single quotes; PowerShell takes the typographic ones for quotes too, so each is doubled."""
        return "'" + "".join(char * 2 if char in "'‘’‚‛" else char for char in value) + "'"

    def set(self, name: str, value: str) -> str:
        """An environment variable."""
        return f"$env:{name} = {self.quote(value)};"

    def unset(self, name: str) -> str:
        """No such environment variable any more."""
        return f"Remove-Item -ErrorAction SilentlyContinue Env:{name};"

    def save(self, names: Iterable[str], holder: str) -> list[str]:
        """Keep the originals at the first `use`; at a later one put them back. `holder`: the shell's pid."""
        kept = [f"if (Test-Path Env:{name}) {{ $global:_vaultd_old_{name} = $env:{name} }};" for name in names]
        again = f"if ($env:VAULTD_SHELL -eq '{holder}') {{ {self._leave()} }};"
        done = "$global:_vaultd_saved = 1"
        head = "if (-not (Test-Path Variable:global:_vaultd_saved))"
        return [f"{head} {{ {again} {' '.join(kept)} {done} }} else {{ {' '.join(self._back(names))} }};"]

    def restore(self, names: Iterable[str]) -> list[str]:
        """Put the originals back and forget them; a shell that kept none only drops what is ours."""
        forget = "Remove-Variable -Scope Global -ErrorAction SilentlyContinue _vaultd_old_*, _vaultd_saved"
        back = " ".join(self._back(names))
        return [f"if (Test-Path Variable:global:_vaultd_saved) {{ {back} {forget} }} else {{ {self._leave()} }};"]

    def _leave(self) -> str:
        """Nothing of ours any more, nor the region that it chose."""
        ours = "if ($env:VAULTD_REGION -and $env:{0} -eq $env:VAULTD_REGION) {{ Remove-Item Env:{0} }};"
        return " ".join([*(ours.format(name) for name in REGION), *map(self.unset, OURS)])

    def region(self, region: str) -> list[str]:
        """The profile's region, unless the user set one: then both names say the user's."""
        ours = " ".join(self.set(name, region) for name in (*REGION, "VAULTD_REGION"))
        free = '"$env:AWS_REGION/$env:AWS_DEFAULT_REGION" -eq "$env:VAULTD_REGION/$env:VAULTD_REGION"'
        first = "elseif (-not $env:AWS_REGION) { $env:AWS_REGION = $env:AWS_DEFAULT_REGION }"
        second = "elseif (-not $env:AWS_DEFAULT_REGION) { $env:AWS_DEFAULT_REGION = $env:AWS_REGION };"
        return [f"if ({free}) {{ {ours} }} {first} {second}"]

    def _back(self, names: Iterable[str]) -> list[str]:
        return [
            f"if (Test-Path Variable:global:_vaultd_old_{name}) {{ $env:{name} = $global:_vaultd_old_{name} }} "
            f"else {{ {self.unset(name)} }};"
            for name in names
        ]


if TYPE_CHECKING:
    Dialect = Posix | Fish | PowerShell

NAMES = ("bash", "zsh", "sh", "fish", "pwsh")
_POSIX = frozenset({"bash", "zsh", "sh", "dash", "ash", "ksh", "mksh", "busybox"})


def dialect(name: str) -> Dialect | None:
    """How to write for the program called `name`, or None for one that we do not know."""
    if name in _POSIX:
        return Posix()
    if name == "fish":
        return Fish()
    return PowerShell() if name in {"pwsh", "powershell"} else None


def calling(environ: Mapping[str, str], chosen: str | None) -> Dialect:
    """The shell that will evaluate the lines: --shell, else the parent process, else $SHELL, else sh."""
    if chosen is not None:
        found = dialect(os.path.basename(chosen))
        if found is None:
            raise Stop(f"--shell {chosen[:200]}: the shells known are {', '.join(NAMES)}; choose one of them", USAGE)
        return found
    name = environ.get(INTEGRATION, "").partition(" ")[0]
    if name in INTEGRATED and (integrated := dialect(name)):
        integrated.evaluation = "%s"  # its function evaluates
        if isinstance(integrated, Posix):
            integrated.call = "\\builtin "
        return integrated
    parent = _parent_name()
    if parent in {"csh", "tcsh"}:
        raise Stop(f"no lines can be written for {parent}: type `vault-client use PROFILE` bare, for a subshell", USAGE)
    return dialect(parent) or dialect(os.path.basename(environ.get("SHELL", ""))) or Posix()


def _parent_name() -> str:
    try:
        with open(f"/proc/{os.getppid()}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:  # macOS, or a hidden /proc
        return ""


def parent_of(pid: int) -> int:
    """Raises OSError where /proc does not tell."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


#: Of the mode of a link in /proc/PID/fd, which is the descriptor's (proc(5)): the end of the pipe that it is.
READS, WRITES = 0o400, 0o200


def is_end(path: str, pipes: set[str], mode: int) -> bool:
    """Is this descriptor that end of one of these pipes? One that is closed is none; raises OSError where /proc does
    not tell.
    """
    try:
        return os.readlink(path) in pipes and bool(os.lstat(path).st_mode & mode)
    except FileNotFoundError:
        return False


def evaluator() -> tuple[int, bool]:
    """The shell that will evaluate our lines: the nearest ancestor that does not write into our pipe. bash forks
    between itself and us for `$(… 2>/dev/null)` and in a function; who is forked there writes where we do. False beside
    it where /proc does not tell (macOS, a shell that may not be looked into): the nearest that it may be. In a shell
    whose stdout is closed, the end that it reads takes that number.
    """
    pid = os.getppid()
    try:
        pipe = os.readlink("/proc/self/fd/1")
        while pid > 1 and pipe.startswith("pipe:") and is_end(f"/proc/{pid}/fd/1", {pipe}, WRITES):
            pid = parent_of(pid)
    except OSError:
        return pid, False
    return pid, True


def use_lines(shell: Dialect, *, variables: Mapping[str, str], unset: Iterable[str], region: str | None) -> str:
    """Save or put back, then point at the grant. `region` is the profile's, to be set unless the user set one."""
    names = [*MANAGED, *(name for name in variables if name not in MANAGED)]
    lines = shell.save(names, variables.get(HOLDER, ""))
    lines += [shell.unset(name) for name in unset]
    lines += [shell.set(name, value) for name, value in variables.items()]
    if region:
        lines += shell.region(region)
    return "\n".join(lines) + "\n"


def unuse_lines(shell: Dialect) -> str:
    """The way back. A shell that is in use only by inheritance drops what points at vaultd."""
    return "\n".join(shell.restore(MANAGED)) + "\n"
