"""The command line, read by the rows of commands.py, and the one place that turns a Stop into an exit status.

Rules
- A command's module is imported when that command runs; argparse is not, because its import and one parser cost
  a third of the budget of a command (3 × `python -I -c pass`, interface.md §3). getopt reads the options.
- A command line that cannot be meant is exit 2 and names the way to the help; nothing was asked or sent by then.
"""

from __future__ import annotations

import os
import sys

from vault_client import __version__
from vault_client.commands import COMMANDS, overview, usage
from vault_client.errors import USAGE, Refusal, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vault_client.commands import Command
    from vault_client.link import Link

#: What the scripts of shell-init and completion call; nobody types them.
_UNTYPED = {"__complete": "completion:complete", "__sweep": "integration:sweep"}

#: Their stdout is for eval.
_EVALUATED = ("use", "unuse")
_BROKEN_PIPE = 141
#: Of what was typed, in a sentence about it: a variable may hold a whole file.
_SHOWN = 200
_LONGEST_NAME = 1000
#: `ls` is close to `list`; `frobnicate` is to `rotate` only by what difflib takes for near.
_CLOSE = 0.65


class Call:
    """One command line, read: operands, options, and the way to the daemon, opened when first needed."""

    def __init__(
        self, *, operands: list[str], tail: list[str], options: dict[str, str], environ: Mapping[str, str]
    ) -> None:
        self.operands = operands
        self.tail = tail
        self.environ = environ
        self._options = options
        self._link: Link | None = None
        self._typed: str | None = None

    def flag(self, name: str) -> bool:
        """Was --name given?"""
        return name in self._options

    def value(self, name: str) -> str | None:
        """The value of --name."""
        return self._options.get(name)

    @property
    def link(self) -> Link:
        """The daemon. Nothing is connected before the first call."""
        if self._link is None:
            from vault_client.link import Link
            from vault_client.places import Places

            self._link = Link(Places(self.environ))
        return self._link

    @property
    def token_code(self) -> str | None:
        """The code of --token-code, checked for its shape here so that a pasted passphrase goes nowhere. `-` is one
        line of stdin, however often it is asked for: a pipe gives it once.
        """
        given = self.value("token-code")
        if given is None:
            return None
        if self._typed is None:
            self._typed = sys.stdin.readline(4096) if given == "-" else given
        code = "".join(self._typed.split())
        if len(code) != 6 or not code.isascii() or not code.isdigit():
            raise Stop("--token-code is not six digits, so nothing was sent: give the code that the device shows")
        return code

    @staticmethod
    def out(text: str) -> None:
        """To stdout, whatever bytes a file name or a value holds."""
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
            sys.stdout.buffer.flush()
        except OSError as exc:
            _drop(1)
            if isinstance(exc, BrokenPipeError):  # `vault-client log | head`: as if SIGPIPE had ended us
                raise Stop("", _BROKEN_PIPE) from exc
            raise Stop(f"the output cannot be written ({exc.strerror}): free space or give stdout another place, then "
                       f"type it again") from exc  # fmt: skip

    def json(self, body: object) -> None:
        """The daemon's own object, for scripts."""
        import json

        self.out(json.dumps(body, indent=2) + "\n")

    @staticmethod
    def say(text: str) -> None:
        """A sentence for the person, on stderr: stdout may be meant for eval or a pipe."""
        say(text)


def say(text: str) -> None:
    """`vault-client: TEXT` on stderr, if there is one; text from elsewhere cannot move the cursor."""
    from vault_client.tables import clean

    _tell("\n".join(f"vault-client: {clean(line)}" for line in text.split("\n")) + "\n")


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _drop(2)


