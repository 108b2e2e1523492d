"""`vault-client prompt`: which profile this shell is pointed at, and how long its session lasts, for PS1.

Rules
- On whatever failure nothing is printed and the exit status is 0; a daemon that is slow is a failure after 0.15 s.
- A prompt may be read again by the shell that shows it: bash runs `$(…)` and takes backslashes where it stands in PS1,
  zsh takes `%`, and `!` with PROMPT_BANG. No such character leaves here: each is shown by its wide likeness.
"""

from __future__ import annotations

from vault_client.cli import Call

PATIENCE = 0.15
_LONGEST = 60
_WORDS = {"mfa_required": "code", "none": "…"}
#: U+FF01 to U+FF5E repeat ASCII, wide.
_WIDE = {ord(char): ord(char) + 0xFEE0 for char in "!\"$%'()\\`{}<>&;|#"}


def prompt(call: Call) -> int:
    """`web-admin·59m`; without a session what is missing: `code`, `locked`, `expired`, `error`."""
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

    rows = asked(call.environ, f"/v1/profiles?profile={quoted(name)}", PATIENCE)["profiles"]
    row = next(row for row in rows if row["profile"] == clean(name))
    return f"{fit(clean(name), _LONGEST).translate(_WIDE)}·{fit(clean(_left(row)), _LONGEST)}"


def _left(row: dict[str, object]) -> str:
    seconds = row.get("seconds_left")
    if isinstance(seconds, (int, float)) and seconds > 0:
        minutes = int(seconds) // 60
        return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}m" if minutes else "<1m"
    state = str(row.get("state"))
    return _WORDS.get(state, state.translate(_WIDE))  # of what took the daemon's place, perhaps
