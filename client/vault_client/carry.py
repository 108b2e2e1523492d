"""`export` and `credential-process`: a session's keys carried to tools that know no endpoint.

Rules
- `credential-process` never asks on this terminal, which belongs to the SDK that called it: the question is the
  daemon's, and it is waited for until it expires (interface.md §3).
- `ini` and `dotenv` have no quoting that all of their readers undo alike (docker keeps quotes, Node knows no escape but
  that of a newline, python-dotenv expands ${…} even in single quotes), so nothing in them is quoted: what would have to
  be is refused. AWS's keys and tokens are base64, which needs none.
"""

from __future__ import annotations

from vault_client.ask import ROUNDS, settled, wait_elsewhere
from vault_client.cli import Call, brief
from vault_client.errors import NEEDS_PERSON, USAGE, Refusal, Stop
from vault_client.link import quoted
from vault_client.shell import Fish, Posix, PowerShell
from vault_client.tables import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMATS = ("env", "json", "process", "ini", "dotenv", "powershell", "fish")
#: What AWS's reference allows in a profile's name; botocore and Go take more in a credentials file, the others do not.
_NAMING = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./%@:+")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=:._-")


def export(call: Call) -> int:
    """Print the keys in the format that a tool reads."""
    chosen = call.value("format") or "env"
    if chosen not in _FORMATS:
        raise Stop(f"export: there is no format {brief(chosen)}: choose one of {', '.join(_FORMATS)}", USAGE)
    path = f"/v1/profiles/{quoted(call.operands[0])}/credentials"
    keys = settled(call.link, "GET", path, None, token_code=call.token_code, carried=False)
    if chosen == "json":
        call.json(keys)
    elif chosen == "process":
        call.json(_process(keys))
    else:
        call.out(_text(chosen, call.operands[0], keys))
    if chosen == "ini" and not _NAMING.issuperset(call.operands[0]):
        call.say("warning: only botocore, the AWS CLI and Go read a section of that name: for other tools call it by "
                 "letters, digits and -_./%@:+")  # fmt: skip
    return 0


def credential_process(call: Call) -> int:
    """The JSON that `credential_process` in ~/.aws/config wants."""
    path = f"/v1/profiles/{quoted(call.operands[0])}/credentials"
    for _ in range(ROUNDS):
        try:
            call.json(_process(call.link.call("GET", path)))
        except Refusal as refusal:
            if refusal.prompt is None:
                raise
            wait_elsewhere(call.link, refusal.prompt)
        else:
            return 0
    raise Stop(f"{call.operands[0]} still needs a code: type `vault-client mfa`", NEEDS_PERSON)


def _process(keys: dict[str, Any]) -> dict[str, Any]:
    found = {
        "Version": 1,
        "AccessKeyId": keys["AccessKeyId"],
        "SecretAccessKey": keys["SecretAccessKey"],
        "SessionToken": keys["Token"],
        "Expiration": keys["Expiration"],
    }
    return {**found, "AccountId": keys["AccountId"]} if keys.get("AccountId") else found


def _text(chosen: str, profile: str, keys: dict[str, Any]) -> str:
    named = {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["Token"],
        "AWS_CREDENTIAL_EXPIRATION": keys["Expiration"],
    }
    if chosen in {"ini", "dotenv"}:
        _bare(chosen, profile, named)
    if chosen == "ini":
        lines = [f"{name.lower()} = {value}" for name, value in named.items() if name != "AWS_CREDENTIAL_EXPIRATION"]
        return "\n".join([f"[{profile}]", *lines]) + "\n"
    if chosen == "dotenv":
        return "".join(f"{name}={value}\n" for name, value in named.items())
    shell = Fish() if chosen == "fish" else PowerShell() if chosen == "powershell" else Posix()
    return "".join(shell.set(name, value) + "\n" for name, value in named.items())


def _bare(chosen: str, profile: str, named: dict[str, str]) -> None:
    """Raises Stop, naming the variable but not its value, for what one of the format's readers would take otherwise."""
    for name, value in named.items():
        if not _PLAIN.issuperset(value):
            raise Stop(f"{clean(profile)}'s {name} holds characters that readers of {chosen} take differently, so "
                       f"nothing was printed: take --format json")  # fmt: skip
