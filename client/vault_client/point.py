"""`use`, `unuse` and `exec`: a grant made, and its variables put where the caller's tools will find them.

Rules
- The daemon's answer says what to set and unset; only what depends on this process's own environment is decided here:
  the proxies' exceptions, and a region that the user chose (interface.md §3).
- `exec` looks for CMD before it asks for anything, then becomes it: no process of ours stays.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH110, PTH112, PTH113, PTH118, PTH119, PTH123
from __future__ import annotations

import os
import sys

from vault_client import shell as shells
from vault_client.ask import settled
from vault_client.cli import Call, brief
from vault_client.errors import USAGE, Refusal, Stop
from vault_client.granting import ended, granted, variables_of, wanted
from vault_client.link import quoted
from vault_client.tables import local, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from vault_client.integration import Hook

#: A subshell's own grant, so that `unuse` in it knows that only `exit` undoes it.
SUBSHELL = "VAULTD_SUBSHELL"
_COERCED = frozenset({"C.UTF-8", "C.utf8", "UTF-8"})


def use(call: Call) -> int:
    """Lines to evaluate when stdout is not a terminal, else a subshell; under shell integration its function evaluates
    them, and the grant is bound to its shell.
    """
    hook = _hook(call)
    if call.operands == ["-"]:
        call = _back(call, hook)
    body = wanted(call, kind="shell")
    if hook is not None:
        return _use_here(call, hook, body)
    if sys.stdout.isatty():
        return _subshell(call, body)
    shell = shells.calling(call.environ, call.value("shell"))
    grant = granted(call, body)
    try:
        call.out(_lines(call, shell, grant, holder=str(shells.evaluator()[0])))
    except BaseException:  # nobody has the token, and it would live for `[grants] max_age`
        ended(call, str(grant["id"]))
        raise
    _announce(call, grant, f"undo it with: {shell.undo}")
    if replaced := _replaced(call.environ):
        ended(call, replaced)
    return 0


def _hook(call: Call) -> Hook | None:
    """The function of `shell-init` that takes what we print. A variable that is not of it says nothing of the shell."""
    if shells.INTEGRATION not in call.environ:
        return None
    from vault_client.integration import Hook

    if (hook := Hook.of(call.environ)) is None or not hook.evaluates:
        call.environ = {name: value for name, value in call.environ.items() if name != shells.INTEGRATION}
        return None
    return hook


def _back(call: Call, hook: Hook | None) -> Call:
    if hook is None:
        raise Stop("use -: without shell integration nobody remembers the profile before: type its name, or "
                   "`vault-client shell-init --help`")  # fmt: skip
    return hook.back(call)


def _use_here(call: Call, hook: Hook, body: dict[str, Any]) -> int:
    shell = shells.calling(call.environ, None)
    grant = _bound(call, {**body, "pid": hook.pid})
    try:
        lines = _lines(call, shell, grant, holder=str(hook.pid)) + hook.remember(shell, call, body["profile"])
        _from_now_on()
        call.out(hook.whole(lines))
    except BaseException:
        ended(call, str(grant["id"]))
        raise
    _announce(call, grant, f"undo it with: {shell.undo}")
    _end_own(call, hook)
    return 0


def _bound(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """The grant that ends with a shell; where the daemon cannot see that shell (a container with our socket in it), one
    that ends by `unuse`.
    """
    try:
        return granted(call, body)
    except Refusal as refusal:
        if refusal.code != "BadRequest" or "field pid" not in refusal.message:
            raise
    call.say("warning: vaultd cannot see this shell, so the grant does not end with it: type `vault-client unuse`")
    return granted(call, {name: value for name, value in body.items() if name != "pid"})


def _from_now_on() -> None:
    """Ctrl-C comes too late: the shell would be left with variables of a grant that was ended, or the reverse."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_own(call: Call, hook: Hook, *, left: bool = False) -> None:
    """The grant that this very shell held until now; a parent's that it inherited is not ours to end."""
    grant = call.environ.get("VAULTD_GRANT")
    if grant and not hook.forked and call.environ.get(shells.HOLDER) == str(hook.pid):
        ended(call, grant, seconds=5.0, left=left)


