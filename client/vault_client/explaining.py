"""`explain`: the plan of a profile step by step, each value with its file and line, and what would go wrong.

Rules
- Nothing is tried: the plan is the daemon's own, what happened last is what it remembers. `--check` has it ask AWS what
  changes nothing and takes no code: whose key it is, and which MFA devices its user has.
- STS has no dry run of AssumeRole. IAM's simulator sees the user's policies and not the role's, and few may call it:
  its command is shown, not run.
"""

# pathlib may not load at start-up (architecture.md §2), so os.path it is.
# ruff: noqa: PTH111, PTH113
from __future__ import annotations

import os
import sys

from vault_client.errors import Refusal
from vault_client.link import quoted
from vault_client.tables import Ink, clean, local, span, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vault_client.cli import Call

_STEPS = {
    "mfa_session": "GetSessionToken with an MFA code",
    "session_token": "GetSessionToken without MFA",
    "assume_role": "AssumeRole",
    "assume_role_with_code": "AssumeRole with an MFA code",
}
_SIGNED = {"assume_role": "session of the role before", "assume_role_with_code": "session of the role before"}
#: As the daemon's warning at `use --imds` has it.
_IMDS_SECONDS = 1200


def explain(call: Call) -> int:
    """1 when `--check` had a no from AWS, else 0: a plan is no judgement."""
    name = call.operands[0]
    check = call.flag("check")
    plan = call.link.call("GET", f"/v1/profiles/{quoted(name)}/plan{'?check' if check else ''}")
    refused = any(not each.get("ok") for each in plan.get("checks") or ())
    if call.flag("json"):
        call.json(plan)
        return int(refused)
    ink = Ink(sys.stdout, os.environ)
    row = _row(call, name)
    lines = [ink.paint(f"{clean(plan['profile'])} of identity {clean(plan.get('identity'))}", "heading")]
    for number, step in enumerate(plan["steps"], 1):
        lines += _step(number, step)
    lines += [*_codes(plan), *_now(row, ink), *_callers(plan.get("callers"))]
    lines += _of_aws(call, plan, ink) if check else ()
    wrong, last = wrongs(plan, row, call), _last_error(row, ink)
    if wrong:
        lines += ["", "what would go wrong:", *(ink.paint(f"  - {clean(each)}", "bad") for each in wrong)]
    elif not last and not refused:  # a BAD of AWS stands right above
        lines += ["", "nothing is known that would go wrong"]
    call.out("\n".join(lines + last) + "\n")
    return int(refused)


def _row(call: Call, name: str) -> dict[str, Any]:
    rows = call.link.call("GET", "/v1/profiles").get("profiles") or ()
    return next((each for each in rows if isinstance(each, dict) and each.get("profile") == clean(name)), {})


def _step(number: int, step: dict[str, Any]) -> list[str]:
    kind = clean(_STEPS.get(step["kind"], step["kind"]))
    values = step.get("values") or ()
    source = clean(step.get("source"))
    return [
        f"{number}. {kind}, signed with the {_SIGNED.get(source, source.replace('_', ' '))}",
        *(f"     {clean(each.get('field')):<22}{clean(each.get('value')):<48}  {clean(each.get('source'))}"
          for each in values),
    ]  # fmt: skip


# ---- what it comes to ----


def _codes(plan: dict[str, Any]) -> list[str]:
    """How long one code lasts: the MFA session's life, cut by a policy on its age (aws-facts §1.2)."""
    steps = plan["steps"]
    if not steps or steps[0].get("kind") != "mfa_session":
        return []
    whole = steps[0].get("duration_seconds")
    if not isinstance(whole, int):
        return []
    values = [each for step in steps for each in step.get("values") or ()]
    limit = next((each for each in values if each.get("field") == "mfa_max_age"), None)
    if limit is None or len(steps) < 2:
        return [f"   one code lasts {span(whole)}, or less where a policy of AWS limits its age: the first no tells"]
    last = steps[1].get("duration_seconds") or 0
    age = str(limit.get("value")).rstrip("s")
    seconds = min(whole, int(age) + int(last)) if age.isdigit() else whole
    return [(f"   one code lasts about {span(seconds)}: AssumeRole until it is {clean(limit.get('value'))} old "
            f"({clean(limit.get('source'))}), and the session made last to its end")]  # fmt: skip


def _now(row: dict[str, Any], ink: Ink) -> list[str]:
    state, left = row.get("state"), row.get("seconds_left")
    if not state:
        return []
    ending = f", {span(left)} left" if isinstance(left, (int, float)) and left > 0 else ""
    return [f"   its session now: {ink.paint(clean(state).replace('_', ' '), str(state))}{ending}"]


def _callers(callers: object) -> list[str]:
    """Who is given its keys, where not simply every program of this user."""
    if not isinstance(callers, dict):
        return []
    said = []
    allowed = callers.get("allow_executables")
    if isinstance(allowed, list):
        said.append(f"only {', '.join(map(clean, allowed)) or 'nobody'} (allow_executables)")
    if callers.get("protected"):
        said.append("each program only after a person has allowed it (protected)")
    if callers.get("relays"):
        said.append(f"also {', '.join(map(clean, callers['relays']))}, which others may stand behind (relays)")
    return ["", "which programs are given its keys:", *(f"  - {each}" for each in said)] if said else []


