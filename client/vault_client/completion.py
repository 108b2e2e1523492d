"""Completion: what could come next on a command line, for the four shells.

Rules
- Silent and short: nothing on stderr, no traceback, at most a fifth of a second for the daemon; without it the profiles
  are those of the caller's own config file, or as many as are read in 70 ms.
- Names are never evaluated: bash gets each quoted as the person began it, the others quote by themselves.
- A name that `cli` would not take as an operand is not offered.
"""

from __future__ import annotations

import signal
import sys
import time

from vault_client.cli import Call
from vault_client.commands import COMMANDS, PAGES, option_rows
from vault_client.errors import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType
    from typing import Any

    Found = Iterator[tuple[str, str]]

PATIENCE, READING = 0.2, 0.07
#: readline begins a new word after these (COMP_WORDBREAKS, of which many an rc file takes the colon), so that a name is
#: replaced from the last of them on; at the last of ours it begins before it (a host's name).
_BREAKS, _HOST = "\"'><=;|&(:@", "@"
_BLANKS = frozenset(" \t\n")
_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,-./_%")
_SHELLS = ("bash", "zsh", "fish", "pwsh")
_VALUES = {
    "duration": ("15m", "1h", "2h", "4h", "8h", "12h"),
    "format": ("env", "json", "process", "ini", "dotenv", "powershell", "fish"),
    "service": PAGES,
    "shell": (*_SHELLS, "sh"),
}


def complete(arguments: list[str], environ: Mapping[str, str]) -> int:
    """`__complete bash PROGRAM LINE BREAKS`, `__complete zsh|fish|pwsh WORD…` (the last one unfinished): a line for
    each.
    """
    try:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
        sys.stdout.write("".join(_lines(arguments, environ)))
        sys.stdout.flush()
    except Exception:  # noqa: BLE001, S110 - whatever it is, a person who types is not to see it
        pass
    return 0


def _lines(arguments: list[str], environ: Mapping[str, str]) -> Iterator[str]:
    from vault_client.tables import clean

    shell, *words = arguments
    typed = None
    if shell == "bash":
        line = words_of(*words[1:3])
        names = [word.text for word in line]
        line = line[names.index(words[0]) + 1 :] if words[0] in names else line[1:]
        typed, words = line[-1], [word.text for word in line]
    for value, told in candidates(words or [""], environ):
        if clean(value) != value:
            continue
        if typed is None:
            yield f"{value}\t{clean(told)}\n"
        elif value.startswith(typed.text):
            yield typed.ending(value) + "\n"


def candidates(words: list[str], environ: Mapping[str, str]) -> Found:
    """(value, description) of what fits after all but the last word, which only tells an option from an operand."""
    name, last = words[0], words[-1]
    if len(words) == 1:
        yield from ((command.name, command.summary) for command in COMMANDS.values())
        return
    command = COMMANDS.get(name)
    if command is None or (command.tail and "--" in words[1:-1]):
        return
    takes = {f"--{option.partition('=')[0]}" for option in command.options if "=" in option}
    if words[-2] in takes:
        yield from _values(words[-2][2:], environ)
    elif last.startswith("-"):
        yield from _options(name)
    else:
        before = [word for at, word in enumerate(words[1:-1], 1) if word[:1] != "-" and words[at - 1] not in takes]
        if len(before) < command.most:
            yield from _operands(command.operands.split()[0].strip("[]…"), environ)
        elif command.tail:
            yield "--", "then the command"


def _options(name: str) -> Found:
    for option, told in option_rows(name):
        yield f"--{option.partition('=')[0]}", told


def _values(option: str, environ: Mapping[str, str]) -> Found:
    if option == "profile":
        yield from _profiles(environ)
    for value in _VALUES.get(option, ()):
        yield value, ""


def _operands(kind: str, environ: Mapping[str, str]) -> Found:
    known: dict[str, Callable[[Mapping[str, str]], Found]] = {
        "PROFILE": _profiles, "IDENTITY": _identities, "GRANT": _grants,
    }  # fmt: skip
    if kind in known:
        yield from known[kind](environ)
    elif "|" in kind:
        yield from ((each, "") for each in kind.split("|"))