def _lines(call: Call, shell: shells.Dialect, grant: dict[str, Any], *, holder: str) -> str:
    variables = {**variables_of(call.environ, grant), shells.HOLDER: holder}
    region = None if call.value("region") else variables.get("AWS_REGION")
    if region:
        decided_there = (*shells.REGION, "VAULTD_REGION")
        variables = {name: value for name, value in variables.items() if name not in decided_there}
    return shells.use_lines(shell, variables=variables, unset=grant["unset"], region=region)


def _replaced(environ: Mapping[str, str]) -> str | None:
    """The grant that these lines take the place of, when this very shell took it by eval. One that was inherited, from
    `exec`, from a subshell of `use` or from a parent shell that still works with it, is not ours to end.
    """
    grant = environ.get("VAULTD_GRANT")
    return grant if grant and environ.get(shells.HOLDER) == str(shells.evaluator()[0]) else None


def unuse(call: Call) -> int:
    """The way back; the shell's grant ends, so that children that still hold its token lose access."""
    grant = call.environ.get("VAULTD_GRANT", "")
    shell = shells.calling(call.environ, call.value("shell"))
    integrated = shells.INTEGRATION in call.environ
    hook = _hook(call)
    if grant and call.environ.get(SUBSHELL) == grant:
        if not sys.stdout.isatty():
            call.out("exit\n" if hook is None else hook.whole(""))
        call.say("this is a subshell of `vault-client use`: type exit to leave it")
        return 0
    if sys.stdout.isatty():
        call.say(f"a command cannot change its shell: type {shell.undo}")
        return USAGE
    if hook is not None:
        _from_now_on()
        call.out(hook.whole(shells.unuse_lines(shell)))
        _end_own(call, hook, left=True)
        return 0
    call.out(shells.unuse_lines(shell))
    # a function that was not taken for one drops the lines, and its shell still has the variables
    if grant and (not integrated or call.environ.get(shells.HOLDER) == str(shells.evaluator()[0])):
        ended(call, grant, left=True)
    return 0


def exec_command(call: Call) -> int:
    """Become CMD. Returns only by raising."""
    if call.flag("imds") and call.flag("env"):
        raise Stop("exec: --imds and --env exclude each other: choose one", USAGE)
    program = find_program(call.tail[0], call.environ)
    grant = granted(call, wanted(call, kind="exec"))
    environment = _environment(call, grant)
    if call.flag("env"):
        environment = _static(call, grant, environment)
    else:
        _warn(call, grant)
    _become(call, grant, program, call.tail, environment)
    return 126


def _environment(call: Call, grant: dict[str, Any]) -> dict[str, str]:
    """This process's environment as CMD or the subshell gets it."""
    environment = _uncoerced(dict(call.environ))
    variables = variables_of(call.environ, grant)
    chosen = _chosen_region(call.environ)
    if chosen and not call.value("region"):
        variables.pop("VAULTD_REGION", None)
        for name in shells.REGION:
            if name in variables:
                variables[name] = environment.get(name) or chosen
    ours = () if chosen else shells.REGION
    for name in (SUBSHELL, shells.HOLDER, shells.INTEGRATION, "VAULTD_REGION", *ours, *grant["unset"]):
        environment.pop(name, None)
    return {**environment, **variables}


def _chosen_region(environ: Mapping[str, str]) -> str:
    """The region that the user set, or nothing where none is set or an outer `use` did."""
    found = [environ.get(name, "") for name in shells.REGION]
    return "" if set(found) == {environ.get("VAULTD_REGION", "")} else found[0] or found[1]


def _uncoerced(environment: dict[str, str]) -> dict[str, str]:
    """Without the LC_CTYPE that Python gives itself in a C locale (PEP 538): CMD must not see it."""
    if environment.get("LC_CTYPE") in _COERCED and sys.platform.startswith("linux"):
        try:
            with open("/proc/self/environ", "rb") as given:
                if not any(line.startswith(b"LC_CTYPE=") for line in given.read().split(b"\0")):
                    del environment["LC_CTYPE"]
        except OSError:
            pass  # a restricted /proc: the variable is harmless
    return environment


