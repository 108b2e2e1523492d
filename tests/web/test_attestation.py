"""Who asks, before keys go out: how often it is looked at, what each policy does, and what a person is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.web.control import soon
from tests.web.hold_rig import PYTHON
from tests.web.rig import Rig, read_reply, running, session, until_closed
from vaultd.engine.attestation import Attestation
from vaultd.engine.desk import MOST_CONSENTS, Desk
from vaultd.engine.grants import Grants
from vaultd.errors import BadRequest, UnknownPrompt
from vaultd.model.peer import Peer
from vaultd.model.programs import RELAYS, Found, Policy, Program, relay_family, table_of
from vaultd.model.secret import Secret
from vaultd.web.hold import Holds

TWO_MINUTES = timedelta(seconds=120)
#: Promised in SECURITY.md, so written out here and not imported.
LONGEST, PATIENCE, HANGS, EIGHT_HOURS = 0.15, 0.8, 3.0, 8 * 3600.0
#: The deny list of security.md §5: what each family's program is called.
RELAY_NAMES = {
    **dict.fromkeys(["ssh"], "ssh"),
    **dict.fromkeys(["sshd", "sshd-session"], "sshd"),
    "docker-proxy": "docker-proxy",
    **dict.fromkeys(["com.docker.backend", "com.docker.vpnkit"], "com.docker"),
    **dict.fromkeys(["vpnkit", "vpnkit-bridge"], "vpnkit"),
    **dict.fromkeys(["gvproxy", "gvproxy-linux-amd64"], "gvproxy"),
    "slirp4netns": "slirp4netns",
    **dict.fromkeys(["pasta", "pasta.avx2"], "pasta"),
    **dict.fromkeys(["passt", "passt.avx2"], "passt"),
    "rootlesskit": "rootlesskit",
    "rootlessport": "rootlessport",
    "conmon": "conmon",
    **dict.fromkeys(["socat", "socat1"], "socat"),
    "ncat": "ncat",
    "ngrok": "ngrok",
    "cloudflared": "cloudflared",
    "tailscaled": "tailscaled",
    **dict.fromkeys(["qemu-system-x86_64", "qemu-kvm"], "qemu"),
    "VBoxHeadless": "VBoxHeadless",
    "kubectl": "kubectl",
    "code-tunnel": "code-tunnel",
}


def program(exe: str = "/usr/bin/terraform", **changed: Any) -> Program:
    made = Program(peer=Peer(uid=0, pid=7, exe=exe, argv0=exe, started=1), exe=exe, file=(1, 2, 3, 4))
    return replace(made, **changed)


@dataclass
class Seat:
    program: Program
    left: int = 0

    def leave(self) -> None:
        self.left += 1


@dataclass
class StandInSystem:
    """The operating system's side: whoever holds the socket is `holder`; `gate` keeps a scan waiting, `disk` what looks
    at files.
    """

    holder: Found = field(default_factory=lambda: Found(program()))
    seat: Seat | None = None
    gate: asyncio.Event | None = None
    disk: asyncio.Event | None = None
    broken: bool = False
    looks: list[Collection[int]] = field(default_factory=list)

    def known(self, inode: int) -> Seat | None:
        return self.seat

    async def look(self, inodes: Collection[int]) -> Mapping[int, Found]:
        self.looks.append(inodes)
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise OSError("/proc is gone")
        return dict.fromkeys(inodes, self.holder)

    async def behind(self, peer: Peer) -> Found:
        return self.holder

    async def listed(self, program: Program, entries: Collection[str]) -> bool:
        if self.disk is not None:
            await self.disk.wait()
        return program.exe in entries

    async def describe_peer(self, peer: Peer) -> str:
        if self.disk is not None:
            await self.disk.wait()
        return f"{peer.exe} (pid {peer.pid})"


@dataclass
class Book:
    """An audit log for the engine."""

    events: list[tuple[str, object]] = field(default_factory=list)
    peers: list[object] = field(default_factory=list)

    def record(self, event: str, *, sync: bool = False, **fields: object) -> None:
        self.events.append((event, fields.get("decision")))
        self.peers.append(fields.get("peer"))


@dataclass
class House:
    rig: Rig
    system: StandInSystem
    desk: Desk
    book: Book
    attestation: Attestation

    async def status(self) -> tuple[int, str]:
        reply = await self.rig.get()
        return reply.status, "" if reply.status == 200 else reply.reason


@asynccontextmanager
async def house(folder: Path, policy: Policy | None = None, *, held: bool = False) -> AsyncIterator[House]:
    system, book, desks, made = StandInSystem(), Book(), list[Desk](), list[Attestation]()

    def attesting(clock: FakeClock, grants: Grants) -> Attestation:
        if not desks:
            desks.append(Desk(clock=clock, timeout=TWO_MINUTES, cancel_cooldown=TWO_MINUTES))
        policies = {} if policy is None else {"web-admin": policy}
        made.append(
            Attestation(programs=system, policies=policies, desk=desks[0], clock=clock, audit=book, met=grants.met)
        )
        return made[0]

    def holds(clock: FakeClock) -> Holds:
        desks.append(Desk(clock=clock, timeout=TWO_MINUTES, cancel_cooldown=TWO_MINUTES))
        return Holds(questions=desks[0], clock=clock, mode="auto", longest=TWO_MINUTES, most=8)

    async with running(folder, attesting=attesting, holds=holds if held else None) as rig:
        yield House(rig, system, desks[0], book, made[0])


PROTECTED, LISTED = Policy(protected=True), Policy(allow=("/usr/bin/terraform",))
SOCAT, HIDDEN, NOBODY = Found(program("/usr/bin/socat")), Found(hidden=("agent", "sshd")), Found()


async def test_a_connection_is_looked_at_once(tmp_path: Path) -> None:
    """Two requests on one connection are one look-up; another connection is another; `grants` names the program."""
    async with house(tmp_path) as made:
        reader, writer = await made.rig.connect()
        for _ in range(2):
            writer.write(made.rig.request())
            assert (await read_reply(reader)).status == 200
        assert len(made.system.looks) == 1
        assert (await made.status())[0] == 200
        assert len(made.system.looks) == 2
        (grant,) = made.rig.grants.list()
        assert made.rig.grants.wire(grant)["peer"]["exe"] == "/usr/bin/terraform"
        assert made.rig.audit.serves[0][1].badge.program == program()
        writer.close()


async def test_a_known_program_costs_no_scan(tmp_path: Path) -> None:
    """Found where it was before: no look-up; its place is given back when the connection ends."""
    async with house(tmp_path) as made:
        seat = made.system.seat = Seat(program())
        reader, writer = await made.rig.connect()
        writer.write(made.rig.request(Connection="close"))
        assert (await read_reply(reader)).status == 200
        await until_closed(reader)
        writer.close()
        assert made.system.looks == []
        await soon(lambda: seat.left)
        made.system.seat = Seat(program("/usr/bin/ncat"))
        assert (await made.status())[0] == 403
        assert made.system.looks == []


async def test_no_token_no_look(tmp_path: Path) -> None:
    """A stranger to the token costs no scan of /proc."""
    async with house(tmp_path) as made:
        assert (await made.rig.get(Authorization="wrong")).status == 401
        assert made.system.looks == []


async def test_many_at_once_are_one_scan(tmp_path: Path) -> None:
    """Fifty who come while a scan runs are one more scan, not fifty."""
    async with house(tmp_path) as made:
        made.system.gate = asyncio.Event()
        ends = [await made.rig.connect() for _ in range(50)]
        for _, writer in ends:
            writer.write(made.rig.request())
        await soon(lambda: len(made.attestation._wanted) == 50)
        made.system.gate.set()
        assert {(await read_reply(reader)).status for reader, _ in ends} == {200}
        assert len(made.system.looks) <= 3
        for _, writer in ends:
            writer.close()


@pytest.mark.parametrize(
    ("policy", "found", "status"),
    [
        (None, Found(program()), 200),
        (None, SOCAT, 403),
        (Policy(relays=frozenset({"socat"})), SOCAT, 200),
        (Policy(relays=frozenset({"ssh"})), SOCAT, 403),
        (None, NOBODY, 200),
        (None, Found(hidden=("agent",)), 200),
        (None, HIDDEN, 403),
        (Policy(relays=frozenset({"sshd"})), HIDDEN, 200),
        (LISTED, Found(program()), 200),
        (LISTED, Found(program("/usr/bin/curl")), 403),
        (LISTED, NOBODY, 403),
        (Policy(allow=()), Found(program()), 403),
        (Policy(allow=("/usr/bin/socat",)), SOCAT, 403),
        (PROTECTED, NOBODY, 403),
        (PROTECTED, Found(program()), 403),
    ],
)
async def test_the_table_of_policies(tmp_path: Path, policy: Policy | None, found: Found, status: int) -> None:
    """By default relays are refused and everybody else of this user is served; strict profiles refuse who is untold."""
    async with house(tmp_path, policy) as made:
        made.system.holder = found
        for _ in range(2):
            assert (await made.status())[0] == status
        assert made.rig.audit.denials == [] if status == 200 else len(made.rig.audit.denials) == 2


@pytest.mark.parametrize("policy", [None, LISTED, PROTECTED])
async def test_a_look_that_takes_too_long(tmp_path: Path, policy: Policy | None) -> None:
    """Nobody is served on the chance: who stands behind a relay may keep the machine busy. 503, for which SDKs come
    again, and on the same connection, too, the relay is found then.
    """
    async with house(tmp_path, policy) as made:
        made.system.gate, made.system.holder = asyncio.Event(), SOCAT
        reader, writer = await made.rig.connect()
        writer.write(made.rig.request())
        await soon(lambda: made.system.looks)
        await made.rig.clock.advance(PATIENCE - LONGEST - 0.01)
        assert made.attestation._wanted, "still waited for"
        await made.rig.clock.advance(LONGEST)
        async with asyncio.timeout(10):
            late = await read_reply(reader)
        assert (late.status, late.reason.endswith("run the same again.")) == (503, True)
        made.system.gate.set()
        writer.write(made.rig.request())
        assert (await read_reply(reader)).status == 403
        writer.close()


async def test_who_comes_while_a_look_is_late_waits_as_long(tmp_path: Path) -> None:
    """The timer of others is not his: at his first he goes on waiting."""
    async with house(tmp_path) as made:
        made.system.gate = asyncio.Event()
        first = asyncio.ensure_future(made.rig.get())
        await soon(lambda: made.system.looks)
        await made.rig.clock.advance(LONGEST - 0.01)
        second = asyncio.ensure_future(made.rig.get())
        await soon(lambda: len(made.attestation._wanted) == 2)
        await made.rig.clock.advance(PATIENCE - LONGEST)
        assert (await first).status == 503
        made.system.gate.set()
        assert (await second).status == 200


async def hang(made: House) -> None:
    """A look-up that begins with a request, is late, and is left."""
    before = len(made.system.looks)
    asked = asyncio.ensure_future(made.status())
    await soon(lambda: len(made.system.looks) > before)
    await made.rig.clock.advance(HANGS + LONGEST)
    async with asyncio.timeout(10):
        assert (await asked)[0] == 503


@pytest.mark.parametrize(("policy", "status"), [(None, 200), (LISTED, 403), (PROTECTED, 403)])
async def test_a_look_that_hangs_ends_nobodys_work(tmp_path: Path, policy: Policy | None, status: int) -> None:
    """On a file system that is away, for example: of such threads there are two at most, then nobody is looked for, and
    each is as one who cannot be told. Control: once they end, he is found.
    """
    async with house(tmp_path, policy) as made:
        made.system.gate = gate = asyncio.Event()
        for _ in range(2):
            await hang(made)
        made.system.gate, made.system.holder = None, SOCAT
        assert (await made.status())[0] == status
        assert len(made.system.looks) == 2
        gate.set()
        await soon(lambda: not made.attestation._left)
        assert "socat" in (await made.status())[1]


async def test_a_look_that_hangs_is_not_waited_for_by_others(tmp_path: Path) -> None:
    """It is left behind, and who comes then is found."""
    async with house(tmp_path) as made:
        made.system.gate = gate = asyncio.Event()
        await hang(made)
        made.system.gate, made.system.holder = None, SOCAT
        assert (await made.status())[0] == 403
        gate.set()


@pytest.mark.parametrize(("policy", "status", "waits"), [(LISTED, 503, 0.8), (PROTECTED, 403, 0.15)])
async def test_a_disk_that_is_away_holds_nobody(tmp_path: Path, policy: Policy, status: int, waits: float) -> None:
    """The list is on it: 503. The program is: a person is asked all the same, by what is known."""
    async with house(tmp_path, policy) as made:
        made.system.disk = asyncio.Event()
        asked = asyncio.ensure_future(made.status())
        await soon(lambda: made.system.looks)
        await made.rig.clock.settle()
        await made.rig.clock.advance(waits)
        async with asyncio.timeout(10):
            assert (await asked)[0] == status
        assert [each.requester for each in made.desk.open_questions()] == (
            ["/usr/bin/terraform (pid 7)"] if policy is PROTECTED else []
        )
        made.system.disk.set()


async def test_a_late_look_is_held_where_the_client_bears_it(tmp_path: Path) -> None:
    """It is under way, as a call to AWS is: the answer comes when it is over."""
    async with house(tmp_path, held=True) as made:
        made.system.gate = asyncio.Event()
        reader, writer = await made.rig.connect()
        writer.write(made.rig.request(User_Agent=PYTHON))
        await soon(lambda: made.system.looks)
        await made.rig.clock.advance(PATIENCE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        made.rig.broker.later = made.rig.broker.ready
        made.system.gate.set()
        assert b"AccessKeyId" in await until_closed(reader)
        writer.close()


async def test_a_look_that_fails_is_one_that_finds_nobody(tmp_path: Path) -> None:
    """Default: served. Strict: refused."""
    for number, (policy, status) in enumerate(((None, 200), (LISTED, 403))):
        (folder := tmp_path / str(number)).mkdir()
        async with house(folder, policy) as made:
            made.system.broken = True
            assert (await made.status())[0] == status


async def test_a_yes_is_for_one_program_until_a_lock_or_eight_hours(tmp_path: Path) -> None:
    """Also on a kept connection: what was allowed is looked at with each request."""
    async with house(tmp_path, PROTECTED) as made:
        made.rig.broker.ready = session(lives=timedelta(hours=20))
        assert (await made.status())[0] == 403
        (question,) = made.desk.open_questions()
        assert (question.kind, question.profile, question.requester) == (
            "consent", "web-admin", "/usr/bin/terraform (pid 7)",
        )  # fmt: skip
        made.desk.decide(question.id, allow=True, by="a person")
        reader, writer = await made.rig.connect()

        async def again() -> int:
            writer.write(made.rig.request())
            return (await read_reply(reader)).status

        assert await again() == 200
        made.system.holder = Found(program(file=(1, 2, 4, 4)))  # changed on disk
        assert (await made.status())[0] == 403
        made.system.holder = Found(program(script="/usr/bin/x"))
        assert (await made.status())[0] == 403
        made.system.holder = Found(program())
        await made.rig.clock.advance(EIGHT_HOURS - 1)
        assert await again() == 200
        await made.rig.clock.advance(2)
        assert await again() == 403
        made.desk.decide(made.desk.open_questions()[0].id, allow=True, by="a person")
        assert await again() == 200
        made.desk.lock()
        assert await again() == 403
        assert [event for event in made.book.events if event[0] == "consent.answer"] == [
            ("consent.answer", "allow")
        ] * 2
        assert made.book.peers == [program().peer] * len(made.book.peers), "an answer names whom it was for, too"
        writer.close()


async def test_a_no_cools_down_and_only_codes_take_codes(tmp_path: Path) -> None:
    """For two minutes that program is refused without a question; then it is asked about again."""
    async with house(tmp_path, PROTECTED) as made:
        await made.status()
        (question,) = made.desk.open_questions()
        with pytest.raises(BadRequest, match="yes or no"):
            await made.desk.answer(question.id, Secret("123456"), by="x")
        made.desk.decide(question.id, allow=False, by="x")
        with pytest.raises(UnknownPrompt):
            made.desk.decide(question.id, allow=True, by="x")
        status, reason = await made.status()
        assert status == 403
        assert "was denied to /usr/bin/terraform" in reason
        assert made.desk.open_questions() == ()
        await made.rig.clock.advance(121)
        await made.status()
        assert len(made.desk.open_questions()) == 1


async def test_copies_of_a_program_open_no_storm(tmp_path: Path) -> None:
    """16 questions at a time, however many programs ask."""
    async with house(tmp_path, PROTECTED) as made:
        for number in range(MOST_CONSENTS + 3):
            made.system.holder = Found(program(f"/tmp/{number}"))
            assert (await made.status())[0] == 403
        assert len(made.desk.open_questions()) == MOST_CONSENTS


async def test_nobody_is_asked_while_locked(tmp_path: Path) -> None:
    """A locked daemon serves nothing, so there is nothing to allow."""
    async with house(tmp_path, PROTECTED) as made:
        made.rig.broker.locked, made.rig.broker.later = True, made.rig.broker.ready
        assert (await made.status())[0] == 403
        assert made.desk.open_questions() == ()


async def test_a_lock_while_it_is_looked_who_asks(tmp_path: Path) -> None:
    """No question is opened behind it, which a yes could answer while nothing is served. Control: else one is."""
    for number, locked in enumerate((True, False)):
        (folder := tmp_path / str(number)).mkdir()
        async with house(folder, PROTECTED) as made:
            made.system.gate = asyncio.Event()
            asked = asyncio.ensure_future(made.status())
            await soon(lambda made=made: made.system.looks)  # type: ignore[misc]
            if locked:
                made.desk.lock()
            made.system.gate.set()
            assert (await asked)[0] == 403
            assert len(made.desk.open_questions()) == (0 if locked else 1)
            assert made.book.events == ([] if locked else [("consent.ask", None)])


async def test_held_while_a_person_is_at_the_question(tmp_path: Path) -> None:
    """A client that bears it waits with blanks, and has its keys after the yes."""
    async with house(tmp_path, PROTECTED, held=True) as made:
        assert (await made.status())[0] == 403  # nobody sees the question yet
        (question,) = made.desk.open_questions()
        made.desk.attend(question.id)
        reader, writer = await made.rig.connect()
        writer.write(made.rig.request(User_Agent=PYTHON))
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        made.rig.broker.later = made.rig.broker.ready
        made.desk.decide(question.id, allow=True, by="a person")
        assert b"AccessKeyId" in await until_closed(reader)
        writer.close()


def test_relays_are_told_by_name() -> None:
    """The whole list, each family by every name that it has; a program that only resembles one is none."""
    assert {name: relay_family(name) for name in RELAY_NAMES} == RELAY_NAMES
    assert set(RELAYS) == set(RELAY_NAMES.values())
    assert [relay_family(name) for name in ("terraform", "ssh-agent", "python3.11", "sshx", "socatx")] == [None] * 5
    assert program("/usr/bin/socat (deleted)").relay == "socat"
    assert program("/usr/bin/python3", script="/x/ngrok").relay == "ngrok"
    assert (table_of("a-b_c"), table_of('a "b"')) == ("[profiles.a-b_c]", '[profiles."a \\"b\\""]')