def _profiles(environ: Mapping[str, str]) -> Found:
    try:
        rows = asked(environ, "/v1/profiles")["profiles"]
    except Stop:
        yield from ((name, "") for name in _own_profiles(environ))
        return
    for row in rows:
        role = str(row.get("role_arn") or "").rpartition("/")[2]
        yield row["profile"], " ".join(part for part in (row.get("account_id"), role) if part)


def _own_profiles(environ: Mapping[str, str]) -> list[str]:
    from vault_client.awsfiles import headers, profile_of
    from vault_client.places import aws_config

    found: dict[str, None] = {}
    end = time.monotonic() + READING
    for header in headers(aws_config(environ)):
        if (name := profile_of(header)) is not None:
            found[name] = None
        if time.monotonic() > end:
            break
    return list(found)


def _identities(environ: Mapping[str, str]) -> Found:
    for row in asked(environ, "/v1/identities")["identities"]:
        yield row["name"], str(row.get("user_arn") or "").rpartition(":")[2]


def _grants(environ: Mapping[str, str]) -> Found:
    from vault_client.tables import peer_text

    for row in asked(environ, "/v1/grants")["grants"]:
        yield row["id"], f"{row['profile']}, {row['kind']}, {peer_text(row.get('peer'))}"


def asked(environ: Mapping[str, str], path: str, seconds: float = PATIENCE) -> Any:
    """The daemon's answer; raises Stop for one that is not there in time, however it is late."""
    previous = signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return Call(operands=[], tail=[], options={}, environ=environ).link.call("GET", path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _late(_number: int, _frame: FrameType | None) -> None:
    raise Stop("vaultd does not answer in time: type `vaultd status`")


# ---- bash: the line as it was typed ----


class Word:
    """One word of a line: what it means, and what was typed of it. `kept`: what of `text` stands before the last place
    at which readline begins a word; `quote`: the one that is still open.
    """

    __slots__ = ("kept", "quote", "text")

    def __init__(self, text: str = "", kept: str = "", quote: str = "") -> None:
        self.text = text
        self.kept = kept
        self.quote = quote

    def ending(self, value: str) -> str:
        """`value` without what readline keeps, quoted as the person began it."""
        rest = value[len(self.kept) :]
        if self.quote == "'":
            return rest.replace("'", "'\\''")
        if self.quote == '"':
            return "".join('"\\!"' if char == "!" else f"\\{char}" if char in '"\\$`' else char for char in rest)
        return "".join(char if char in _BARE or not char.isascii() else f"\\{char}" for char in rest)


def words_of(line: str, breaks: str = _BREAKS) -> list[Word]:
    """The words of a line as bash reads them, the last one unfinished, be it empty. Nothing of it is expanded."""
    words, word, begun = [], Word(), False
    escaped = False
    for char in line:
        if escaped:
            word.text += char if word.quote != '"' or char in '"\\$`' else "\\" + char
            escaped = False
        elif char == "\\" and word.quote != "'":
            escaped = begun = True
        elif word.quote:
            word.quote, word.text = ("", word.text) if char == word.quote else (word.quote, word.text + char)
        elif char in _BLANKS:
            words += [word] if begun else []
            word, begun = Word(), False
        elif char in "\"'":
            word.quote, word.kept, begun = char, word.text, True
        else:
            before, word.text, begun = word.text, word.text + char, True
            if char in breaks:
                word.kept = before if char == _HOST else word.text
    return [*words, word]


# ---- vault-client completion ----


def completion(call: Call) -> int:
    """Print the script."""
    from vault_client.functions import chosen

    call.out(script(chosen(call)))
    return 0


def script(name: str) -> str:
    """What the shell evaluates to complete our command lines."""
    from vault_client.functions import client

    return _SCRIPTS[name].replace("@CLIENT@", client(name))


_BASH = r"""_vault_client() {
  local _vc_found _vc_line _vc_at
  COMPREPLY=()
  for ((_vc_at = 2; _vc_at < COMP_CWORD; _vc_at++)); do
    if [[ ${COMP_WORDS[1]} == exec && ${COMP_WORDS[_vc_at]} == -- ]]; then
      if declare -F _command_offset >/dev/null; then
        _command_offset $((_vc_at + 1))
      elif ((COMP_CWORD == _vc_at + 1)); then
        while IFS= read -r _vc_line; do COMPREPLY+=("$_vc_line"); done <<<"$(compgen -c -- "$2")"
      else
        compopt -o default 2>/dev/null
      fi
      return 0
    fi
  done
  _vc_found=$(VAULTD_INTEGRATION=bash @CLIENT@ __complete bash "$1" "${COMP_LINE:0:COMP_POINT}" \
    "$COMP_WORDBREAKS" 2>/dev/null)
  if [[ -n $_vc_found ]]; then
    while IFS= read -r _vc_line; do COMPREPLY+=("$_vc_line"); done <<<"$_vc_found"
  fi
}
complete -o nosort -F _vault_client vault-client 2>/dev/null || complete -F _vault_client vault-client
"""

_ZSH = r"""_vault_client() {
  local -a _vc_values _vc_shown
  local _vc_row _vc_at=${words[(i)--]}
  if [[ ${words[2]-} == exec ]] && (( _vc_at < CURRENT )); then
    shift $_vc_at words
    (( CURRENT -= _vc_at ))
    _normal
    return
  fi
  local -a _vc_before=()
  if (( CURRENT > 2 )); then _vc_before=("${(@Q)words[2,CURRENT-1]}"); fi
  _vc_row=$(VAULTD_INTEGRATION=zsh @CLIENT@ __complete zsh "${(@)_vc_before}" "${(Q)PREFIX}" 2>/dev/null)
  for _vc_row in "${(@f)_vc_row}"; do
    [[ -n $_vc_row ]] || continue
    _vc_values+=("${_vc_row%%$'\t'*}")
    _vc_row=${_vc_row//$'\t'/  }
    _vc_shown+=("${_vc_row%  }")
  done
  compadd -l -d _vc_shown -a -- _vc_values
}
if (( ${+functions[compdef]} )); then compdef _vault_client vault-client; fi
"""

_FISH = r"""function __vault_client_complete
    set -l _vc_before (commandline -opc)
    set -l _vc_at (contains -i -- -- $_vc_before)
    if test "$_vc_before[2]" = exec; and test -n "$_vc_at"
        complete -C (string replace -r '^.*?\s--(\s+|$)' '' -- (commandline -cp | string collect) | string collect)
        return
    end
    set -e _vc_before[1]
    VAULTD_INTEGRATION=fish @CLIENT@ __complete fish $_vc_before (commandline -ct | string collect) 2>/dev/null
end
complete -c vault-client -e
complete -c vault-client -f -k -a '(__vault_client_complete)'
"""

_PWSH = r"""Register-ArgumentCompleter -Native -CommandName vault-client -ScriptBlock {
  param($vcWord, $vcAst, $vcPosition)
  $vcWords = @($vcAst.CommandElements | Select-Object -Skip 1 | Where-Object { $_.Extent.EndOffset -lt $vcPosition } |
    ForEach-Object { if ($null -ne $_.Value) { $_.Value } else { $_.Extent.Text } })
  $env:VAULTD_INTEGRATION = 'pwsh'
  try { $vcRows = @(@CLIENT@ __complete pwsh @vcWords "$vcWord " 2>$null) }
  finally { Remove-Item -ErrorAction SilentlyContinue Env:VAULTD_INTEGRATION }
  foreach ($vcRow in $vcRows) {
    $vcValue, $vcTold = $vcRow -split "`t", 2
    if (-not $vcValue.StartsWith($vcWord.Trim("'", '"'))) { continue }
    $vcText = $vcValue
    if ($vcText -notmatch '^[A-Za-z0-9._/-]+$') { $vcText = "'" + ($vcText -replace "(['‘’‚‛])", '$1$1') + "'" }
    if (-not $vcTold) { $vcTold = $vcValue }
    [System.Management.Automation.CompletionResult]::new($vcText, $vcValue, 'ParameterValue', $vcTold)
  }
}
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH, "pwsh": _PWSH}
