"""The picker: which profile, when a command was typed without one. `choose` is what `use`, `exec` and `login` call.

Rules
- Only a person is asked: stderr is a terminal, and there is one to read from. Anybody else gets exit 2, as before.
- What is chosen is a name, as if it had been typed: the daemon looks at its config afresh, and says what is wrong.
- Nothing is done until Enter. Esc, Ctrl-C and Ctrl-G leave (130, as fzf does), and say that nothing was done.
- The screen is screen.py's, what is on it offer.py's; where none is to be drawn on, a numbered list is printed, and a
  line is read.
- What is typed narrows the list (nearness.py); until then the most used come first (habits.py).
"""

from __future__ import annotations

import os
import sys
import termios

from vault_client import habits
from vault_client.errors import MISCONFIGURED, USAGE, Stop
from vault_client.nearness import Row, fitting
from vault_client.offer import Offer, frame, heading, joined, page_height, take
from vault_client.screen import Screen
from vault_client.tables import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from vault_client.cli import Call

_LONGEST_NAME = 1000
_LONGEST_LINE = 4096
_LISTED = 20
_CANCEL = frozenset({"esc", "ctrl-c", "ctrl-g", "ctrl-\\"})


def choose(call: Call, purpose: str) -> str:
    """The profile that the person at this terminal chooses. `purpose` is the command: `use`, `exec` or `login`. Raises
    Stop: 2 without a terminal, 130 when nothing was chosen, 1 when there is nothing to choose, 69 without a daemon.
    """
    if not sys.stderr.isatty():
        raise _missing(purpose)
    rows = _rows(call, purpose)
    screen = Screen.find(call.environ)
    try:
        found = _listed(rows, purpose) if screen is None else _drawn(screen, rows, purpose, call.environ)
    except KeyboardInterrupt:
        found = None
    except SystemExit as ended:  # a signal; what evaluates our lines is to hear of it, so this ends as a Stop does
        raise Stop("", int(ended.code or 0)) from None
    if found is None:
        words = "exec -- CMD" if purpose == "exec" else purpose  # `exec` alone would be refused
        raise Stop(f"nothing was chosen, so nothing was done: type `vault-client {words}` for the list again, or add "
                   "the name of a profile", 130)  # fmt: skip
    return found


def _missing(purpose: str) -> Stop:
    return Stop(f"{purpose}: PROFILE is missing: type `vault-client {purpose} --help`", USAGE)


def _rows(call: Call, purpose: str) -> list[Row]:
    """What can be chosen, most used first, then as in `list`."""
    body = call.link.call("GET", "/v1/profiles")
    used = habits.scores(call.environ)
    try:
        rows = [Row(each, used.get(str(each["profile"]), 0.0)) for each in body["profiles"]]
    except (TypeError, KeyError, AttributeError):
        raise Stop("vaultd sent a list that is none of profiles: look who answers with `vaultd status`, or type "
                   "`vaultd restart`") from None  # fmt: skip
    # The command line takes no other name, either.
    rows = [row for row in rows if clean(row.name) == row.name and 0 < len(row.name) <= _LONGEST_NAME]
    if not rows:
        raise _nothing(body, purpose)
    rows.sort(key=lambda row: -row.used)
    return rows


def _nothing(body: dict[str, Any], purpose: str) -> Stop:
    trouble = body.get("trouble")
    if trouble:
        return Stop(str(trouble[0] if isinstance(trouble, list) else trouble), MISCONFIGURED)
    return Stop("there is no profile to choose: write `[profile NAME]` and below it `source_profile = IDENTITY` and "
                f"`role_arn = ARN` to ~/.aws/config, then type `vault-client {purpose}`")  # fmt: skip


# ---- on a screen ----


def _drawn(screen: Screen, rows: Sequence[Row], purpose: str, environ: Mapping[str, str]) -> str | None:
    shown = Offer(rows)
    with screen:
        while True:
            lines, cursor = frame(shown, purpose, screen.size, screen.ink(environ))
            screen.draw(lines, cursor)
            for key in joined(screen.wait()[0]):
                if key in _CANCEL or (key == "ctrl-d" and not shown.typed):
                    return None
                if key == "enter" and shown.found:
                    return shown.found[shown.at].name
                if key == "ctrl-z":
                    screen.suspend()
                take(shown, key, height=page_height(screen.size))


# ---- on a terminal that shows lines ----


def _listed(rows: Sequence[Row], purpose: str) -> str | None:
    """A numbered list, and a line to type a number or a part of a name on: for dumb terminals and screen readers."""
    try:
        device, owned = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC), True
    except OSError:
        device, owned = 0, False
    if not owned and not sys.stdin.isatty():
        raise _missing(purpose)
    try:
        return _numbered(rows, purpose, device, device if owned else 2)
    except (OSError, termios.error):  # the terminal went away
        return None
    finally:
        if owned:
            os.close(device)


def _numbered(rows: Sequence[Row], purpose: str, source: int, target: int) -> str | None:
    termios.tcflush(source, termios.TCIFLUSH)  # what was typed before the list was seen chooses nothing on it
    found = list(rows)
    while True:
        _tell(target, listing(found, purpose))
        typed = _typed_line(source)
        if not typed:
            return None
        chosen = _numbered_one(found, typed)
        if chosen is not None:
            return chosen
        narrowed = fitting(rows, typed)
        if not narrowed:
            _tell(target, f"nothing fits {clean(typed)}\n")
        found = narrowed or found


def _numbered_one(found: Sequence[Row], typed: str) -> str | None:
    if typed.isascii() and typed.isdigit() and len(typed) < 6 and 0 < int(typed) <= min(len(found), _LISTED):
        return found[int(typed) - 1].name
    return next((row.name for row in found if row.name == typed), None)


def listing(rows: Sequence[Row], purpose: str) -> str:
    """The first of them, a line each, and what can be typed."""
    lines = []
    for number, row in enumerate(rows[:_LISTED], 1):
        beside = (row.account and f"account {row.account}", row.role and f"role {row.role}", row.session)
        lines.append(", ".join(part for part in (f"{number}. {row.name}", *beside) if part))
    if len(rows) > _LISTED:
        lines.append(f"and {len(rows) - _LISTED} more")
    lines.append(f"{heading(purpose)}: a number, a part of a name, or Enter to leave: ")
    return "\n".join(lines)


def _tell(target: int, text: str) -> None:
    raw = text.encode("utf-8", "replace")
    while raw:
        raw = raw[os.write(target, raw) :]


def _typed_line(source: int) -> str:
    typed = bytearray()
    while not typed.endswith(b"\n") and len(typed) < _LONGEST_LINE:
        piece = os.read(source, 4096)
        if not piece:
            break
        typed += piece
    return typed.decode("utf-8", "replace").strip()