def _of_aws(call: Call, plan: dict[str, Any], ink: Ink) -> list[str]:
    lines = ["", "what AWS says, asked just now without a code, and without changing anything:"]
    for each in plan.get("checks") or ():
        said = f"  {'ok ' if each.get('ok') else 'BAD'} {clean(each.get('name'))}: {clean(each.get('message'))}"
        lines.append(said if each.get("ok") else ink.paint(said, "bad"))
    return [*lines, *_simulation(call, plan)]


def _simulation(call: Call, plan: dict[str, Any]) -> list[str]:
    """The command of whoever may call it (iam:SimulatePrincipalPolicy), for the first role."""
    role = next((each.get("role_arn") for each in plan["steps"] if each.get("role_arn")), None)
    try:
        rows = call.link.call("GET", "/v1/identities").get("identities") or ()
    except Refusal:
        rows = ()
    user = next((each.get("user_arn") for each in rows if each.get("name") == plan.get("identity")), None)
    if not role or not user:
        return []
    with_mfa = "ContextKeyName=aws:MultiFactorAuthPresent,ContextKeyType=boolean,ContextKeyValues=true"
    return [
        "  what the user's policies say of the role (the role's own trust policy is not looked at by it):",
        (
            f"      aws iam simulate-principal-policy --policy-source-arn {typed(user)} --action-names sts:AssumeRole "
            f"--resource-arns {typed(role)} --context-entries {with_mfa}"
        ),
    ]


# ---- what would go wrong ----


def wrongs(plan: dict[str, Any], row: dict[str, Any], call: Call) -> list[str]:
    """Sentences that end in what to type: of the plan, of its state, and of the caller's own files."""
    return [
        *(str(each) for each in plan.get("problems") or ()),
        *_without_mfa(plan),
        *_short(plan),
        *_nobody(plan),
        *_state(row),
        *_shadowed(call),
    ]


def _without_mfa(plan: dict[str, Any]) -> list[str]:
    steps = plan["steps"]
    if not steps or steps[0].get("kind") != "assume_role" or plan.get("mfa_serial"):
        return []
    return [(f"no MFA device is known, so AWS refuses a role whose policy asks for MFA: write mfa_serial = ARN under "
            f"[profile {clean(plan['profile'])}] in ~/.aws/config")]  # fmt: skip


def _short(plan: dict[str, Any]) -> list[str]:
    seconds = plan["steps"][-1].get("duration_seconds") if plan["steps"] else None
    if not isinstance(seconds, int) or seconds >= _IMDS_SECONDS:
        return []
    said = f"with --imds calls can fail with ExpiredToken, because sessions live {span(seconds)} and botocore keeps"
    return [f"{said} keys of the metadata service for up to 10 minutes: type `use --imds --duration 1h`"]


def _nobody(plan: dict[str, Any]) -> list[str]:
    """`allow_executables` that lets nobody in by an entry, or at all (vaultd/config.py has the words for doctor)."""
    allowed = (plan.get("callers") or {}).get("allow_executables")
    if not isinstance(allowed, list):
        return []
    table = f"[profiles.{clean(plan['profile'])}] allow_executables"
    if not allowed:
        return [f"{table} is empty, so no program is given its keys: name one there, then type `vaultd restart`"]
    gone = [each for each in map(str, allowed) if not os.path.isfile(os.path.expanduser(each))]
    way = "which is no program here: correct that path, then type `vaultd restart`"
    return [f"{table} lets nobody in by {clean(each)}, {way}" for each in gone]


def _state(row: dict[str, Any]) -> list[str]:
    state, identity = row.get("state"), typed(row.get("identity"))
    if state == "locked":
        return ["vaultd is locked and serves nothing: type `vault-client unlock`"]
    if state == "mfa_required":
        return [f"it waits for a code, and until then SDKs are refused: type `vault-client mfa {identity}`"]
    if state == "expired":
        return [f"its session has expired: type `vault-client refresh {typed(row.get('profile'))}`"]
    return []


def _shadowed(call: Call) -> list[str]:
    from vault_client import shadows

    return [each.sentence for each in shadows.in_files(call.environ)]


def _last_error(row: dict[str, Any], ink: Ink) -> list[str]:
    """Why the last session was not made: who comes from `run vault-client explain` wants to know."""
    error = row.get("last_error")
    if not isinstance(error, dict):
        return []
    when = f" (at {local(error['time'])})" if error.get("time") else ""
    return ["", f"the last try{when} failed:", ink.paint(f"  - {_read(error)}", "bad")]


def _read(error: dict[str, Any]) -> str:
    """The sentence without its way to `explain`: the reader is there."""
    said = clean(error.get("message"))
    for way in ("; run `vault-client explain ", ", or type `vault-client explain "):
        said = said.partition(way)[0]
    return said
