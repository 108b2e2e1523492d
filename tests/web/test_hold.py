"""Held requests: who is, and how they drip to their keys. Real sockets, a real broker and desk, FakeClock's time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.hold_rig import HoldRig, attended, holding, one_held, warm
from tests.web.rig import read_reply, until_closed
from vaultd.engine.seams import MintMfa, MintRole
from vaultd.errors import CodeRefused, RoleDenied
from vaultd.host.peers import Address, Peers, PeerSocket
from vaultd.model.secret import Secret
from vaultd.web.hold import BLANK, END, PER_GRANT, TICK
from vaultd.web.limits import Limits


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[HoldRig]:
    async with holding(tmp_path) as made:
        yield made


# ---- the drip, and the keys ----


async def test_a_held_request_drips_and_gets_its_keys(rig: HoldRig) -> None:
    """A blank at once, one every 0.5 s, then the JSON in one chunk, the end, FIN; served once, after the bytes."""
    await attended(rig)
    client = await one_held(rig)
    for _ in range(10):
        await rig.tick()
        await client.blanks(1)
    assert rig.events() == (0, [])

    await rig.engine.answer()
    body, blanks = await client.end()

    keys = json.loads(body)
    assert keys["AccessKeyId"].startswith("ASIA")
    assert keys["Expiration"].endswith("Z")
    assert blanks == 0
    assert rig.events() == (1, [])
    assert rig.engine.keeper.count(MintMfa) == 1


async def test_the_head_is_an_ecs_reply_in_chunks(rig: HoldRig) -> None:
    """interface.md §4: the same header fields, but a length: that is not known. The connection ends with it."""
    await attended(rig)
    client = await rig.ask()
    assert sorted(await client.held()) == [
        "Cache-Control: no-store",
        "Connection: close",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        "X-Content-Type-Options: nosniff",
    ]


async def test_no_two_blanks_are_further_apart_than_the_contract_allows(rig: HoldRig) -> None:
    """At least every 0.8 s, for whoever joins between two ticks too."""
    assert TICK <= 0.8
    await attended(rig)
    first = await one_held(rig)
    await rig.engine.clock.advance(TICK * 0.9)
    second = await rig.ask()
    await second.held()
    await rig.engine.clock.advance(TICK * 0.1)
    for client in (first, second):
        await client.blanks(1)
    await rig.tick()
    for client in (first, second):
        await client.blanks(1)


async def test_100_held_clients_are_one_code(rig: HoldRig) -> None:
    """All of them are served by one answer: one GetSessionToken, one AssumeRole."""
    await attended(rig)
    clients = [await rig.ask() for _ in range(100)]
    for client in clients:
        await client.held()
    await rig.held(100)
    await rig.tick(4)
    await rig.engine.answer()
    for client in clients:
        body, blanks = await client.end()
        assert json.loads(body)["Code"] == "Success"
        assert blanks == 4
    assert (rig.engine.keeper.count(MintMfa), rig.engine.keeper.count(MintRole)) == (1, 1)
    assert rig.events() == (100, [])


async def test_a_refused_code_does_not_end_it(rig: HoldRig) -> None:
    """The question stays open and so does the hold; the next code ends both."""
    await attended(rig)
    client = await one_held(rig)
    rig.engine.keeper.wrong.add("000000")
    with pytest.raises(CodeRefused):
        await rig.engine.answer(code=Secret("000000"))
    await rig.tick()
    await client.blanks(1)
    await rig.engine.answer()
    assert json.loads((await client.end())[0])["Code"] == "Success"


# ---- a slow AWS ----


async def test_a_slow_flight_is_held_after_its_patience(rig: HoldRig) -> None:
    """0.8 s of silence as ever, then the drip until it lands; nobody has to be asked for it."""
    await warm(rig)
    client = await rig.ask()
    async with asyncio.timeout(10):
        while rig.engine.keeper.count(MintRole) < 2:  # noqa: ASYNC110 - the request has begun its flight
            await asyncio.sleep(0)
    await rig.engine.clock.advance(0.7)
    assert client.silent()
    await rig.engine.clock.advance(0.1)
    await client.held()
    await rig.tick(3)
    await client.blanks(3)
    assert rig.engine.keeper.gate is not None
    rig.engine.keeper.gate.set()
    assert json.loads((await client.end())[0])["Code"] == "Success"
    assert rig.engine.keeper.count(MintRole) == 2
    assert rig.events() == (1, [])


async def test_a_flight_that_failed_is_told_at_once(rig: HoldRig) -> None:
    """AWS said no, or was not there: that is 403 or 503 as ever, for the request and for those after it."""
    await warm(rig)
    rig.engine.keeper.gate = None
    rig.engine.keeper.always[MintRole] = RoleDenied("AWS refuses web-admin: type `vault-client explain web-admin`.")
    denied = await rig.get()
    assert (denied.status, json.loads(denied.body)["code"]) == (403, "RoleDenied")


async def test_a_flight_that_fails_ends_the_hold_blank(rig: HoldRig) -> None:
    """Blank, one denial with AWS's reason, and the re-request hears it."""
    await warm(rig)
    client = await rig.ask()
    while rig.engine.keeper.count(MintRole) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await rig.engine.clock.advance(0.8)
    await client.held()
    rig.engine.keeper.always[MintRole] = RoleDenied("AWS refuses web-admin: type `vault-client explain web-admin`.")
    assert rig.engine.keeper.gate is not None
    rig.engine.keeper.gate.set()
    assert await client.end() == (b"", 0)
    assert rig.events() == (0, ["RoleDenied"])
    assert json.loads((await rig.get()).body)["code"] == "RoleDenied"


