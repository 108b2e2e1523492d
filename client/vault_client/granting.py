"""A grant: asked for by the options of `use` and `exec`, looked at before anything of it is used, and ended.

Rules
- No token leaves before the kernel said that the port it is good for is ours (security.md §1 T3).
- What an answer says to set is of interface.md's list and of one line, or it is no answer of vaultd's.
- A grant of which nothing comes is ended here: it would live for `[grants] max_age`.
"""

from __future__ import annotations

from vault_client import habits
from vault_client import shell as shells
from vault_client.ask import settled
from vault_client.cli import Call, brief
from vault_client.errors import USAGE, Refusal, Stop
from vault_client.link import PATIENCE, check_listener, quoted
from vault_client.tables import clean, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_EXCEPTIONS = ("NO_PROXY", "no_proxy")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset("0123456789")
_LONGEST_VALUE = 8192


def wanted(call: Call, *, kind: str) -> dict[str, Any]:
    """The body of POST /v1/grants; where no PROFILE was typed, a person at a terminal chooses one."""
    body: dict[str, Any] = {"kind": kind}
    if call.flag("imds"):
        body["imds"] = True
    if (region := call.value("region")) is not None:
        body["region"] = asked_region(region)
    if (duration := call.value("duration")) is not None:
        body["duration_seconds"] = asked_seconds(duration)
    if not call.operands:  # last: nobody chooses for a command line that cannot be meant
        from vault_client.picker import choose

        call.operands.append(choose(call, "exec" if kind == "exec" else "use"))
    return {"profile": call.operands[0], **body}


def asked_region(text: str) -> str:
    """As the daemon will take it: `[a-z]{2,}(-[a-z]+)+-[0-9]+`, without the import of re."""
    *names, number = text.split("-")
    fits = len(text) <= 63 and len(names) >= 2 and len(names[0]) >= 2 and number and not set(number) - _DIGITS
    if not (fits and all(name and not set(name) - _LETTERS for name in names)):
        raise Stop(f"--region {brief(text)} is no region: give one such as eu-west-1", USAGE)
    return text


def asked_seconds(text: str) -> int:
    """Of --duration, within what AWS gives."""
    count, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (count.isascii() and count.isdigit()):
        raise Stop(f"--duration {brief(text)} is no length of time: write it as 45m or 2h", USAGE)
    seconds = int(count) * _UNITS[unit]
    if not 900 <= seconds <= 43200:
        raise Stop(f"--duration {brief(text)} is not what AWS allows: choose from 15m to 12h", USAGE)
    return seconds


def granted(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """The grant, fit to be used: a code is asked for if need be, and the use is counted."""
    grant: dict[str, Any] = settled(call.link, "POST", "/v1/grants", body, token_code=call.token_code)
    try:
        _check_shape(grant)
        _check_grant(grant, imds=call.flag("imds"))
        habits.count(call.environ, call.operands[0])
    except BaseException:  # Ctrl-C, too: nobody would know of it
        if isinstance(grant, dict):
            ended(call, str(grant.get("id")))
        raise
    return grant


def _check_shape(grant: Any) -> None:
    """What is set is of interface.md's list, and one line of text: a process that took the daemon's place names no PATH
    and no PROMPT_COMMAND for a shell that would obey it, and nothing here ends in a traceback between grant and lines.
    """
    try:
        variables, unset = dict(grant["set"]), list(grant["unset"])
        texts = [grant["id"], grant["profile"], *variables.values(), *(grant.get("warnings") or ())]
    except (TypeError, ValueError, KeyError, AttributeError):
        raise _no_grant("an answer that is no grant") from None
    for name in (*variables, *unset):
        if name not in shells.MANAGED:
            raise _no_grant(f"the variable {brief(clean(name))}, which is none of those that use and exec set")
    if not all(map(_is_line, texts)):
        raise _no_grant("a value that is no line of text")


def _is_line(text: object) -> bool:
    if not isinstance(text, str) or len(text) > _LONGEST_VALUE:
        return False
    try:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # a path may be of any bytes
    except UnicodeEncodeError:
        return False
    return clean(shown) == shown


def _no_grant(what: str) -> Stop:
    return Stop(f"vaultd sent {what}, so nothing was set: look who answers with `vaultd status`, or type "
                "`vaultd restart`")  # fmt: skip


def _check_grant(grant: dict[str, Any], *, imds: bool) -> None:
    variables, unset = grant["set"], grant["unset"]
    wanted, others = (shells.IMDS, shells.CONTAINER) if imds else (shells.CONTAINER, shells.IMDS)
    if set(others) & set(variables):  # an SDK that finds both asks the one that was not meant
        raise Stop("vaultd sent the variables of the other endpoint, so none was used: type `vaultd restart`")
    if imds and ("AWS_EC2_METADATA_DISABLED" in variables or "AWS_EC2_METADATA_DISABLED" not in unset):
        raise Stop("vaultd left the metadata endpoint switched off, so it was not used: type `vaultd restart`")
    for name in wanted[:2] if imds else wanted[:1]:
        again = "type the same again, for another port" if imds else ""
        check_listener(_own_port(str(variables.get(name, "")), closed=imds), again=again)


def _own_port(url: str, *, closed: bool) -> int:
    """The port of a URL on 127.0.0.1; `closed`: nothing but the slash that AWS CLI 2 needs comes after it."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    name, _, port = host.partition(":")
    if scheme != "http" or name != "127.0.0.1" or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise Stop("vaultd sent an address that is not on 127.0.0.1, so it was not used: type `vaultd restart`")
    if closed and (path or not rest.endswith("/")):
        raise Stop("vaultd sent a metadata address that does not end in its port and a slash, which AWS CLI 2 needs, "
                   "so it was not used: type `vaultd restart`")  # fmt: skip
    return int(port)


def ended(call: Call, grant: str, *, seconds: float = PATIENCE, left: bool = False) -> None:
    """It is over, or a sentence says why it may not be. `left`: by `unuse`, which has done all but this."""
    try:
        call.link.call("DELETE", f"/v1/grants/{quoted(grant)}", seconds=seconds)
    except Refusal:
        pass  # it is over already
    except Stop as stop:
        why, _, way = stop.message.rpartition(": ")
        said = f"this shell is as before, but its grant {brief(grant)} was not ended, because {why}: {way}, then "
        call.say(f"{said}`vault-client revoke {typed(grant)}`" if left else stop.message)


def variables_of(environ: Mapping[str, str], grant: dict[str, Any]) -> dict[str, str]:
    """What to set, with the proxies' exceptions extended rather than replaced, and VAULTD_REGION for a --region."""
    variables: dict[str, str] = dict(grant["set"])
    for name, other in (_EXCEPTIONS, _EXCEPTIONS[::-1]):
        # Programs read one of the two spellings: a new one must not hide what the other says.
        present = environ.get(name) or environ.get(other) or ""
        variables[name] = _extended(present, variables.get(name, "127.0.0.1,localhost"))
    if region := variables.get("AWS_REGION"):
        variables["VAULTD_REGION"] = region
    return variables


def _extended(present: str, wanted: str) -> str:
    entries = [entry.strip() for entry in present.split(",") if entry.strip()]
    if "*" in entries:
        return present
    return ",".join([*entries, *(entry for entry in wanted.split(",") if entry not in entries)])
