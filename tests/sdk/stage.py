"""One emulator, one daemon, and programs that ask it: what the soak and the freshness runs stand on.

Rule: what is counted comes from the two ends, never from a program: GETs from the daemon's audit log, STS calls from
the emulator's. Each program has a profile of its own, with a role session name of its own, so that both can be told
apart: profiles of one fingerprint would share one session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from tests.process.harness import Emulator, Home, MovedClock, variables
from tests.sdk.build import build
from tests.sdk.programs import Dialect, Program
from vault_client.errors import Stop

#: MFA without an age limit, up to twelve hours: one code serves a whole run (scenarios.md §4.4).
ROLE = "arn:aws:iam::234567890123:role/LongOps"
#: The longest MFA session there is (aws-facts §1.1), since a time scale divides it, too.
SETTINGS = '[sessions]\nmfa_duration = "36h"\n'

#: They turn the keys' end into monotonic time when they get them (aws-c-auth, object_store): a wall clock that moves
#: alone does not age those.
MONOTONIC = ("awscrt", "obstore")
#: They know S3 alone; the programs' bucket.
S3_ONLY, BUCKET = ("pyarrow", "obstore"), "sdk-matrix"


@dataclass(frozen=True)
class Part:
    """Who asks for what: `client` by `dialect`, for sessions of `life` seconds."""

    client: str
    dialect: Dialect
    life: int

    @property
    def profile(self) -> str:
        """Its profile, and the role session name by which the emulator knows it."""
        return f"{self.client}-{self.dialect}-{self.life}"


@dataclass(frozen=True)
class Serve:
    """A line of the audit log: keys that went out `count` times, with `left` seconds to live at the first time."""

    grant: str
    count: int
    left: float
    ending: str


@dataclass
class Player:
    """A running program, and the grant by which it asks."""

    part: Part
    grant: str
    program: Program
    environment: Mapping[str, str]


@dataclass
class Stage:
    """A running emulator and daemon, and the players that were enlisted."""

    home: Home
    emulator: Emulator
    clock: MovedClock | None
    where: Mapping[str, Path]
    _stack: ExitStack = field(default_factory=ExitStack)

    def pointed(self, profile: str, dialect: Dialect) -> dict[str, str]:
        """The environment of a program in a shell that `vault-client use` has pointed at that profile."""
        imds = ("--imds",) if dialect == "imds" else ()
        code = self.emulator.code()
        used = self.home.client("use", profile, *imds, "--shell", "sh", "--token-code", code)
        assert used.status == 0, used
        given = {name: value for name, value in variables(used.out).items() if name not in {"PWD", "SHLVL", "_"}}
        wall = {**self.clock.env, "VAULTD_MOVED_CLOCK_ALL": ""} if self.clock else {}
        aims = dict.fromkeys(("SDK_STS_URL", "SDK_S3_URL"), self.emulator.url)
        return {**self.home.env, **given, **aims, **wall, "PATH": self.home.env["PATH"]}

    def enlist(self, part: Part) -> Player:
        """A grant by `vault-client use`, and the program started in that environment."""
        environment = self.pointed(part.profile, part.dialect)
        if self.clock and part.client in MONOTONIC:
            environment |= self.clock.living
        if part.client in S3_ONLY:
            self.open_s3(part.profile)
        running = Program.running(part.client, environment, where=self.where.get(part.client))
        program = self._stack.enter_context(running)
        return Player(part, environment["VAULTD_GRANT"], program, environment)

    def open_s3(self, profile: str) -> None:
        """LongOps may use S3, and there is a bucket, made by the profile's session: some programs know no STS."""
        anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        self.emulator.ctl("mutate", {"policy": {"principal": ROLE, "name": "s3", "document": anything}})
        keys = self.home.link("GET", f"/v1/profiles/{profile}/credentials")
        s3: Any = boto3.client(
            "s3",
            endpoint_url=self.emulator.url,
            region_name="us-east-1",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["Token"],
        )
        s3.create_bucket(Bucket=BUCKET)  # a second time is no error in us-east-1

    def live(self, part: Part, seconds: float, *, times: int = 0) -> None:
        """Its next `times` role sessions (0: all from now on) live so long, whatever was asked for."""
        self._fault(part, "past_expiration", times=times, arg=-seconds)

    def away(self, part: Part) -> None:
        """From now on STS answers 503 when its role is to be assumed."""
        self._fault(part, "http", times=0, arg=503)

    def _fault(self, part: Part, kind: str, *, times: int, arg: float) -> None:
        match = {"op": "AssumeRole", "session_name": part.profile}
        self.emulator.ctl("fault", {"match": match, "kind": kind, "times": times, "arg": arg})

    def refresh(self, part: Part) -> None:
        """A new role session, now."""
        self.home.link("POST", f"/v1/profiles/{part.profile}/refresh", {})

    def serves(self) -> list[Serve]:
        """Every reply with keys so far."""
        with suppress(Stop):  # a daemon that is gone has written all of them
            self.home.link("GET", "/v1/audit?n=1")
        return [_serve(line) for line in self.home.audit() if line["event"] == "credentials.serve"]

    def gets(self) -> Counter[str]:
        """How often each grant was given keys."""
        found: Counter[str] = Counter()
        for serve in self.serves():
            found[serve.grant] += serve.count
        return found

    def assumed(self) -> Counter[str]:
        """AssumeRole calls that AWS answered, by role session name."""
        return Counter(str(call["session_name"]) for call in self.emulator.calls("AssumeRole") if call["status"] == 200)

    def codes(self) -> int:
        """How many different codes STS was sent."""
        return len({call["code"] for call in self.emulator.calls() if call["code"] is not None})


def _serve(line: Mapping[str, Any]) -> Serve:
    left = (_moment(line["expiration"]) - _moment(line["time"])).total_seconds()
    return Serve(str(line["grant"]), int(line["count"]), left, str(line["access_key_id"]))


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def profiles(parts: Iterable[Part]) -> str:
    """The AWS config file with a profile for each."""
    return "\n".join(
        f"[profile {each.profile}]\nsource_profile = identity\nrole_arn = {ROLE}\nregion = us-east-1\n"
        f"mfa_serial = arn:aws:iam::123456789012:mfa/franklin\nrole_session_name = {each.profile}\n"
        f"duration_seconds = {each.life}\n"
        for each in parts
    )


@contextmanager
def staged(
    directory: Path,
    parts: Iterable[Part],
    *,
    scale: float = 1.0,
    clock: MovedClock | None = None,
    where: Mapping[str, Path] | None = None,
) -> Iterator[Stage]:
    """The emulator at `scale`, a daemon with franklin's key; all on `clock` when one is given. Programs end first."""
    parts = list(parts)
    for client in {each.client for each in parts} - set(where or {}):
        build(client)
    around, inside = (clock.env, clock.living) if clock else ({}, {})
    with Emulator.running("--time-scale", str(scale), moto=True, environment=around) as emulator, ExitStack() as stack:
        home = Home.make(directory, emulator, settings=SETTINGS, profiles=profiles(parts), **inside)
        with home.daemon():
            added = home.add(emulator)
            assert added.status == 0, added
            with stack:
                yield Stage(home, emulator, clock, where or {}, stack)
