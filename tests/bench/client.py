"""What a `vault-client` command costs, as a multiple of `python -I -c pass` of the same environment, in one run.

Rule: the two are started by turns, so that a busy machine slows both; the figures are ratios of medians. What ends well
whether it did its work or not (a prompt, a completion) is looked at, too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

#: name, arguments, goal (interface.md §3: ≤ 3 ×; issues 3 and 6: a warm `exec -- true` and `use` ≤ 3.5 ×)
COMMANDS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("--version", ("--version",), 3.0),
    ("list", ("list",), 3.0),
    ("status", ("status",), 3.0),
    ("grants", ("grants",), 3.0),
    ("exec -- true", ("exec", "{profile}", "--", "true"), 3.5),
    ("use", ("use", "{profile}", "--shell", "sh"), 3.5),
    ("completion", ("__complete", "bash", "vault-client", "vault-client use {begun}"), 3.0),
    ("prompt", ("prompt",), 3.0),
)
_SILENT = ("completion", "prompt")


def measure(
    *,
    client: Sequence[str],
    profile: str,
    environ: Mapping[str, str],
    rounds: int = 40,
    python: str = sys.executable,
    beside: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """Rows {name, value, unit, goal, ok}: wall and CPU of each command. `client` is how the client is started,
    `profile` one with a warm session, `environ` the environment of both (VAULTD_HOME of a running daemon). `beside`:
    other programs, started by the same turns, whose rows have no goal (`""`).
    """
    environ = {**environ, "VAULTD_PROFILE": profile}  # as in a shell that is pointed at it
    lines = _lines(client, profile)
    others = {name: list(line) for name, line in (beside or {}).items()}
    bare = [python, "-I", "-c", "pass"]
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare", *lines, *others)}
    for _ in range(rounds):
        for name, line in {**lines, **others}.items():
            costs["bare"].append(_cost("bare", bare, environ))
            costs[name].append(_cost(name, line, environ))
    for name in _SILENT:
        assert profile in _said(lines[name], environ), f"{name} says nothing of {profile}: {' '.join(lines[name])}"
    ours = [
        row for name, _, goal in COMMANDS for row in _rows(f"vault-client {name}", costs[name], costs["bare"], goal)
    ]
    return ours + [row for name in others for row in _rows(name, costs[name], costs["bare"], None)]


def _lines(client: Sequence[str], profile: str) -> dict[str, list[str]]:
    words = {"profile": profile, "begun": profile[:2]}
    return {name: [*client, *(part.format(**words) for part in arguments)] for name, arguments, _ in COMMANDS}


def _said(line: Sequence[str], environ: Mapping[str, str]) -> str:
    return subprocess.run(line, env=dict(environ), capture_output=True, text=True, check=True, timeout=60).stdout


def _rows(
    name: str, costs: list[tuple[float, float]], bare: list[tuple[float, float]], goal: float | None
) -> list[dict[str, Any]]:
    rows = []
    for at, kind in enumerate(("wall", "cpu")):
        value = statistics.median(cost[at] for cost in costs) / statistics.median(cost[at] for cost in bare)
        rows.append(
            {
                "name": f"{name}, {kind}",
                "value": value,
                "unit": "× python -I -c pass",
                "goal": "" if goal is None else goal,
                "ok": goal is None or value <= goal,
            }
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
