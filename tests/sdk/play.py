"""The play: every client by both dialects against one daemon, phase by phase; what was seen comes back as `Findings`.

Rule: what a program says of itself is not believed. Its call counts when the emulator verified a signature made with
keys that AssumeRole issued for that very program's profile; its waiting when the daemon's audit log has one serve and
no denial.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.process.harness import MovedClock, short_directory, until
from tests.sdk import rows
from tests.sdk.build import outdir
from tests.sdk.programs import BATCH, CLIENTS, DIALECTS, Answer, Dialect, Program, asked
from tests.sdk.rows import Environments, Row, Truth
from tests.sdk.stage import Part, Player, Stage, staged

Cell = tuple[str, Dialect]

#: 900 s at this scale are 45 s: long enough to be served (15 s floor), short enough for three lives in a play.
SCALE = 20.0
LIFE = 900
EXPIRIES = 3
#: Between two calls of one program.
PAUSE = 4.0
#: No scaled life suits these: botocore dates keys of IMDS that have under 20 min left as good for 12–20 min more
#: (sdk-facts §6), the C++ SDK looks at IMDS again after 5 min whatever the keys' end is (measured). They live through
#: whole hours of a moved wall clock instead, which moves all three.
UNSCALED: tuple[Cell, ...] = (("boto3", "imds"), ("aiobotocore", "imds"), ("pyarrow", "imds"))
#: The drip that everybody bears, the one of a person who has to look for the phone, and one that comes to nothing.
SHORT, LONG, VAIN = 15.0, 60.0, 6.0
#: object_store gives up at 30 s and the Rust SDK at 21 s (sdk-facts §10.8); vaultd ends their holds before.
CAPPED = ("rust", "obstore")


@dataclass
class First:
    """The first call. `verified`: signed with keys that were issued for this program."""

    answer: Answer
    verified: bool


@dataclass
class Lived:
    """A client over several lives of its session: how often asked, what failed, which issued keys it signed with."""

    calls: int = 0
    failed: list[Answer] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@dataclass
class Met:
    """A client and an error row: what it told, and what there was to tell."""

    answer: Answer
    truth: Truth

    @property
    def shows(self) -> bool:
        return self.truth.message != "" and " ".join(self.truth.message.split()) in self.answer.shown


@dataclass
class Held:
    """A client that was held: its answer, and how many serves and denials of its grant the audit log has since."""

    answer: Answer
    serves: int
    denials: int
    after: float  # seconds between the end of the waiting (a code typed, a cancel) and the answer


@dataclass
class Findings:
    """Everything that was seen, by client and dialect."""

    versions: dict[str, str] = field(default_factory=dict)
    first: dict[Cell, First] = field(default_factory=dict)
    lived: dict[Cell, Lived] = field(default_factory=dict)
    met: dict[tuple[str, Dialect, str], Met] = field(default_factory=dict)
    odd: dict[tuple[str, Dialect, str], Answer] = field(default_factory=dict)
    proxied: int = 0
    #: Positive controls: a program that was given a wrong key; what the proxy hears of one without NO_PROXY.
    control: First | None = None
    unguarded: int = 0
    drip: dict[str, Held] = field(default_factory=dict)
    long: dict[str, Held] = field(default_factory=dict)
    cancelled: dict[str, Held] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Play:
    """A stage with its players, and what was found so far."""

    stage: Stage
    players: dict[Cell, Player]
    found: Findings = field(default_factory=Findings)
    #: The codes that were typed: a device's code serves once.
    typed: set[str] = field(default_factory=set)
    grants: dict[str, Environments] = field(default_factory=dict)

    # ---- the calls ----

    def signed(self, part: Part, *, since: int = 0) -> set[str]:
        """Keys of that part's profile with which calls were signed that the emulator verified and answered."""
        found = self.stage.emulator.ctl(f"calls?since={since}")["calls"]
        arn = f":assumed-role/LongOps/{part.profile}"
        answered = (c for c in found if c["status"] == 200 and c["op"] != "AssumeRole")
        return {str(call["akid"]) for call in answered if str(call["principal"]).endswith(arn)} & self.issued(part)

    def issued(self, part: Part) -> set[str]:
        calls = self.stage.emulator.calls("AssumeRole")
        return {str(call["issued"]) for call in calls if call["session_name"] == part.profile}

    def audit(self) -> list[dict[str, Any]]:
        """Every line so far, those that are still being counted, too."""
        self.stage.home.link("GET", "/v1/audit?n=1")
        return self.stage.home.audit()

    def seq(self) -> int:
        return len(self.stage.emulator.calls())

    def first_calls(self) -> None:
        """Each program's first call of its life."""
        since = self.seq()
        answers = asked([each.program for each in self.players.values()], "call")
        for (cell, player), answer in zip(self.players.items(), answers, strict=True):
            self.found.first[cell] = self.judged(player.part, answer, since=since)
            self.found.versions[player.part.client] = player.program.version

    def judged(self, part: Part, answer: Answer, *, since: int) -> First:
        keys = self.signed(part, since=since)
        return First(answer, answer.ok and bool(keys) and answer.key in {None, *keys})

    def controls(self) -> None:
        """A program with a key of its own in the environment gets an answer, and is not to be believed."""
        (cell, player), *_ = self.players.items()
        key, secret = self.stage.emulator.key()
        static = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        since = self.seq()
        (answer,) = started([cell], [{**player.environment, **static}], where=self.stage.where)
        self.found.control = self.judged(player.part, answer, since=since)

    def expiries(self) -> None:
        """Calls without a pause over more than three lives."""
        mine = {cell: each for cell, each in self.players.items() if cell not in UNSCALED}
        self.found.lived |= {cell: Lived() for cell in mine}
        since, end = self.seq(), time.monotonic() + LIFE / SCALE * (EXPIRIES + 0.2)
        while time.monotonic() < end:
            began = time.monotonic()
            for cell, answer in zip(mine, asked([each.program for each in mine.values()], "call"), strict=True):
                lived = self.found.lived[cell]
                lived.calls += 1
                lived.failed += [] if answer.ok else [answer]
            _rest(PAUSE - (time.monotonic() - began))
        for cell, player in mine.items():
            self.found.lived[cell].keys = self.signed(player.part, since=since)

    # ---- odd surroundings ----

    def surroundings(self) -> None:
        """Proxies in the environment that would eat the token; the token by one of its two ways only."""
        cell = next(iter(self.players))
        with dead_proxy() as (url, connections):
            proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), url)
            self._odd("proxies", lambda env: {**env, **proxies})
            self.found.proxied = len(connections)
            bare = _without(_without(self.players[cell].environment, "NO_PROXY"), "no_proxy")
            started([cell], [{**bare, **proxies}], where=self.stage.where)
            self.found.unguarded = len(connections) - self.found.proxied
        for name in ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            self._odd(f"without {name}", lambda env, n=name: _without(env, n), dialects=("ecs",))  # type: ignore[misc]

    def _odd(
        self,
        name: str,
        changed: Callable[[Mapping[str, str]], Mapping[str, str]],
        *,
        dialects: Sequence[Dialect] = DIALECTS,
    ) -> None:
        cells = [cell for cell in self.players if cell[1] in dialects]
        environments = [changed(self.players[cell].environment) for cell in cells]
        for cell, answer in zip(cells, started(cells, environments, where=self.stage.where), strict=True):
            self.found.odd[*cell, name] = answer

    # ---- errors ----

    def row(self, row: Row) -> None:
        """What every client makes of one error row."""
        given = self.grants.get(row.profile) or rows.granted(self.stage, row, {dialect for _, dialect in self.players})
        self.grants[row.profile] = given  # a person's rows share one: after a cancel no new one can be had
        environments, truths = rows.brought(self.stage, row, given)
        cells = [cell for cell in self.players if cell[1] in row.codes]
        answers = started(cells, [environments[dialect] for _, dialect in cells], where=self.stage.where)
        for (client, dialect), answer in zip(cells, answers, strict=True):
            self.found.met[client, dialect, row.name] = Met(answer, truths[dialect])

    # ---- waiting for a person ----

    def long_lives(self) -> None:
        """From the next session on: an hour, so that one `fresh` is one request (botocore asks anew below 15 min)."""
        for player in self.players.values():
            self.stage.live(player.part, 3600)

    def hold(self, clients: Iterable[str], seconds: float, *, answered: bool) -> dict[str, Held]:
        """All sessions gone, a terminal asks; each client's `fresh` waits; then the code is typed, or Ctrl-C."""
        home, chosen = self.stage.home, [self.players[each, "ecs"] for each in clients if (each, "ecs") in self.players]
        assert home.client("clear").status == 0
        with home.terminal("vault-client", "mfa", "identity") as shell, ThreadPoolExecutor(len(chosen) or 1) as pool:
            shell.expect_exact("MFA code: ")
            before, began, ends = len(self.audit()), time.monotonic(), dict[str, float]()

            def one(player: Player) -> Answer:
                answer = player.program.fresh()
                ends[player.part.client] = time.monotonic()
                return answer

            waiting = {each.part.client: pool.submit(one, each) for each in chosen}
            _rest(seconds - (time.monotonic() - began))
            over = self._code(shell) if answered else _interrupt(shell)
            answers = {client: each.result() for client, each in waiting.items()}
            shell.expect_exact("session" if answered else "cancelled")
        lines = self.audit()[before:]
        grants = {each.part.client: each.grant for each in chosen}
        return {
            client: Held(
                answer,
                _count(lines, "credentials.serve", grants[client]),
                _count(lines, "credentials.deny", grants[client]),
                ends[client] - over,
            )
            for client, answer in answers.items()
        }

    def _code(self, shell: Any) -> float:
        until(lambda: self.stage.emulator.code() not in self.typed, "the phone shows another code", seconds=40)
        code = self.stage.emulator.code()
        self.typed.add(code)
        shell.sendline(code)
        return time.monotonic()


