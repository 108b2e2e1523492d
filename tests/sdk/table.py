"""docs/sdk-matrix.md, as the run saw it: same words in the same order each time, seconds rounded to whole ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pytest

from tests.sdk.play import EXPIRIES, LONG, SHORT, Cell, Findings, Held, Met
from tests.sdk.predictions import PREDICTIONS
from tests.sdk.programs import DIALECTS, Dialect
from tests.sdk.rows import MFA_REQUIRED, ROWS

#: Of a text, in the file.
LONGEST = 280
#: What was measured here, twice and more, and is not in sdk-facts, or otherwise there; predictions.py goes by these.
FACTS = """\
## Beside sdk-facts

- awscrt 0.38.1 (C runtime) takes no metadata token of more than 64 bytes: it fetches it, and then says that there are
  no credentials. vaultd's have 56, as EC2's.
- pyarrow 26.0.1 (C++ SDK) looks at IMDS again 5 minutes after the last time, whatever the end of the keys is. Sessions
  of an hour are served with 25 minutes left, those of 900 s with 7.
- go-v2 starts its whole look-up anew twice when the endpoint says 503 or nobody listens: 5 to 20 s, with pauses drawn
  by chance. A 4xx ends it at once.
- botocore pauses for a second after its third and last try, too: 3 s until an error is told.
- The Rust SDK shows the whole reply of IMDS in its error, our sentence with it; of the container endpoint only the
  status.
"""

#: Where a run keeps the table that it prints at its end.
TABLE = pytest.StashKey[str]()

HEAD = """\
# Real SDKs and vaultd

Written by `make test-sdk` as it saw them: one small program per SDK with its default credential chain (tests/sdk), in
the environment that `vault-client use` (ecs: the container endpoint) or `vault-client use --imds` (imds) prints. AWS
is the strict emulator of tests/strict_sts, which verifies every signature.

- *first call*: it signed a call with keys that AssumeRole had issued for it.
- *refresh seen*: it called every few seconds through three expiries and more, no call failed, and the emulator saw new
  access keys each time.
- *text on MFA needed*: whether its user reads the daemon's own sentence, which says what to type, and after how long.
- *hold tolerated*: how long it waited for a code that was typed in another terminal, and then succeeded on its first
  call. vaultd ends the hold of Rust at 21 s and of object_store at 25 s, before they give up; IMDS is never held.
"""


def document(found: Findings) -> str:
    """The whole file."""
    parts = [HEAD, _lines(matrix(found)), _again(found), "## What its user is told", _told(found)]
    parts += ["## Every error, in seconds until it gave up", "`*`: its user was shown the daemon's own sentence."]
    parts += [_lines(errors(found)), FACTS]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def matrix(found: Findings) -> list[Sequence[str]]:
    """The table of the issue: a line for each client and dialect."""
    head = ("client", "version", "dialect", "first call", "refresh seen", "text on MFA needed", "hold tolerated")
    return [head, *(_line(found, cell) for cell in found.first)]


def _line(found: Findings, cell: Cell) -> tuple[str, ...]:
    client, dialect = cell
    first = "ok" if found.first[cell].verified else "FAILED"
    return (
        client,
        found.versions[client],
        dialect,
        first,
        _refresh(found, cell),
        _text(found, cell),
        _hold(found, cell),
    )


def _refresh(found: Findings, cell: Cell) -> str:
    lived = found.lived.get(cell)
    if lived is None:
        return "not run"
    if lived.failed:
        return f"{len(lived.failed)} of {lived.calls} calls FAILED"
    return "yes" if len(lived.keys) >= EXPIRIES else f"only {len(lived.keys)} keys"


def _text(found: Findings, cell: Cell) -> str:
    met = found.met[*cell, MFA_REQUIRED.name]
    if met.answer.ended is not None:
        return f"the process ENDED ({met.answer.ended})"
    return f"{'yes' if met.shows else 'no'}, {_seconds(met.answer.seconds)}"


def _hold(found: Findings, cell: Cell) -> str:
    client, dialect = cell
    if dialect == "imds":
        return "never held"
    lengths = [seconds for seconds, held in ((SHORT, found.drip), (LONG, found.long)) if _bore(held.get(client))]
    return f"{max(lengths):.0f} s" if lengths else "no"


def _bore(held: Held | None) -> bool:
    return held is not None and held.answer.ok and held.denials == 0


def _again(found: Findings) -> str:
    lines: list[Sequence[str]] = [("client", "from cancel to its end", "refused when it asked again", "what it told")]
    for client, held in found.cancelled.items():
        told = _public(held.answer.text.strip().splitlines() or ["(nothing)"])
        lines.append((client, _seconds(held.after), str(held.denials - 1), f"`{told}`"))
    return f"## A hold that is cancelled\n\n{_lines(lines)}"


def _told(found: Findings) -> str:
    """The first line of what each said when MFA was needed."""
    lines = []
    for cell in found.first:
        text = found.met[*cell, MFA_REQUIRED.name].answer.text.strip().splitlines() or ["(nothing)"]
        lines.append(f"- {cell[0]}, {cell[1]}: `{_public(text)}`")
    return "\n".join(lines)


def _public(text: Sequence[str]) -> str:
    """Without what changes from run to run."""
    line = " ".join(each.strip() for each in text).replace("`", "'").replace("|", "/")
    line = re.sub(r"\b127\.0\.0\.1:\d+", "127.0.0.1:PORT", line)
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}", "ID", line)
    line = re.sub(r"wait \d+ s", "wait N s", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", line)
    line = re.sub(r"\b\d+(\.\d+)?(ms|µs|s)\b", "N s", line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def errors(found: Findings) -> list[Sequence[str]]:
    """Each error row: the seconds, with * where the user was shown our sentence."""
    head = ("client", "dialect", *(row.name for row in ROWS))
    return [head, *((*cell, *(_met(found.met, cell, row.name) for row in ROWS)) for cell in found.first)]


def _met(met: Mapping[tuple[str, Dialect, str], Met], cell: Cell, row: str) -> str:
    seen = met.get((*cell, row))
    if seen is None:
        return "–"
    if seen.answer.ended is not None:
        return f"ENDED ({seen.answer.ended})"
    return f"{_seconds(seen.answer.seconds)}{' *' if seen.shows else ''}"


def _seconds(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds >= 0.5 else "< 1 s"


def _lines(rows: Iterable[Sequence[str]]) -> str:
    first, *rest = [f"| {' | '.join(row)} |" for row in rows]
    columns = first.count("|") - 1
    return "\n".join([first, f"|{' --- |' * columns}", *rest])


def whole(found: Findings) -> bool:
    """Whether every client was played by every dialect: only then is the file written."""
    return set(found.first) == {(client, dialect) for client in PREDICTIONS for dialect in DIALECTS}


def text(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal: columns of even width."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
