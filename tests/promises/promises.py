"""Every promise, in one place, and as SECURITY.md prints them between its two marks.

Rule: SECURITY.md holds `markdown()` byte for byte (test_promises.py); `python -m tests.promises --write` puts it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.promises import rows_host, rows_people, rows_state
from tests.promises.promise import Promise

ROOT: Final = Path(__file__).parents[2]
SECURITY: Final = ROOT / "SECURITY.md"
BEGIN, END = "<!-- promises -->\n", "<!-- /promises -->"

#: In the order of the table: the threats of security.md §1, then what issue 5 builds beside them.
THREADS: Final = {
    "T1": "another local user, TCP port",
    "T2": "another local user, control socket",
    "T3": "another user who takes the port",
    "T4": "a web page",
    "T5": "the network, containers, NAT to loopback",
    "T6": "a container or machine behind a relay of yours",
    "T7": "a server of yours that is made to fetch URLs",
    "T8": "code that runs as you",
    "T9": "a stolen disk",
    "T10": "logs, ps, core dumps, /proc",
    "T11": "a hostile ~/.aws/config",
    "T12": "supply chain, and state of another day",
    "T13": "the wrong role or account",
    "F": "floods",
    "L": "locks",
    "C": "crashes",
    "K": "the keeper's process",
    "A": "the audit log",
    "S": "service files",
}


def _place(promise: Promise) -> int:
    return list(THREADS).index(promise.threat)


PROMISES: Final[tuple[Promise, ...]] = tuple(
    sorted((*rows_people.PROMISES, *rows_host.PROMISES, *rows_state.PROMISES), key=_place)
)


def chosen(names: tuple[str, ...]) -> tuple[Promise, ...]:
    """Those so named, or all of a threat (`T1`); all, when none are named. KeyError with a name that is none."""
    known = {each.name for each in PROMISES} | set(THREADS)
    for name in names:
        if name not in known:
            raise KeyError(name)
    return tuple(each for each in PROMISES if not names or each.name in names or each.threat in names)


def markdown() -> str:
    """The table, without the two marks."""
    lines: list[str] = []
    for thread, title in THREADS.items():
        rows = [each for each in PROMISES if each.threat == thread]
        if rows:
            lines += [f"**{thread}**: {title}", "", "| promise | control | test |", "| --- | --- | --- |"]
            lines += [_line(each) for each in rows]
            lines.append("")
    return "\n".join(lines)


def _line(promise: Promise) -> str:
    tests = "<br>".join(f"`{each}`" for each in promise.tests)
    says = f"**{promise.name}** {promise.says}" + (f" ({promise.note})" if promise.note else "")
    return f"| {_cell(says)} | {_cell(promise.control)} | {_cell(tests)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def written(document: str) -> str:
    """The document with the block as it should be."""
    before, rest = document.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"
