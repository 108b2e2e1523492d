"""Shell integration: the function that `shell-init` prints, and what it and `use` say to each other.

Rules
- The function evaluates what this program printed for its shell and nothing else: all of it, known by its last line
  (`APPLY`), or none. A client that was killed half-way leaves the shell as it was, and no grant (`sweep`).
- The grant is bound to the shell that evaluates, be it one in brackets: it ends with that process, however that ends.
- What the shell remembers for `use -` are the words of its `use`: names and options, never a value of a variable.
- The text is of quoted words (no alias of the user's is taken into it) and leaves every option of the shell as it was.
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


class Hook:
    """The shell that will evaluate our lines: `pid` of it, `main` of the one it was forked from, and its memory."""

    __slots__ = ("before", "last", "marker", "name", "pid", "used")

    def __init__(self, words: list[str]) -> None:
        self.name, self.pid, main = words[0], int(words[1]), int(words[2])
        self.used = words[3] != "0"
        self.last, self.before = (word if word != _NOTHING else "" for word in words[4:6])
        self.marker = APPLY
        if self.pid != main and (reader := _read_by_parent(self.pid)):
            self.pid, self.marker = reader, PRINT

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Hook | None:
        """None where no function of ours takes what we print."""
        words = environ.get(VARIABLE, "").split(" ")
        if len(words) < 4 or not all(word.isascii() and word.isdigit() for word in words[1:3]):
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
        options = dict(pair.partition("=")[::2] for pair in pairs)
        given = {name: str(call.value(name)) for name in (*_KEPT, "token-code") if call.value(name) is not None}
        return Call(operands=[profile], tail=[], options={**options, **given}, environ=call.environ)


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
        if pipe.startswith("pipe:") and any(_reads(f"/proc/{parent}/fd/{fd}", pipe)
                                            for fd in os.listdir(f"/proc/{parent}/fd")):  # fmt: skip
            return parent
    except OSError:
        pass
    return None


def _reads(path: str, pipe: str) -> bool:
    try:  # the link's mode is the descriptor's (proc(5)): a shell whose own output is a pipe holds the other end
        return os.readlink(path) == pipe and bool(os.lstat(path).st_mode & 0o400)
    except OSError:
        return False


def sweep(_arguments: list[str], environ: Mapping[str, str]) -> int:
    """`__sweep`: what a `use` that was killed may have left, the grants of this shell that no variable of it names."""
    hook = Hook.of(environ)
    if hook is None:
        return USAGE
    call = Call(operands=[], tail=[], options={}, environ=environ)
    named = {environ.get("VAULTD_GRANT"), environ.get("VAULTD_SUBSHELL")}
    for grant in call.link.call("GET", "/v1/grants")["grants"]:
        holder = grant.get("peer") or {}
        if grant["kind"] == "shell" and holder.get("pid") == hook.pid and grant["id"] not in named:
            call.link.call("DELETE", f"/v1/grants/{quoted(grant['id'])}")
    return 0


# ---- vault-client shell-init ----


def shell_init(call: Call) -> int:
    """Print the function, and the completion where the shell can take it at once."""
    from vault_client import completion

    name = chosen(call)
    text = _SCRIPTS[name].replace("@NAMES@", " ".join(shells.MANAGED)).replace("@BROKEN@", _BROKEN)
    call.out(text.replace("@CLIENT@", client(name)))
    call.out(completion.script(name))
    return 0


def chosen(call: Call) -> str:
    """The shell of the operand; raises Stop for one that we do not write for."""
    found = call.operands[0]
    if found not in _SCRIPTS:
        raise Stop(f"{found[:200]}: no shell of that name is known: choose one of {', '.join(_SCRIPTS)}", USAGE)
    return found


def client(name: str) -> str:
    """This program, as a function of the same name calls it in that shell: by its name where PATH finds it there, else
    by its path.
    """
    own = sys.argv[0]
    found = next(filter(os.path.isfile, (f"{part}/vault-client" for part in os.get_exec_path())), None)
    if found is not None and os.path.isfile(own) and os.path.samefile(own, found):  # noqa: PTH113, PTH121
        return _NAMED[name]
    runs = os.access(own, os.X_OK) and not own.endswith(".py")
    words = [os.path.abspath(own)] if runs else [sys.executable, "-m", "vault_client"]  # noqa: PTH100
    if name in {"bash", "zsh"}:
        return r"\command " + " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    if name == "fish":
        return "command " + " ".join(shells.Fish().quote(word) for word in words)
    return "& " + " ".join(shells.PowerShell().quote(word) for word in words)


#: A function of before an upgrade, say: what it takes for whole is not what the client of today prints.
_BROKEN = "vault-client: what use printed was not whole, so nothing was changed: start a new shell, then type it again"
#: Past the function, which PowerShell's `&` would find again.
_NAMED = {"bash": r"\command vault-client", "zsh": r"\command vault-client", "fish": "command vault-client",
          "pwsh": "& (Get-Command -CommandType Application -TotalCount 1 vault-client)"}  # fmt: skip

_BASH = r"""function vault-client {
  \builtin local _vc_word _vc_lines _vc_trap _vc_status=0
  case "${1-}" in
  use | unuse) ;;
  *) VAULTD_INTEGRATION=bash @CLIENT@ "$@"; \builtin return ;;
  esac
  for _vc_word in "$@"; do
    case "$_vc_word" in
    -h | --help | --sh*) VAULTD_INTEGRATION=bash @CLIENT@ "$@"; \builtin return ;;
    esac
  done
  case "$-" in
  *[aETkvx]*)
    _vc_word=${-//[!aETkvx]/}
    { \builtin set +aETkvx; } 2>/dev/null
    \vault-client "$@" || _vc_status=$?
    \builtin set "-$_vc_word"
    \builtin return "$_vc_status"
    ;;
  esac
  _vc_word=$(for _vc_word in @NAMES@; do
    \command unset "$_vc_word" 2>/dev/null || { \builtin printf %s "$_vc_word"; \builtin exit 1; }
  done) || {
    \builtin printf 'vault-client: %s is readonly here, so nothing was changed: start another shell\n' "$_vc_word" >&2
    \builtin return 1
  }
  _vc_word="bash ${BASHPID:-$$} $$ ${_vaultd_saved-0} ${_vaultd_last--} ${_vaultd_before--}"
  _vc_trap=$(\builtin trap -p INT)
  \builtin trap : INT
  _vc_lines=$(VAULTD_INTEGRATION="$_vc_word" @CLIENT@ "$@") || _vc_status=$?
  case "$_vc_status $_vc_lines" in
  "0 "*": vaultd apply" | "0 "*": vaultd print")
    if \builtin shopt -q expand_aliases; then
      \builtin shopt -u expand_aliases
      \builtin eval "$_vc_lines"
      \builtin shopt -s expand_aliases
    else
      \builtin eval "$_vc_lines"
    fi
    ;;
  [1-9]" "* | [1-9][0-9]" "* | 12[0-8]" "*) ;;
  *)
    VAULTD_INTEGRATION="$_vc_word" @CLIENT@ __sweep >/dev/null 2>&1 || :
    if \builtin [ "$_vc_status" = 0 ]; then
      _vc_status=1
      \builtin printf '@BROKEN@\n' >&2
    fi
    ;;
  esac
  case "$_vc_lines" in
  *": vaultd print") \builtin printf '%s\n' "$_vc_lines" ;;
  "false;") \builtin [ "${BASHPID:-$$}" = "$$" ] || \builtin [ -t 1 ] || \builtin printf '%s\n' "$_vc_lines" ;;
  esac
  if \builtin [ -n "$_vc_trap" ]; then \builtin eval "$_vc_trap"; else \builtin trap - INT; fi
  \builtin return "$_vc_status"
}
"""
#: bash refuses the name of the function in POSIX mode, and calls it there all the same.
_BASH_INIT = (
    'case ":$SHELLOPTS:" in *:posix:*) _vaultd_posix=1; set +o posix ;; esac\n'
    + _BASH
    + 'if [ -n "${_vaultd_posix-}" ]; then unset _vaultd_posix; set -o posix; fi\n'
)

_ZSH = r"""function vault-client {
  \builtin emulate -L zsh
  \builtin setopt no_aliases no_xtrace no_all_export no_warn_create_global
  \builtin trap - DEBUG
  \builtin local _vc_word _vc_lines _vc_pid=$$ _vc_status=0
  case "${1-}" in
  (use|unuse) ;;
  (*) VAULTD_INTEGRATION=zsh @CLIENT@ "$@"; \builtin return ;;
  esac
  for _vc_word in "$@"; do
    case "$_vc_word" in
    (-h|--help|--sh*) VAULTD_INTEGRATION=zsh @CLIENT@ "$@"; \builtin return ;;
    esac
  done
  _vc_word=$(for _vc_word in @NAMES@; do
    if [[ ${(Pt)_vc_word} == *readonly* ]]; then \builtin print -rn -- "$_vc_word"; \builtin exit 1; fi
  done) || {
    \builtin print -ru2 -- "vault-client: $_vc_word is readonly here, so nothing was changed: start another shell"
    \builtin return 1
  }
  if (( ZSH_SUBSHELL )) && \builtin zmodload -F zsh/system p:sysparams 2>/dev/null; then
    _vc_pid=${sysparams[pid]}
  fi
  _vc_word="zsh $_vc_pid $$ ${_vaultd_saved-0} ${_vaultd_last--} ${_vaultd_before--}"
  \builtin trap : INT
  _vc_lines=$(VAULTD_INTEGRATION="$_vc_word" @CLIENT@ "$@") || _vc_status=$?
  case "$_vc_status $_vc_lines" in
  ("0 "*": vaultd apply"|"0 "*": vaultd print") \builtin eval "$_vc_lines" ;;
  ([1-9]" "*|[1-9][0-9]" "*|12[0-8]" "*) ;;
  (*)
    VAULTD_INTEGRATION="$_vc_word" @CLIENT@ __sweep >/dev/null 2>&1 || :
    if [[ $_vc_status == 0 ]]; then
      _vc_status=1
      \builtin print -ru2 -- '@BROKEN@'
    fi
    ;;
  esac
  case "$_vc_lines" in
  (*": vaultd print") \builtin print -r -- "$_vc_lines" ;;
  ("false;") if (( ZSH_SUBSHELL )) && [[ ! -t 1 ]]; then \builtin print -r -- "$_vc_lines"; fi ;;
  esac
  \builtin return $_vc_status
}
"""

#: Ctrl-C ends a function of fish wherever it is, and no trap holds that up: the next prompt looks for what was left.
_FISH = r"""function vault-client --description 'AWS profiles that vaultd keeps fresh'
    set -l fish_trace
    if not builtin contains -- "$argv[1]" use unuse; or builtin string match -qr -- '^(-h|--help|--sh.*)$' $argv
        VAULTD_INTEGRATION=fish @CLIENT@ $argv
        return
    end
    set -l _vc_told fish $fish_pid $fish_pid 0 - -
    set -q _vaultd_saved; and set _vc_told[4] 1
    set -q _vaultd_last; and set _vc_told[5] $_vaultd_last
    set -q _vaultd_before; and set _vc_told[6] $_vaultd_before
    set -g _vaultd_asked "$_vc_told"
    set -l _vc_lines (VAULTD_INTEGRATION="$_vc_told" @CLIENT@ $argv)
    set -l _vc_status $status
    set -eg _vaultd_asked
    if test $_vc_status -eq 0; and test "$_vc_lines[-1]" = ': vaultd apply'
        builtin string join \n -- $_vc_lines | source
        return 0
    end
    if test $_vc_status -eq 0; or test $_vc_status -gt 128
        VAULTD_INTEGRATION="$_vc_told" @CLIENT@ __sweep >/dev/null 2>&1
        if test $_vc_status -eq 0
            set _vc_status 1
            echo '@BROKEN@' >&2
        end
    end
    isatty stdout; or test "$_vc_lines" != 'false;'; or echo $_vc_lines
    return $_vc_status
