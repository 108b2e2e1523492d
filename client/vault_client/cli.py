"""The command line: which commands there are, what each takes, and the one place that turns a Stop into an exit status.

Rules
- A command's module is imported when that command runs; argparse is not, because its import and one parser cost
  a third of the budget of a command (3 × `python -I -c pass`, interface.md §3). getopt reads the options.
- A command line that cannot be meant is exit 2 and names the way to the help; nothing was asked or sent by then.
"""

from __future__ import annotations

import os
import sys

from vault_client import __version__
from vault_client.errors import USAGE, Refusal, Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vault_client.link import Link

_OPTIONS = {
    "abandon": "delete the new key that is not in use yet; the old one stays",
    "all": "every grant",
    "backend=B": "file or secret-service, where aws-vault keeps its keys; else as aws-vault would find out",
    "check": "ask AWS, too, what takes no code and changes nothing: whose key it is, which MFA devices it lists",
    "container": "in a Firefox container or Chrome profile of its own: two accounts side by side",
    "delete-source": "delete each key there, after it was stored and read back",
    "duration=D": "ask AWS for sessions of this length: 45m, 2h (a new MFA code may be needed above 1h)",
    "env": "static keys in the environment, for tools that know no endpoint; they end with the session",
    "follow": "go on as lines are written (also -f)",
    "grace=D": "keep the old key Inactive for so long before it is deleted: 24h (default), 7d, 0s",
    "fix": "show what is safe to mend (modes of vaultd's own files, left-over tokens, variables), ask, and do it",
    "format=F": "env (default), json, process, ini, dotenv, powershell or fish",
    "from-credentials-file": "take the key from the section of that name in ~/.aws/credentials",
    "from-env": "take the key from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "imds": "the EC2 metadata endpoint, for tools that know no container endpoint",
    "json": "one JSON object on stdout, for scripts",
    "logout-first": "sign the browser out of the console first, where AWS wants that",
    "mfa-serial=ARN": "the MFA device, where it cannot be detected",
    "plain": "with --watch a line for each change instead of a table, for screen readers (VAULTD_PLAIN=1: always)",
    "profile=P": "only this profile's lines",
    "region=R": "this region instead of the profile's",
    "sdk": "where each SDK would get its credentials from in this shell",
    "replace": "replace the key that is stored under that name",
    "service=S": "the page to open: s3, ec2, elasticbeanstalk, …",
    "shell=S": "bash, zsh, sh, fish or pwsh, where the calling shell is not recognised",
    "stdin": "read it from stdin instead of the terminal",
    "stdout": "print the sign-in URL, which is a credential for 15 minutes, and open nothing",
    "token-code=CODE": "the MFA code, if one is needed; - reads one line of stdin",
    "undo": "set the old key Active again, for what still needs it",
    "watch": "a live table until q or Ctrl-C: time left, questions to answer in place, grants, denials",
    "yes": "go on without asking, after showing what will be done",
}
#: Where a command means something else by an option.
_OWN = {
    ("doctor", "profile=P"): "--sdk for a tool that is told --profile P",
    ("login", "duration=D"): "a console session of this length: 45m, 8h (above 1h it takes a code of its own)",
    ("login", "region=R"): "the console's region instead of the profile's",
}
_EXAMPLES = {
    "shell-init": (
        'bash, in ~/.bashrc:  eval "$(vault-client shell-init bash)"',
        'zsh, in ~/.zshrc:    eval "$(vault-client shell-init zsh)"',
        "fish, in config.fish: vault-client shell-init fish | source",
        "pwsh, in $PROFILE:    vault-client shell-init pwsh | Out-String | Invoke-Expression",
    ),
    "completion": ('eval "$(vault-client completion bash)"', "vault-client completion fish | source"),
    "prompt": (r"""bash: PS1='${VAULTD_PROFILE:+[$(vault-client prompt)] }\$ '""",),
    "use": (
        'eval "$(vault-client use PROFILE)"',
        'eval "$(vault-client use --imds PROFILE)"',
        "with shell integration (shell-init), no eval:  vault-client use PROFILE, and back:  vault-client use -",
    ),
    "export": ('eval "$(vault-client export PROFILE)"', "vault-client export PROFILE --format dotenv > .env"),
    "credential-process": (
        "in ~/.aws/config, in a profile of its own, with quotes as a shell has them:",
        "    credential_process = vault-client credential-process PROFILE",
        "    credential_process = vault-client credential-process 'team prod'",
    ),
    "exec": ("vault-client exec PROFILE -- terraform apply", "vault-client exec --imds PROFILE -- CMD"),
}


#: Operands of a command that takes as many as there are.
_MANY = 10_000


class Command:
    """One row of the table. `call` is module:function; `operands` are those of the usage line."""

    __slots__ = ("call", "most", "name", "operands", "options", "summary", "tail")

    def __init__(self, name: str, operands: str, options: str, call: str, summary: str) -> None:
        self.name = name
        self.operands = operands
        self.options = options.split()
        self.call = call
        self.summary = summary
        self.tail = "--" in operands
        self.most = _MANY if operands.endswith("…]") else 1 if operands else 0

    @property
    def least(self) -> int:
        """How many operands there must be."""
        return 0 if not self.operands or self.operands.startswith("[") else 1


