"""What a `vault-client` command costs, as a multiple of `python -I -c pass` of the same environment, in one run.

Rule: the two are started by turns, so that a busy machine slows both; the figures are ratios of medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

#: name, arguments, goal (interface.md §3: ≤ 3 ×; issue 3, speed: a warm `exec -- true` ≤ 3.5 ×)
COMMANDS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("--version", ("--version",), 3.0),
    ("list", ("list",), 3.0),
    ("status", ("status",), 3.0),
    ("grants", ("grants",), 3.0),
    ("exec -- true", ("exec", "{profile}", "--", "true"), 3.5),
)


def measure(
    *, client: Sequence[str], profile: str, environ: Mapping[str, str], rounds: int = 40, python: str = sys.executable
) -> list[dict[str, Any]]:
    """Rows {name, value, unit, goal, ok}: wall and CPU of each command. `client` is how the client is started,
    `profile` one with a warm session, `environ` the environment of both (VAULTD_HOME of a running daemon).
    """
    lines = {name: [*client, *(part.format(profile=profile) for part in arguments)] for name, arguments, _ in COMMANDS}
    bare = [python, "-I", "-c", "pass"]
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare", *lines)}
    for _ in range(rounds):
        for name, line in lines.items():
            costs["bare"].append(_cost("bare", bare, environ))
            costs[name].append(_cost(name, line, environ))
    return [row for name, _, goal in COMMANDS for row in _rows(name, costs[name], costs["bare"], goal)]


def _rows(
    name: str, costs: list[tuple[float, float]], bare: list[tuple[float, float]], goal: float
) -> list[dict[str, Any]]:
    rows = []
    for at, kind in enumerate(("wall", "cpu")):
        value = statistics.median(cost[at] for cost in costs) / statistics.median(cost[at] for cost in bare)
        unit = "× python -I -c pass"
        rows.append(
            {"name": f"vault-client {name}, {kind}", "value": value, "unit": unit, "goal": goal, "ok": value <= goal}
        )
    return rows


def _cost(name: str, line: list[str], environ: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process that must end well."""
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    begin = time.perf_counter()
    pid = os.posix_spawnp(line[0], line, environ, file_actions=nowhere)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begin
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"{name} ended with {code}: {' '.join(line)}"
    return wall, usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str]) -> int:
    """`python -m tests.bench.client PROFILE [CLIENT…]` against the daemon of this environment."""
    profile, *client = arguments
    rows = measure(client=client or ["vault-client"], profile=profile, environ=os.environ)
    for row in rows:
        verdict = "ok" if row["ok"] else "MISSED"
        print(f"{row['name']:<34}{row['value']:6.2f} {row['unit']}  goal ≤ {row['goal']}  {verdict}")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