end
function __vault_client_interrupted --on-event fish_prompt
    if set -q _vaultd_asked
        VAULTD_INTEGRATION="$_vaultd_asked" @CLIENT@ __sweep >/dev/null 2>&1
        set -eg _vaultd_asked
    end
end
"""

_PWSH = r"""function global:vault-client {
  if (($args[0] -cne 'use' -and $args[0] -cne 'unuse') -or ($args -match '^(-h|--help|--sh.*)$')) {
    $env:VAULTD_INTEGRATION = 'pwsh'
    try { @CLIENT@ @args } finally { Remove-Item Env:VAULTD_INTEGRATION }
    return
  }
  $vcTold = @('pwsh', $PID, $PID, '0', '-', '-')
  if (Test-Path Variable:global:_vaultd_saved) { $vcTold[3] = '1' }
  if (Test-Path Variable:global:_vaultd_last) { $vcTold[4] = $global:_vaultd_last }
  if (Test-Path Variable:global:_vaultd_before) { $vcTold[5] = $global:_vaultd_before }
  $env:VAULTD_INTEGRATION = $vcTold -join ' '
  $vcWhole = $false
  try {
    $vcLines = @(@CLIENT@ @args)
    $vcStatus = $LASTEXITCODE
    if ($vcStatus -eq 0 -and $vcLines.Count -gt 0 -and $vcLines[-1] -ceq ': vaultd apply') {
      $vcLines[0..($vcLines.Count - 2)] | Out-String | Invoke-Expression
      $vcWhole = $true
    } elseif ($vcStatus -gt 0 -and $vcStatus -le 128) {
      $vcWhole = $true
    } elseif ($vcStatus -eq 0) {
      $vcStatus = 1
      [Console]::Error.WriteLine('@BROKEN@')
    }
  } finally {
    if (-not $vcWhole) { @CLIENT@ __sweep *> $null }
    Remove-Item -ErrorAction SilentlyContinue Env:VAULTD_INTEGRATION
  }
  $global:LASTEXITCODE = $vcStatus
}
"""

_SCRIPTS = {"bash": _BASH_INIT, "zsh": _ZSH, "fish": _FISH, "pwsh": _PWSH}
