"""The bench itself: it runs, it tells a missed goal, and it fails only when something broke."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import client, crowded, daemons, picker
from tests.bench.__main__ import PARTS, Part, main
from tests.bench.figures import Figure, at_most, exactly, for_the_record, within
from tests.process.harness import BIN, Emulator


def _made(*figures: Figure) -> dict[str, Part]:
    def part(_directory: Path, _running: Emulator, _quick: bool) -> Iterator[Figure]:
        yield from figures

    return {"made": part}


def test_a_missed_goal_is_marked_and_named_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that misses its goal says so in the table, at the end and in the file; the exit status stays 0."""
    file = tmp_path / "bench.json"
    figures = (
        at_most("size", 71.0, "MB", 70.0),
        at_most("cost", 2.5, "×", 3.0),
        exactly("calls", 1, "calls", 0),
        within("drift", 1.2, "×", 0.9, 1.1),
        for_the_record("pace", 12345.0, "requests/s"),
    )
    assert main(["--json", str(file)], _made(*figures)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [
        ["MISSED", "size"],
        ["ok", "cost"],
        ["MISSED", "calls"],
        ["MISSED", "drift"],
        ["pace", "12345"],
    ]
    assert lines[5:] == ["1 of 4 goals reached", "MISSED size", "MISSED calls", "MISSED drift"]
    written = json.loads(file.read_text())["figures"]
    assert written[0] == {"name": "size", "value": 71.0, "unit": "MB", "goal": "≤ 70", "ok": False}
    assert [each["ok"] for each in written] == [False, True, False, False, True]


def test_rows_of_the_other_benches_are_read() -> None:
    """Endpoint and client speak in dictionaries, with a goal as text, as a number or none."""
    row = {"name": "GET", "value": 0.9, "unit": "×", "ok": False}
    assert Figure.read({**row, "goal": "≥ 0.95"}) == Figure("GET", 0.9, "×", "≥ 0.95", ok=False)
    assert Figure.read({**row, "goal": 3.0}).goal == "≤ 3.0"
    assert Figure.read({**row, "goal": "", "ok": True}).goal == ""


def test_what_broke_is_not_measured_away(tmp_path: Path) -> None:
    """A daemon that does not do what a figure is about ends the bench with its reason."""

    def broken(_directory: Path, _running: Emulator, _quick: bool) -> Iterator[Figure]:
        yield for_the_record("first", 1.0, "s")
        raise AssertionError("no reply")

    with pytest.raises(AssertionError, match="no reply"):
        main(["--json", str(tmp_path / "bench.json")], {"made": broken})
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.process
def test_a_part_runs_on_a_real_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--quick --only memory` starts emulator and daemon, measures, writes the file and stops both."""
    file = tmp_path / "bench.json"
    assert main(["--quick", "--only", "memory", "--json", str(file)]) == 0
    found = {each["name"]: each for each in json.loads(file.read_text())["figures"]}
    assert found["memory before boto3 is needed"]["goal"] == "≤ 70"
    assert found["memory with STS and IAM clients"]["value"] > found["memory before boto3 is needed"]["value"] > 10
    assert "goals reached" in capsys.readouterr().out


@pytest.mark.process
@pytest.mark.needs("root")
def test_floods_are_measured_beside_quiet(tmp_path: Path) -> None:
    """Guard beside a bare route, the owner quiet and attacked: every goal of issue 5 has its row."""
    file = tmp_path / "bench.json"
    assert main(["--quick", "--only", "floods", "--json", str(file)]) == 0
    found = {each["name"]: each["goal"] for each in json.loads(file.read_text())["figures"]}
    assert found["guard, kept connection: p50"] == found["guard, new connection: p50"] == "≤ 1.1"
    assert found["guard, kept connection: p99 added"] == found["guard, new connection: p99 added"] == "≤ 25"
    assert found["flood, 1,000 a second: p99"] == "≤ 5"
    assert {"flood, quiet: p99", "flood, full speed: p99", "flood, full speed: foreign connections"} <= set(found)


def test_every_part_of_the_issue_is_there() -> None:
    """Endpoint, client, start, memory, callers and profiles (issue 3, build 10); floods, lock (issue 5)."""
    assert {
        "endpoint",
        "client",
        "floods",
        "start",
        "memory",
        "callers",
        "profiles",
        "lock",
        "keeper",
        "crowded",
    } <= set(PARTS)


def test_every_goal_of_the_client_is_there() -> None:
    """Issue 6, Shows: the most that each may cost, in bare interpreters."""
    goals = {name: goal for name, _, goal in client.COMMANDS}
    assert {name: goals[name] for name in ("use", "exec -- true", "completion", "prompt")} == {
        "use": 3.5,
        "exec -- true": 3.5,
        "completion": 3.0,
        "prompt": 3.0,
    }


@pytest.mark.process
def test_the_picker_is_measured(tmp_path: Path) -> None:
    """The real picker of a real daemon comes to its first frame and is left without a choice; no time is asserted."""
    with daemons.emulator() as running, daemons.daemon(tmp_path, running) as home:
        found = picker.figure([str(BIN / "vault-client")], daemons.FIVE, home.env, rounds=1)
        assert home.link("GET", "/v1/grants")["grants"] == []
    assert (found.goal, found.value > 1) == ("≤ 6", True)


@pytest.mark.process
def test_what_looking_at_profiles_costs_an_sdk(tmp_path: Path) -> None:
    """Quiet, looked at, and while the file changes; `list` and the watch run as long as they are measured."""
    with daemons.emulator() as running:
        found = {each.name: each.goal for each in crowded.figures(tmp_path, running, quick=True, many=50)}
    assert found["50 profiles, list and watch: GET p99"] == "≤ 20"
    assert {"50 profiles, quiet: GET p99", "50 profiles, file changed, list and watch: GET longest"} <= set(found)