# ---- who is held ----


async def test_auto_holds_only_for_a_question_that_is_seen(rig: HoldRig) -> None:
    """Nobody at it: 403 at once, and it is open for the next one; with an asker the same request is held."""
    refused = await rig.get()
    assert (refused.status, json.loads(refused.body)["code"]) == (403, "MfaRequired")
    (question,) = rig.engine.desk.open_questions()
    rig.engine.desk.attend(question.id)
    (await one_held(rig)).close()


async def test_always_holds_for_whoever_may_come(tmp_path: Path) -> None:
    """`vault-client mfa` in any terminal answers the question that the request opened."""
    async with holding(tmp_path, mode="always") as rig:
        client = await one_held(rig)
        await rig.engine.answer()
        assert json.loads((await client.end())[0])["Code"] == "Success"


async def test_off_holds_nobody(tmp_path: Path) -> None:
    """Neither for a person nor for AWS."""
    async with holding(tmp_path, mode="off") as rig:
        asker = await attended(rig)
        assert (await rig.get()).status == 403
        asker.leave()
        await warm(rig)
        client = await rig.ask()
        while rig.engine.keeper.count(MintRole) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await rig.engine.clock.advance(0.8)
        assert (await client.reply()).status == 503
        assert rig.engine.keeper.gate is not None
        rig.engine.keeper.gate.set()


async def test_a_client_that_bears_no_drip_is_answered_at_once(tmp_path: Path) -> None:
    """PHP gives a try 1 s in all (sdk-facts §10.8), whatever the setting."""
    async with holding(tmp_path, mode="always") as rig:
        assert (await rig.get(User_Agent="GuzzleHttp/7")).status == 403
        (await one_held(rig)).close()  # control


def rust(rig: HoldRig) -> bytes:
    fields = f"host: 127.0.0.1:{rig.port}\r\naccept: application/json\r\nauthorization: {rig.token}"
    return f"GET /v1/credentials/web-admin HTTP/1.1\r\n{fields}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("agent", "longest", "cap"),
    [(None, 100, 21), ("object_store/0.14.2", 100, 25), ("curl/8", 100, 100), ("curl/8", 7, 7), (None, 120, 21)],
)
async def test_a_hold_ends_within_the_clients_time(agent: str | None, longest: int, cap: int, tmp_path: Path) -> None:
    """The least of the client's cap and hold_max, from its arrival: blank, never later and at most a tick earlier."""
    async with holding(tmp_path, longest=longest, mode="always") as rig:
        client = await rig.ask(rust(rig) if agent is None else rig.request(User_Agent=agent))
        await client.held()
        await rig.tick(cap * 2 - 2)
        await client.blanks(cap * 2 - 2)
        assert len(rig.holds) == 1
        await rig.tick()
        assert await client.end() == (b"", 1)
        assert rig.events() == (0, ["MfaRequired"])


async def test_the_cap_counts_from_arrival(tmp_path: Path) -> None:
    """The silent 0.8 s are the client's time too."""
    async with holding(tmp_path, longest=3) as rig:
        await warm(rig)
        client = await rig.ask()
        while rig.engine.keeper.count(MintRole) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await rig.engine.clock.advance(0.8)
        await client.held()
        await rig.engine.clock.advance(2.2)
        assert await client.end() == (b"", 4)
        assert rig.events() == (0, ["StsUnavailable"])


