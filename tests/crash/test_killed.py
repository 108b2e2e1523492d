"""Real daemons, killed at random moments while a client adds, removes, grants, revokes, locks and unlocks."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.crash.house import PASSPHRASE, House
from tests.crash.points import workbench
from tests.crash.survey import Acknowledged, Findings, survey
from tests.fakes import FakeClock
from tests.process.harness import ROOT, Emulator, Home, alive, until
from vault_client.errors import Stop
from vaultd.files import Files

ROUNDS = 50
#: A kill comes after up to so many answers, and up to so many seconds into what follows: the moment is random, and
#: on a slow machine still not always the first call's.
MOST_ANSWERS, LONGEST = 4, 0.03
TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator.running() as running:
        yield running


@pytest.fixture
def home(emulator: Emulator) -> Iterator[Home]:
    with workbench() as directory:
        made = Home.make(directory, emulator)
        (directory / "passphrase").write_text(PASSPHRASE.reveal() + "\n")
        asyncio.run(_cheap_store(directory / "vaultd"))
        yield made


async def _cheap_store(path: Path) -> None:
    """One whose key costs 20 ms: most kills would meet the derivation else."""
    house = House(path, Files(), tell=lambda _: None)
    house.begin()
    await house.keeper.open(passphrase=PASSPHRASE, unlock=True)
    await house.keeper.close(None, lock=False)


@dataclass
class Zygote:
    """tests.crash.zygote as a process; `start` is one daemon's pid and first line."""

    process: subprocess.Popen[str]
    pid: int = 0

    @classmethod
    @contextmanager
    def running(cls, home: Home) -> Iterator[Zygote]:
        command = [sys.executable, "-m", "tests.crash.zygote"]
        env = {**home.env, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            made = cls(process)
            try:
                yield made
            finally:
                made.kill()
                assert process.stdin is not None
                process.stdin.close()
                process.wait()

    def start(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("start\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.pid = answer["pid"]
        assert answer["told"].get("ok"), answer
        found: dict[str, Any] = answer["told"]
        return found

    def kill(self) -> None:
        if self.pid and alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)
            until(lambda: not alive(self.pid), f"daemon {self.pid} is gone")
        self.pid = 0


@dataclass
class Client:
    """One person at work. `told` has what was acknowledged; `doing` is the call that is under way."""

    home: Home
    emulator: Emulator
    told: list[str] = field(default_factory=list)
    doing: str = ""
    locked: bool = False
    done: Counter[str] = field(default_factory=Counter)
    failed: list[BaseException] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def work(self, choose: random.Random) -> None:
        """Until the daemon is gone."""
        try:
            while True:
                self._next(choose)
        except Stop as exc:
            if exc.exit_status != 69:
                self.failed.append(exc)
        except BaseException as exc:  # noqa: BLE001 (told to the test's own thread)
            self.failed.append(exc)

    def until(self, answers: int) -> None:
        """So many were given since the first daemon, or one that was not expected."""
        until(lambda: self.done.total() >= answers or bool(self.failed), f"{answers} answers")

    def _next(self, choose: random.Random) -> None:
        verbs: dict[str, tuple[int, Callable[[random.Random], None]]] = {
            "add": (1 * (not self.locked), self._add),
            "remove": (4 * (not self.locked and len(self.names) > 1), self._remove),
            "grant": (4 * (not self.locked), self._grant),
            "revoke": (4 * (not self.locked and bool(self.grants)), self._revoke),
            "lock": (1 * (not self.locked), self._lock),
            "unlock": (1 * self.locked, self._unlock),
        }
        self.doing = choose.choices(list(verbs), [weight for weight, _ in verbs.values()])[0]
        verbs[self.doing][1](choose)
        self.done[self.doing] += 1
        self.doing = ""

    def _add(self, _: random.Random) -> None:
        name = f"extra{next(self.numbers)}"
        self.add(name)
        self.names.append(name)

    def add(self, name: str) -> None:
        key_id, secret = self.emulator.key()
        body = {"name": name, "AccessKeyId": key_id, "SecretAccessKey": secret}
        self.home.link("POST", "/v1/identities", body)
        self.told.append(f"key {name} {key_id}")

    def _remove(self, choose: random.Random) -> None:
        name = self.names.pop(choose.randrange(len(self.names)))
        self.told.append(f"removing {name}")
        self.home.link("DELETE", f"/v1/identities/{name}")
        self.told.append(f"removed {name}")

    def _grant(self, _: random.Random) -> None:
        self.grant()

    def grant(self, **more: str) -> None:
        body = {"profile": "web-admin", "kind": "lease", "ttl_seconds": 3600, **more}
        made = self.home.link("POST", "/v1/grants", body)
        self.told.append(f"granted {made['id']} {made['set'][TOKEN]}")
        self.grants.append(made["id"])

    def _revoke(self, choose: random.Random) -> None:
        grant = self.grants.pop(choose.randrange(len(self.grants)))
        self.told.append(f"revoking {grant}")
        self.home.link("DELETE", f"/v1/grants/{grant}")
        self.told.append(f"revoked {grant}")

    def _lock(self, _: random.Random) -> None:
        self.told.append("locking")
        self.home.link("POST", "/v1/lock", {})
        self.told.append("locked")
        self.locked = True

    def _unlock(self, _: random.Random) -> None:
        self.told.append("unlocking")
        self.home.link("POST", "/v1/unlock", {"passphrase": PASSPHRASE.reveal()})
        self.told.append("opened")
        self.locked = False


def looked_at(home: Home, told: list[str]) -> Findings:
    """The survey, of a copy: it mints, and unlocks."""
    with tempfile.TemporaryDirectory(dir=home.directory) as place:
        copy = Path(place, "home")
        shutil.copytree(home.directory / "vaultd", copy, ignore=shutil.ignore_patterns("*.sock"))
        return asyncio.run(survey(copy, told=told, warned=False, clock=FakeClock(datetime.now(UTC))))


def test_fifty_kills(home: Home, emulator: Emulator) -> None:
    """After each: nothing torn or lost, what was revoked or removed stays so, locked stays locked, the chain verifies.

    The next daemon starts on what the last one left, without a word of damage.
    """
    client, met, told = Client(home, emulator), Counter[str](), Findings()
    with Zygote.running(home) as zygote:
        zygote.start()
        client.add("identity")
        client.grant(token_code=emulator.code())  # one code; its MFA session outlives every kill
        for number in range(ROUNDS):
            choose = random.Random(number)
            worker = threading.Thread(target=client.work, args=(choose,))
            wanted, longest = client.done.total() + choose.randint(0, MOST_ANSWERS), choose.uniform(0, LONGEST)
            worker.start()
            client.until(wanted)
            worker.join(longest)
            zygote.kill()
            worker.join()
            met[client.doing or "between"] += 1
            told.add(looked_at(home, client.told))
            assert (client.failed, {kind: said for kind, said in told.found.items() if said}) == ([], {}), number

            status = zygote.start()
            known = Acknowledged.of(client.told)
            assert [each for each in status["warnings"] if "runs as root" not in each] == [], number
            assert status["locked"] or "locked" not in known.said, number
            assert not status["locked"] or "opened" not in known.said, number
            assert known.grants.keys() <= {each["id"] for each in home.link("GET", "/v1/grants")["grants"]}, number
            client.locked = status["locked"]

    print(f"{ROUNDS} kills: in {dict(met)}; acknowledged {dict(client.done)}; torn 0, lost 0")
    assert all(client.done[verb] for verb in ("add", "remove", "grant", "revoke", "lock", "unlock")), client.done
    assert sum(met.values()) - met["between"] > ROUNDS / 2, "positive control: most kills met a call under way"