def _interrupt(shell: Any) -> float:
    shell.sendintr()
    return time.monotonic()


def _count(lines: Iterable[Mapping[str, Any]], event: str, grant: str) -> int:
    return sum(int(line.get("count") or 1) for line in lines if line["event"] == event and line["grant"] == grant)


def _rest(seconds: float) -> None:
    """Real time has to pass: the clients' clocks are their own."""
    time.sleep(max(0.0, seconds))


def _without(environment: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key != name}


def started(
    cells: Sequence[Cell], environments: Sequence[Mapping[str, str]], *, where: Mapping[str, Path]
) -> list[Answer]:
    """`fresh` of a program started for it, in each environment; some at a time. One that cannot start is an answer."""

    def one(cell: Cell, environment: Mapping[str, str]) -> Answer:
        try:
            with Program.running(cell[0], environment, where=where[cell[0]]) as program:
                return program.fresh()
        except AssertionError as exc:
            return Answer(ok=False, text=str(exc))

    with ThreadPoolExecutor(BATCH) as pool:
        return list(pool.map(one, cells, environments))


@contextmanager
def dead_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that takes connections, notes what it was asked, and answers nobody."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(2)
                    heard.append(peer.recv(4096))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _where(cells: Iterable[Cell]) -> dict[str, Path]:
    """Looked up once: a source that is edited while the play runs is not of this play."""
    return {client: outdir(client) for client, _ in cells}