async def test_at_most_256_of_a_grant(rig: HoldRig) -> None:
    """One more is answered at once, as without hold; another grant's is held."""
    await attended(rig)
    clients = [await rig.ask() for _ in range(PER_GRANT)]
    for client in clients:
        await client.held()
    await rig.held(PER_GRANT)
    assert (await rig.get()).status == 403
    other = await rig.ask(rig.request("/v1/credentials/audit", Authorization=rig.another_token("audit")))
    await other.held()
    clients.pop().close()
    await rig.tick(2)
    await rig.held(PER_GRANT)
    (await rig.ask()).close()
    await rig.engine.answer()
    for client in (*clients, other):
        assert json.loads((await client.end())[0])["Code"] == "Success"


# ---- the others ----


async def test_held_requests_leave_half_of_the_connections(tmp_path: Path) -> None:
    """However many grants hold theirs, and however few connections there are: nobody whose keys are there waits."""
    async with holding(tmp_path, limits=Limits(connections=16)) as rig:
        await attended(rig)
        tokens = [rig.token, *(rig.another_token("web-admin") for _ in range(3))]
        held = [await rig.ask(Authorization=token) for token in tokens[:2] for _ in range(4)]
        await rig.held(8)
        assert [(await rig.get(Authorization=token)).status for token in tokens] == [403] * 4

        quick = [await rig.ask(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") for _ in range(8)]
        assert [(await client.reply()).status for client in quick] == [200] * 8

        held[0].close()
        await rig.tick(2)
        await rig.held(7)
        await (await rig.ask(Authorization=tokens[3])).held()
        await rig.held(8)


async def test_one_grant_holds_half_of_what_is_held(tmp_path: Path) -> None:
    """Where there are few connections 256 of one grant would be all of them."""
    async with holding(tmp_path, limits=Limits(connections=16)) as rig:
        await attended(rig)
        greedy = [await rig.ask() for _ in range(8)]
        other = rig.another_token("web-admin")
        await rig.held(4)
        await (await rig.ask(Authorization=other)).held()
        await rig.held(5)
        assert sum(each.reader.at_eof() for each in greedy) == 0


def test_how_many_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the connections that there may be, whether the contract or the descriptors bound these."""
    assert Limits().most_held() * 2 == Limits().most()
    monkeypatch.setattr("vaultd.web.limits.resource.getrlimit", lambda _: (64, 64))
    assert Limits().most_held() == 24


async def test_others_do_not_wait_behind_a_held_one(rig: HoldRig) -> None:
    """Other connections are answered; what was pipelined behind it waits, and is not answered before it."""
    await attended(rig)
    client = await one_held(rig)
    client.writer.write(rig.request("/healthz"))
    assert (await rig.get(User_Agent="GuzzleHttp/7")).status == 403
    health = await rig.ask(rig.request("/healthz"))
    assert (await read_reply(health.reader)).body == b"ok"
    await rig.tick(2)
    await client.blanks(2)
    await rig.engine.answer()
    assert json.loads((await client.end())[0])["Code"] == "Success"


# ---- the peer ----


class TurnsInto(Peers):
    """The peer of a connection becomes `then` after so many looks."""

    def __init__(self) -> None:
        super().__init__()
        self.looks, self.turned = 0, False

    def uid_of(self, local: Address, remote: Address) -> PeerSocket | None:
        self.looks += 1
        return PeerSocket(uid=self.own_uid + 1, inode=7, state=1) if self.turned else super().uid_of(local, remote)


async def test_the_peer_is_looked_up_before_the_head_and_before_the_keys(tmp_path: Path) -> None:
    """security.md §0.2: at accept, before `200`, before the JSON; another uid gets nothing more."""
    peers = TurnsInto()
    async with holding(tmp_path, peers=peers) as rig:
        await attended(rig)
        client = await one_held(rig)
        assert peers.looks == 2
        peers.turned = True
        await rig.engine.answer()
        assert b"ASIA" not in await until_closed(client.reader)
        assert peers.looks == 3
        assert rig.events() == (0, ["ForbiddenPeer"])


async def test_a_stranger_gets_no_head(tmp_path: Path) -> None:
    """The socket's owner has changed since it was accepted: not a byte, and nobody is held."""
    peers = TurnsInto()
    async with holding(tmp_path, peers=peers) as rig:
        await attended(rig)
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        while not len(rig.side):  # noqa: ASYNC110
            await asyncio.sleep(0)
        peers.turned = True
        writer.write(rig.request())
        assert await until_closed(reader) == b""
        assert len(rig.holds) == 0
        writer.close()


def test_the_chunks_are_those_of_rfc_9112() -> None:
    """What a parser reads as one blank, and as the end."""
    assert BLANK == b"1\r\n \r\n"
    assert END == b"0\r\n\r\n"