def _static(call: Call, grant: dict[str, Any], environment: dict[str, str]) -> dict[str, str]:
    """Keys instead of the endpoint. The grant ends at once, keys or none: nobody holds its token, and it would pin the
    session.
    """
    path = f"/v1/profiles/{quoted(call.operands[0])}/credentials"
    try:
        keys = settled(call.link, "GET", path, None, token_code=call.token_code, carried=False)
    finally:
        ended(call, grant["id"])
    for name in (*shells.CONTAINER, "AWS_EC2_METADATA_DISABLED", "VAULTD_GRANT"):
        environment.pop(name, None)
    environment["AWS_ACCESS_KEY_ID"] = keys["AccessKeyId"]
    environment["AWS_SECRET_ACCESS_KEY"] = keys["SecretAccessKey"]
    environment["AWS_SESSION_TOKEN"] = keys["Token"]
    environment["AWS_CREDENTIAL_EXPIRATION"] = keys["Expiration"]
    return environment


def find_program(command: str, environ: Mapping[str, str]) -> str:
    """The file that CMD means: 127 when there is none, 126 when it may not be run (as every shell says it)."""
    if not command:
        raise Stop("the CMD after -- is empty: look at the variable that should hold its name, then type it again", 127)
    if "/" in command:
        candidates = [command]
    else:
        candidates = [os.path.join(part or ".", command) for part in environ.get("PATH", os.defpath).split(":")]
    blocked = None
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
        if os.path.exists(candidate) and (blocked is None) and ("/" in command or os.path.isfile(candidate)):
            blocked = candidate
    if blocked is not None and os.path.isdir(blocked):
        raise Stop(f"{blocked} is a directory and no program: name a program in it, then type it again", 126)
    if blocked is not None:
        raise Stop(f"{blocked} is not executable: type chmod +x {typed(blocked)} if it should be", 126)
    raise Stop(f"{brief(command)} was not found: check its name and PATH, then type it again", 127)


def _become(call: Call, grant: dict[str, Any], program: str, arguments: list[str], environment: dict[str, str]) -> None:
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores these two, and execve would pass that on
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execve(program, arguments, environment)  # noqa: S606 - becoming CMD is what exec is
    except OSError as exc:
        ended(call, grant["id"])
        missing = isinstance(exc, FileNotFoundError)  # a script whose interpreter is gone, too
        raise Stop(f"{program} cannot be run ({exc.strerror}): check its first line and mode, then type it again",
                   127 if missing else 126) from exc  # fmt: skip


def _subshell(call: Call, body: dict[str, Any]) -> int:
    chosen = call.value("shell") or call.environ.get("SHELL") or "/bin/sh"
    program = find_program(chosen, call.environ)
    grant = granted(call, {**body, "pid": os.getpid()})
    environment = _environment(call, grant)
    environment[SUBSHELL] = grant["id"]
    _announce(call, grant, "this is a subshell, type exit to leave it")
    _become(call, grant, program, [os.path.basename(program)], environment)
    return 126


def _announce(call: Call, grant: dict[str, Any], ending: str) -> None:
    role = str(grant.get("role_arn") or "").rpartition("/")[2]
    where = " ".join(part for part in (f"account {grant.get('account_id')}" if grant.get("account_id") else "",
                                       f"role {role}" if role else "") if part)  # fmt: skip
    details = ", ".join(part for part in (where, f"session until {local(grant.get('expiration'))}") if part)
    call.say(f"using {grant['profile']} ({details}, kept fresh); {ending}")
    _warn(call, grant)


def _warn(call: Call, grant: dict[str, Any]) -> None:
    """What the daemon found in its own plan, and what goes before the endpoint in the caller's own environment."""
    from vault_client import shadows

    left = {name: value for name, value in call.environ.items() if name not in grant["unset"]}
    found = [each.sentence for each in shadows.after_use({**left, **grant["set"]})]
    for warning in dict.fromkeys([*(grant.get("warnings") or ()), *found]):
        call.say(f"warning: {warning}")