_TABLE = (
    Command("add", "IDENTITY", "replace stdin from-env from-credentials-file mfa-serial=ARN json", "keys:add",
            "store a long-term access key: asks for it, verifies it with AWS, finds its MFA device"),
    Command("identities", "", "json", "keys:identities", "list the stored keys"),
    Command("remove", "IDENTITY", "", "keys:remove", "forget a key, its sessions and the grants that need it"),
    Command("import", "aws-credentials|aws-vault [NAME…]", "delete-source backend=B stdin yes json", "importing:run",
            "store keys that lie in ~/.aws/credentials or in aws-vault: shows them, asks once, verifies each"),
    Command("rotate", "IDENTITY", "grace=D undo abandon token-code=CODE json", "rotating:rotate",
            "put a new access key in the place of the old one, step by step; again: go on where it stopped"),
    Command("use", "[PROFILE]", "imds region=R duration=D shell=S token-code=CODE", "point:use",
            'point this shell at a profile: eval "$(vault-client use PROFILE)", or typed bare for a subshell'),
    Command("unuse", "", "shell=S", "point:unuse", 'undo use: eval "$(vault-client unuse)"'),
    Command("exec", "[PROFILE] -- CMD…", "imds env region=R duration=D token-code=CODE", "point:exec_command",
            "become CMD with a profile in its environment, until CMD ends"),
    Command("list", "", "json", "show:list_profiles", "every profile: account, role, identity, MFA, session state"),
    Command("status", "", "json watch plain", "show:status", "the daemon, its sessions, grants and open questions"),
    Command("explain", "PROFILE", "check json", "explaining:explain",
            "how a profile gets its session, step by step, and what would go wrong"),
    Command("mfa", "[IDENTITY]", "token-code=CODE", "sessions:mfa", "answer the open question, or open a session"),
    Command("refresh", "PROFILE", "token-code=CODE", "sessions:refresh", "get a new session now"),
    Command("clear", "[PROFILE]", "", "sessions:clear", "drop a profile's sessions, or all, MFA sessions too"),
    Command("lock", "", "", "sessions:lock", "forget keys and sessions in memory and serve nothing"),
    Command("unlock", "", "stdin", "sessions:unlock", "open the store again"),
    Command("grants", "", "json", "show:grants", "who holds a token, for which profile, since when, last use"),
    Command("revoke", "[GRANT]", "all", "sessions:revoke", "end a grant, or all of them"),
    Command("export", "PROFILE", "format=F token-code=CODE", "carry:export", "print a session's keys"),
    Command("login", "[PROFILE]", "service=S region=R duration=D logout-first container stdout token-code=CODE",
            "login:login", "open the AWS console in a browser, signed in as the profile's role"),
    Command("credential-process", "PROFILE", "", "carry:credential_process",
            "for credential_process in ~/.aws/config: never asks here, waits until somebody answered"),
    Command("doctor", "", "sdk profile=P fix yes json", "doctor:doctor",
            "what keeps this shell's tools from vaultd, and the remedy for each"),
    Command("log", "", "follow json profile=P", "show:log", "the audit log: who was given what, and why not"),
    Command("shell-init", "bash|zsh|fish|pwsh", "", "integration:shell_init",
            "shell integration: what an rc file evaluates, so that use and unuse change the shell itself"),
    Command("completion", "bash|zsh|fish|pwsh", "", "completion:completion", "print the completion alone"),
    Command("prompt", "", "", "promptline:prompt", "profile·time-left, for a prompt; nothing where nothing is in use"),
)  # fmt: skip
COMMANDS = {command.name: command for command in _TABLE}
#: What the scripts of shell-init and completion call; nobody types them.
_UNTYPED = {"__complete": "completion:complete", "__sweep": "integration:sweep"}

#: Their stdout is for eval.
_EVALUATED = ("use", "unuse")
_BROKEN_PIPE = 141
#: Of what was typed, in a sentence about it: a variable may hold a whole file.
_SHOWN = 200
_LONGEST_NAME = 1000


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
        """The code of --token-code, checked for its shape here so that a pasted passphrase goes nowhere."""
        given = self.value("token-code")
        if given is None:
            return None
        code = "".join((sys.stdin.readline(4096) if given == "-" else given).split())
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
        raise _misread(command, f"{operands[command.most]} is one too many")
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

    close = difflib.get_close_matches(brief(name), COMMANDS, n=2)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return Stop(f"there is no command {brief(name)}{meant}: type `vault-client --help`", USAGE)


def overview() -> str:
    """`vault-client --help`."""
    rows = "\n".join(f"  {command.name:<20}{command.summary}" for command in _TABLE)
    return (
        "usage: vault-client COMMAND …\n\n"
        "Points shells, commands and tools at AWS profiles that vaultd keeps fresh.\n\n"
        f"{rows}\n\nEach has --help. Also: vault-client --version.\n\n"
        "Exit status: 0 ok, 1 refused, 2 usage, 3 a person is needed and no terminal is there, 69 vaultd is\n"
        "not running, 75 try again later, 78 a configuration file needs a change; exec ends with the command's own.\n"
    )


def usage(command: Command) -> str:
    """`vault-client COMMAND --help`."""
    first, dashes, last = command.operands.partition(" -- ")
    brackets = " ".join(f"[--{option.replace('=', ' ')}]" for option in command.options)
    line = " ".join(part for part in ("usage: vault-client", command.name, first, brackets) if part)
    rows = "".join(f"  --{option.replace('=', ' '):<24}{told}\n" for option, told in option_rows(command.name))
    shown = "".join(f"  {each}\n" for each in _EXAMPLES.get(command.name, ()))
    parts = (f"{line}{dashes}{last}\n", f"{command.summary}\n", rows, f"For example:\n{shown}" if shown else "")
    return "\n".join(part for part in parts if part)


def option_rows(name: str) -> list[tuple[str, str]]:
    """Each option of a command, as the table has it (`region=R`), and what it means there."""
    return [(option, _OWN.get((name, option), _OPTIONS[option])) for option in COMMANDS[name].options]
