"""`vault-client prompt`: which profile this shell is pointed at, and how long its session lasts, for PS1.

Rules
- On whatever failure nothing is printed and the exit status is 0; a daemon that is slow is a failure after 0.15 s.
- A prompt may be read again by the shell that shows it: bash runs `$(…)` and takes backslashes where it stands in PS1,
  zsh takes `%`, and `!` with PROMPT_BANG. No such character leaves here: each is shown by its wide likeness.
"""

from __future__ import annotations

import time

from vault_client.cli import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 0.15
_LONGEST = 60
_WORDS = {"mfa_required": "code", "none": "…"}
#: U+FF01 to U+FF5E repeat ASCII, wide.
_WIDE = {ord(char): ord(char) + 0xFEE0 for char in "!\"$%'()\\`{}<>&;|#"}


def prompt(call: Call) -> int:
    """`web-admin·59m`; else what is missing: a session (`…`, `code`, `locked`, `expired`, `error`) or this shell's
    grant, without which no call is answered (`expired`; `error`: the profile means another role by now, or is gone).
    """
    name = call.environ.get("VAULTD_PROFILE")
    try:
        if name:
            call.out(_line(call, name) + "\n")
    except Exception:  # noqa: BLE001, S110 - a prompt comes whatever it is that failed
        pass
    return 0


def _line(call: Call, name: str) -> str:
    from vault_client.completion import asked
    from vault_client.link import quoted
    from vault_client.tables import clean, fit

    end = time.monotonic() + PATIENCE
    left = _of_grant(call.environ)
    if not left:
        patience = max(end - time.monotonic(), 0.001)  # 0 would be no end at all
        rows = asked(call.environ, f"/v1/profiles?profile={quoted(name)}", patience)["profiles"]
        left = _left(next(row for row in rows if row["profile"] == clean(name)))
    return f"{fit(clean(name), _LONGEST).translate(_WIDE)}·{fit(clean(left), _LONGEST)}"


def _of_grant(environ: Mapping[str, str]) -> str:
    """Why this shell gets nothing, whatever session there is; empty where a daemon of before does not say."""
    from vault_client.completion import asked
    from vault_client.errors import Refusal
    from vault_client.link import quoted

    identifier = environ.get("VAULTD_GRANT")
    try:
        refused = identifier and asked(environ, f"/v1/grants/{quoted(identifier)}", PATIENCE).get("refused")
    except Refusal as refusal:
        return "expired" if refusal.code == "UnknownGrant" else ""
    return "error" if refused else ""


def _left(row: dict[str, object]) -> str:
    seconds = row.get("seconds_left")
    if isinstance(seconds, (int, float)) and seconds > 0:
        minutes = int(seconds) // 60
        return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m" if minutes else "<1m"
    state = str(row.get("state"))
    return _WORDS.get(state, state.translate(_WIDE))  # of what took the daemon's place, perhaps