def played(directory: Path, cells: Sequence[Cell]) -> Findings:
    """The whole play for those cells, but for what cannot be scaled (`unscaled`)."""
    parts = [Part(client, dialect, LIFE) for client, dialect in cells]
    with staged(directory, parts, scale=SCALE, where=_where(cells)) as stage:
        play = Play(stage, {(each.client, each.dialect): stage.enlist(each) for each in parts})
        for name, phase in _phases(play):
            began = time.monotonic()
            phase()
            play.found.seconds[name] = time.monotonic() - began
            print(f"{name}: {play.found.seconds[name]:.0f} s", flush=True)
    return play.found


def _phases(play: Play) -> Iterator[tuple[str, Callable[[], object]]]:
    found, ecs = play.found, [client for client, dialect in play.players if dialect == "ecs"]
    patient = [client for client in ecs if client not in CAPPED]
    yield "first calls", play.first_calls
    yield "controls", play.controls
    yield "expiries", play.expiries
    yield "surroundings", play.surroundings
    yield "rows' identity", lambda: rows.prepare(play.stage)
    for row in rows.ROBOT_ROWS:
        yield row.name, lambda row=row: play.row(row)  # type: ignore[misc]
    yield "long lives", play.long_lives
    yield rows.MFA_REQUIRED.name, lambda: play.row(rows.MFA_REQUIRED)
    if ecs:
        yield "drip", lambda: found.drip.update(play.hold(ecs, SHORT, answered=True))
        yield "long hold", lambda: found.long.update(play.hold(patient, LONG, answered=True))
        yield "cancelled", lambda: found.cancelled.update(play.hold(patient, VAIN, answered=False))
    for row in (rows.LOCKED, rows.DOWN):
        yield row.name, lambda row=row: play.row(row)  # type: ignore[misc]


def main() -> None:
    """`python -m tests.sdk.play [CLIENT…]`: those clients' play, and its table on stdout."""
    from tests.sdk import table

    cells = [(name, dialect) for name in sys.argv[1:] or CLIENTS for dialect in DIALECTS]
    with short_directory() as directory:
        print(table.document(played(directory, cells)))


def unscaled(directory: Path, cells: Sequence[Cell], clock: MovedClock) -> Findings:
    """Three lives of an hour for whom none can be scaled, on a wall clock that is moved five minutes a call."""
    found = Findings()
    parts = [Part(client, dialect, 3600) for client, dialect in cells]
    with staged(directory, parts, clock=clock, where=_where(cells)) as stage:
        play = Play(stage, {(each.client, each.dialect): stage.enlist(each) for each in parts}, found)
        found.lived = {cell: Lived() for cell in cells}
        for _ in range(12 * EXPIRIES + 2):
            clock.step(300)
            for cell, player in play.players.items():
                answer = player.program.call()
                found.lived[cell].calls += 1
                found.lived[cell].failed += [] if answer.ok else [replace(answer, stderr=answer.stderr[-500:])]
        for cell, player in play.players.items():
            found.lived[cell].keys = play.signed(player.part)
    return found


if __name__ == "__main__":
    main()