def _drop(number: int) -> None:
    """What a stream still holds goes nowhere: Python would try again at its end, and say so with exit 120."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def run(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """The whole program; returns the exit status of interface.md §3."""
    try:
        status = _told(arguments, environ)
    except KeyboardInterrupt:  # also while a sentence was on its way to stderr
        status = 130
    if status and arguments and arguments[0] in _EVALUATED and not sys.stdout.isatty():
        try:  # noqa: SIM105 - contextlib costs a start-up what it saves here
            Call.out(_failing(arguments, environ))
        except (Stop, KeyboardInterrupt):
            pass  # a stdout that takes nothing evaluates nothing
    return status


def _told(arguments: list[str], environ: Mapping[str, str]) -> int:
    try:
        return _run(arguments, environ)
    except Stop as stop:
        if stop.message:
            say(stop.message)
        return _exit_of(stop)


def _failing(arguments: list[str], environ: Mapping[str, str]) -> str:
    """A line that fails where it is evaluated: eval of nothing is 0, and `set -e` would go on to terraform with
    whatever identity is there.
    """
    from vault_client import shell

    chosen = None
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--shell":
            chosen = value if equals else "".join(arguments[at + 1 : at + 2])
    try:
        return shell.calling(environ, chosen).fail + "\n"
    except Stop:  # the very reason, perhaps
        return shell.Posix.fail + "\n"


def _exit_of(stop: Stop) -> int:
    # A question that nobody here was asked about: whoever raised it could not ask (interface.md §3, exit 3).
    if isinstance(stop, Refusal) and stop.code == "MfaRequired":
        return 3
    return stop.exit_status


def _run(arguments: list[str], environ: Mapping[str, str]) -> int:
    if not arguments:
        _tell(overview())
        return USAGE
    name, *rest = arguments
    if name == "help" and rest:  # as git has it
        name, rest = rest[0], ["--help"]
    if name in {"-h", "--help", "help"}:
        Call.out(overview())
        return 0
    if name in {"-V", "--version"}:
        Call.out(f"vault-client {__version__}\n")
        return 0
    if name in _UNTYPED:
        return _function(_UNTYPED[name])(rest, environ)
    command = COMMANDS.get(name)
    if command is None:
        raise _no_such(name)
    if "--help" in _ours(rest) or "-h" in _ours(rest):
        Call.out(usage(command))
        return 0
    call = _read(command, rest, environ)
    return _function(command.call)(call)


def _function(path: str) -> Callable[..., int]:
    module, _, function = path.partition(":")
    found: Callable[..., int] = getattr(__import__(f"vault_client.{module}", fromlist=[function]), function)
    return found


def _ours(rest: list[str]) -> list[str]:
    return rest[: rest.index("--")] if "--" in rest else rest


def _read(command: Command, rest: list[str], environ: Mapping[str, str]) -> Call:
    import getopt

    ours, tail = _ours(rest), rest[len(_ours(rest)) + 1 :]
    long = [option.partition("=")[0] + ("=" if "=" in option else "") for option in command.options]
    try:
        if command.tail and environ.get("VAULTD_INTEGRATION") == "pwsh":
            # PowerShell takes the `--` out of what a function of its gets: CMD is what follows PROFILE and its options
            _, after = getopt.getopt(rest, "", long)
            _, tail = getopt.getopt(after[1:], "", long)
            ours = rest[: len(rest) - len(tail)]
        pairs, operands = getopt.gnu_getopt(ours, "f" if "follow" in long else "", long)
    except getopt.GetoptError as exc:
        raise _misread(command, exc.msg) from None
    if not command.tail:
        operands, tail = operands + tail, []
    _check_operands(command, operands, tail, given=pairs)
    options = {"follow" if option == "-f" else option[2:]: value for option, value in pairs}
    return Call(operands=operands, tail=tail, options=options, environ=environ)


def _check_operands(command: Command, operands: list[str], tail: list[str], *, given: list[tuple[str, str]]) -> None:
    if command.tail and not tail:
        raise _no_command(command, operands, given)
    if len(operands) < command.least:
        raise _misread(command, f"{command.operands.split()[0]} is missing")
    if len(operands) > command.most:
        parted = command.operands.partition(" -- ")[0].endswith(("PROFILE", "PROFILE]", "IDENTITY", "IDENTITY]"))
        why = "is one too many, or part of a name that goes in quotes" if parted else "is one too many"
        raise _misread(command, f"{operands[command.most]} {why}")
    for operand in operands:
        if not operand or not (operand.isprintable() or _is_shown(operand)):
            raise _misread(command, "a name is empty or has characters that cannot be shown")
        if len(operand) > _LONGEST_NAME:
            raise _misread(command, f"a name has {len(operand)} characters, and no more than {_LONGEST_NAME} are taken")


def _is_shown(text: str) -> bool:
    """The contract's rule (interface.md §6), which lets the joiner of an emoji through."""
    from vault_client.tables import clean

    return clean(text) == text


def _no_command(command: Command, operands: list[str], given: list[tuple[str, str]]) -> Stop:
    """`exec P env`: the two dashes are forgotten, and everything is there to say where they belong. A token code is not
    repeated.
    """
    if len(operands) < 2:
        return _misread(command, "no CMD after --")
    from vault_client.tables import typed

    options = [option if not value else f"{option} {typed(value)}" for option, value in given if "code" not in option]
    meant = brief(" ".join([*options, typed(operands[0]), "--", *map(typed, operands[1:])]))
    return Stop(f"{command.name}: no CMD after --: type `vault-client {command.name} {meant}`", USAGE)


def _misread(command: Command, why: str) -> Stop:
    return Stop(f"{command.name}: {brief(why)}: type `vault-client {command.name} --help`", USAGE)


def brief(typed: str) -> str:
    """What was typed, as a sentence repeats it: cut to 200 characters."""
    return typed if len(typed) <= _SHOWN else typed[: _SHOWN - 1] + "…"


def _no_such(name: str) -> Stop:
    import difflib

    close = difflib.get_close_matches(brief(name), COMMANDS, n=2, cutoff=_CLOSE)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return Stop(f"there is no command {brief(name)}{meant}: type `vault-client --help`", USAGE)
