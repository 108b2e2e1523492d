"""`shell-init`: the function of each shell, which has `use` and `unuse` change the shell that they are typed in.

Rules
- It evaluates what is whole (integration.py) and nothing else; what was killed half-way is swept up.
- The text is of quoted words, so that no alias of the user's is taken into it, and names its builtins, so that no
  function is. Every option of the shell is left as it was.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH100, PTH113, PTH121
from __future__ import annotations

import os
import sys

from vault_client import shell as shells
from vault_client.errors import USAGE, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vault_client.cli import Call


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
    if found is not None and os.path.isfile(own) and os.path.samefile(own, found):
        return _NAMED[name]
    runs = os.access(own, os.X_OK) and not own.endswith(".py")
    words = [os.path.abspath(own)] if runs else [sys.executable, "-m", "vault_client"]
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
    \builtin printf '%s\n' "$_vc_lines" | VAULTD_INTEGRATION="$_vc_word" @CLIENT@ __sweep - >/dev/null 2>&1 || :
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
  if \builtin [ -n "$_vc_trap" ]; then \builtin eval "\builtin $_vc_trap"; else \builtin trap - INT; fi
  \builtin return "$_vc_status"
}
"""
#: What is exported under names of ours came with the environment, whoever made that: the function keeps none exported.
_BASH_DROP = r"""while IFS= \builtin read -r _vc_word; do
  case "$_vc_word" in
  _v*) \builtin unset -v "$_vc_word" ;;
  esac
done <<<"$(\builtin compgen -e _vaultd_; \builtin compgen -e _vc_)"
\builtin unset -v _vc_word
"""
#: bash refuses the name of the function in POSIX mode, and calls it there all the same.
_BASH_INIT = (
    _BASH_DROP
    + 'case ":$SHELLOPTS:" in *:posix:*) _vaultd_posix=1; set +o posix ;; esac\n'
    + _BASH
    + 'if [ -n "${_vaultd_posix-}" ]; then unset _vaultd_posix; set -o posix; fi\n'
)

_ZSH_DROP = r"""\builtin emulate \zsh -c 'for _vc_word in ${(M)${(k)parameters[(R)*export*]}:#_(vaultd|vc)_*}; do \
\builtin unset $_vc_word; done'
\builtin unset _vc_word
"""
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
    \builtin print -r -- "$_vc_lines" | VAULTD_INTEGRATION="$_vc_word" @CLIENT@ __sweep - >/dev/null 2>&1 || :
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
_FISH = r"""set -l _vc_inherited (set -nx | string match -- '_vaultd_*')
and set -eg $_vc_inherited
function vault-client --description 'AWS profiles that vaultd keeps fresh'
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
        builtin string join \n -- $_vc_lines | VAULTD_INTEGRATION="$_vc_told" @CLIENT@ __sweep - >/dev/null 2>&1
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

_SCRIPTS = {"bash": _BASH_INIT, "zsh": _ZSH_DROP + _ZSH, "fish": _FISH, "pwsh": _PWSH}
