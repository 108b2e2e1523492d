"""The soak: `python -m tests.sdk.soak [--minutes 30] [--scale 20] [--write FILE]`, or `make soak MINUTES=30`.

Six SDKs, each through both dialects, poll a 900 s role for half an hour of real time against the emulator whose lives
are divided by the scale; exit 1 when a goal is missed. One profile for each program, so that AssumeRole calls per life
are told for each.

Rule: a failed call is counted and printed as the SDK told it, never asked again. Lives are scaled but stamps are wall
time (scenarios.md §4.2): every SDK with a refresh window of minutes is inside it all the time, and asks on each call.
That is the worst case for the daemon, and none for AWS. Only botocore on IMDS cannot live so: within 25 minutes of the
end it makes the end up, and keeps the keys for 2 to 10 minutes whatever is left. Its lives are TRUE_LIFE, not scaled.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.daemons import memory
from tests.process.harness import alive, short_directory
from tests.sdk.programs import DIALECTS, Answer, Dialect
from tests.sdk.stage import Part, Player, Stage, staged

SIX = ("boto3", "go-v2", "js-v3", "java-v2", "rust", "awscrt")
LIFE = 900
#: Programs whose SDK makes up the end of keys that end soon, and the life that they get instead of a scaled one: the
#: shortest whose half is longer than the 10 minutes for which botocore may keep them (docs/sdk-freshness.md).
TRUE_LIFE = {("boto3", "imds"): 1320}
POLL_SECONDS = 2.0
#: What the programs never call.
DAEMONS_OPS = ("AssumeRole", "GetSessionToken")
#: The daemon's memory and descriptors are compared from here on: connections and look-ups have settled by then.
SETTLED_SECONDS = 300.0
#: A renewal comes at half the life, up to 10 % of that earlier: 1 / (0.5 - 0.05) = 2.22 at most, 2.1 on average.
MOST_PER_LIFE = 2.2
#: MB an hour, and descriptors: what is left after the daemon has settled.
FLAT_MB, FLAT_FDS = 12.0, 8


@dataclass(frozen=True)
class Failure:
    """A call that did not succeed."""

    who: str
    time: datetime
    text: str


@dataclass(frozen=True)
class Sample:
    """The daemon's RSS in MB and its descriptors, `after` seconds."""

    after: float
    rss: float
    fds: int


@dataclass
class Polled:
    """What one program's thread has seen; written by that thread alone."""

    player: Player
    calls: int = 0
    failures: list[Failure] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def note(self, answer: Answer) -> None:
        self.calls += 1
        if answer.key:
            self.keys.add(answer.key)
        if not answer.ok:
            text = answer.shown or f"the program ended with {answer.ended}"
            self.failures.append(Failure(self.player.part.profile, datetime.now(UTC), text))


@dataclass(frozen=True)
class Row:
    """One program at the end; `life` is that of its role's sessions, `keys` how many it signed with, where it tells."""

    part: Part
    version: str
    calls: int
    failed: int
    gets: int
    assumed: int
    keys: int
    life: float
    seconds: float

    @property
    def per_life(self) -> float:
        """AssumeRole calls per session life; the first one, without which there is no life, aside."""
        return (self.assumed - 1) * self.life / self.seconds


@dataclass(frozen=True)
class Report:
    """What a soak came to."""

    seconds: float
    scale: float
    rows: Sequence[Row]
    failures: Sequence[Failure]
    samples: Sequence[Sample]
    ops: Mapping[str, int]
    codes: int
    asked: int

    def missed(self) -> list[str]:
        """The goals that were not reached, each in a sentence."""
        found = [f"{len(self.failures)} calls failed"] if self.failures else []
        found += [f"{row.part.profile} made no call" for row in self.rows if not row.calls]
        found += [f"{row.part.profile}: no keys were served" for row in self.rows if not row.gets]
        found += [
            f"{row.part.profile}: {row.per_life:.2f} AssumeRole calls a life, {MOST_PER_LIFE} are allowed"
            for row in self.rows
            if row.assumed - 1 > max(MOST_PER_LIFE * row.seconds / row.life, 1)
        ]
        found += [f"{self.codes} codes were sent, 1 is enough"] if self.codes != 1 else []
        found += [f"{self.asked} questions were asked, 1 is enough"] if self.asked > 1 else []
        return found + list(self._grown())

    def _grown(self) -> Iterator[str]:
        """Memory and descriptors, from the moment that they have settled; a short run says nothing about them."""
        settled = [sample for sample in self.samples if sample.after >= SETTLED_SECONDS]
        if not settled or settled[-1].after - settled[0].after < SETTLED_SECONDS:
            return
        first, last = settled[0], settled[-1]
        hours = (last.after - first.after) / 3600
        if (slope := (last.rss - first.rss) / hours) > FLAT_MB:
            yield f"the daemon grew by {slope:.1f} MB an hour, {FLAT_MB} are allowed"
        if last.fds - first.fds > FLAT_FDS:
            yield f"the daemon holds {last.fds - first.fds} more descriptors than after 5 minutes"


def soak(
    directory: Path,
    *,
    clients: Sequence[str] = SIX,
    dialects: Sequence[Dialect] = DIALECTS,
    seconds: float = 1800.0,
    scale: float = 20.0,
    pause: float = POLL_SECONDS,
    stop_halfway: bool = False,
    where: Mapping[str, Path] | None = None,
) -> Report:
    """Runs it. `stop_halfway`: the daemon is killed in the middle, which is the control of the counting."""
    parts = [Part(client, dialect, LIFE) for client in clients for dialect in dialects]
    with staged(directory, parts, scale=scale, where=where) as stage:
        for part in parts:
            if true := TRUE_LIFE.get((part.client, part.dialect)):
                stage.live(part, true)
        polled = [Polled(stage.enlist(part)) for part in parts]
        began = time.monotonic()
        samples = _poll(stage, polled, seconds=seconds, pause=pause, stop_halfway=stop_halfway)
        return _report(stage, polled, samples, seconds=time.monotonic() - began, scale=scale)


def _poll(stage: Stage, polled: Sequence[Polled], *, seconds: float, pause: float, stop_halfway: bool) -> list[Sample]:
    """Every program in a thread of its own until the time is over; the daemon is looked at once a minute."""
    over = threading.Event()
    threads = [
        threading.Thread(target=_calls, args=(each, over, pause), name=each.player.part.profile) for each in polled
    ]
    pid, began = stage.home.pid(), time.monotonic()
    samples = [_sample(pid, 0.0)]
    for each in threads:
        each.start()
    try:
        moments = sorted({*range(60, int(seconds), 60), seconds / 2, seconds})
        for moment in moments:
            over.wait(max(0.0, began + moment - time.monotonic()))
            if stop_halfway and moment == seconds / 2:
                stage.home.stop()
            if alive(pid):
                samples.append(_sample(pid, moment))
    finally:
        over.set()
        for each in threads:
            each.join()
    return samples


def _calls(polled: Polled, over: threading.Event, pause: float) -> None:
    while not over.wait(pause):
        answer = polled.player.program.call()
        polled.note(answer)
        if answer.ended is not None:
            return


def _sample(pid: int, after: float) -> Sample:
    return Sample(after, memory(pid)["VmRSS"], len(list(Path(f"/proc/{pid}/fd").iterdir())))


def _report(
    stage: Stage, polled: Sequence[Polled], samples: Sequence[Sample], *, seconds: float, scale: float
) -> Report:
    gets, assumed = stage.gets(), stage.assumed()
    rows = [
        Row(
            part=each.player.part,
            version=each.player.program.version,
            calls=each.calls,
            failed=len(each.failures),
            gets=gets[each.player.grant],
            assumed=assumed[each.player.part.profile],
            keys=len(each.keys),
            life=TRUE_LIFE.get((each.player.part.client, each.player.part.dialect), LIFE / scale),
            seconds=seconds,
        )
        for each in polled
    ]
    failures = sorted((one for each in polled for one in each.failures), key=lambda one: one.time)
    ops = Counter(str(call["op"]) for call in stage.emulator.calls() if call["op"] in DAEMONS_OPS)
    return Report(seconds, scale, rows, failures, samples, ops, stage.codes(), stage.home.asked())


# ---- what is printed ----


def table(report: Report) -> str:
    """The report as Markdown."""
    lines = [
        "| client | version | dialect | life | calls | failed | GETs | GETs/h | AssumeRole | per life | keys seen |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_line(row) for row in report.rows),
        "",
        f"{report.seconds / 60:.1f} minutes at time scale {report.scale:g}. STS calls of the daemon: "
        + ", ".join(f"{count} {op}" for op, count in sorted(report.ops.items()))
        + f". Codes: {report.codes}. Questions: {report.asked}.",
        "",
        "| the daemon | " + " | ".join(f"{sample.after / 60:.0f} min" for sample in shown_samples(report)) + " |",
        "| --- |" + " --- |" * len(shown_samples(report)),
        "| RSS, MB | " + " | ".join(f"{sample.rss:.1f}" for sample in shown_samples(report)) + " |",
        "| descriptors | " + " | ".join(str(sample.fds) for sample in shown_samples(report)) + " |",
    ]
    return "\n".join(lines) + "\n"


def shown_samples(report: Report) -> list[Sample]:
    """At the start, when it has settled, and at the end."""
    settled = [sample for sample in report.samples if SETTLED_SECONDS <= sample.after < report.samples[-1].after]
    return [report.samples[0], *settled[:1], report.samples[-1]]


def _line(row: Row) -> str:
    cells = (
        row.part.client, row.version, row.part.dialect, f"{row.life:g} s", row.calls, row.failed, row.gets,
        round(row.gets * 3600 / row.seconds), row.assumed, f"{row.per_life:.2f}", row.keys or "not told",
    )  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> int:
    """Prints the table, each failed call and each missed goal; 1 when there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.sdk.soak", description="SDKs that poll for half an hour.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--scale", type=float, default=20.0, help="divides every issued life")
    parser.add_argument("--clients", default=",".join(SIX), help="names, separated by commas")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the table, too")
    given = parser.parse_args()
    with short_directory() as directory:
        clients = given.clients.split(",")
        report = soak(directory, clients=clients, seconds=given.minutes * 60, scale=given.scale)
    told = table(report)
    print(told)
    for failure in report.failures:
        print(f"failed call: {failure.time:%H:%M:%S} {failure.who}: {failure.text}")
    missed = report.missed()
    for goal in missed:
        print(f"missed: {goal}")
    if given.write and not missed:
        given.write.write_text(f"# The soak\n\n{__doc__}\n{told}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
