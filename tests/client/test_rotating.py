"""`rotate`: step by step, each told; what stands when it stops, and how to go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import IDENTITY, PROFILE, Stub, error, mfa_required
from tests.client.terminal import OnTerminal
from vault_client import rotating

ROUTE = ("POST", "/v1/identities/identity/rotate")
UNTIL = "2099-11-23T20:00:00Z"


def rotation(stage: str) -> dict[str, Any]:
    until = UNTIL if stage == "inactive" else None
    return {"stage": stage, "old_key": "WXYZ", "new_key": "" if stage == "intent" else "ABCD", "delete_after": until}


def step(did: str, stage: str | None = None, **more: Any) -> tuple[int, dict[str, Any]]:
    """The daemon's answer to one step."""
    identity = {**IDENTITY, "access_key_id": "ABCD", "rotation": None if stage is None else rotation(stage)}
    body = {
        "identity": identity, "did": did, "done": False, "old_key": "WXYZ", "new_key": "ABCD", "usable": 0,
        "usable_wanted": 3, "last_used": "", "signed_out": False, "retry_after_seconds": 0,
    }  # fmt: skip
    return 200, {**body, **more}


STORY = [
    step("intent", "intent", new_key=""),
    step("pending", "pending"),
    step("tried", "pending"),
    *(step("tried", "pending", usable=number) for number in (1, 2, 3)),
    step("swapped", "swapped"),
    step("inactive", "inactive", done=True, last_used="2026-11-22 by s3 in us-east-1", signed_out=True),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "_PAUSE", 0.0)


def told(text: str) -> list[str]:
    return [line.removeprefix("vault-client: ") for line in text.splitlines()]


def test_the_story(run: Run, stub: Stub) -> None:
    """A step a call until it is done; each arrow is a sentence, and of the looks a log gets the first and the last."""
    stub.answers[ROUTE] = list(STORY)
    ended = run("rotate", "identity", "--token-code", "123456")

    assert ended.status == 0
    assert [each.partition(" (0 s)")[0] for each in told(ended.err)[:-2]] == [
        "AWS has one key of identity, …WXYZ: it stays in use while a new one is made",
        "made …ABCD and stored it; …WXYZ stays in use until AWS knows the new one",
        "waiting until AWS knows …ABCD everywhere: not known yet",
        "waiting until AWS knows …ABCD everywhere: known 3 of 3 times in a row",
        "…ABCD is in use now; sessions live on",
    ]
    assert told(ended.err)[-2].startswith(
        "…WXYZ is Inactive (last used 2026-11-22 by s3 in us-east-1), and vaultd dele"
    )
    assert told(ended.err)[-2].endswith("if something still needs it, type `vault-client rotate identity --undo`")
    assert told(ended.err)[-1].endswith("the next renewal asks for a code")
    assert ended.out == ""
    bodies = stub.asked(*ROUTE)
    assert bodies == [{"token_code": "123456"}, *[{"wish": "on"}] * 7], "one code is sent once, one rotation begun"


def test_the_code_is_for_the_first_step_that_wants_one(run: Run, stub: Stub) -> None:
    """Gone on with where nothing is asked of IAM: the code is kept until it is, so that a script needs no terminal."""
    stub.answers[ROUTE] = list(STORY[5:])
    assert run("rotate", "identity", "--token-code", "123456").status == 0
    assert stub.asked(*ROUTE) == [{"token_code": "123456"}, *[{"token_code": "123456", "wish": "on"}] * 2]


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--grace", "7d"], {"grace_seconds": 604800}),
        (["--grace=0s"], {"grace_seconds": 0}),
        (["--undo"], {"wish": "undo"}),
        (["--abandon"], {"wish": "abandon"}),
    ],
)
def test_what_is_wished(run: Run, stub: Stub, options: list[str], body: dict[str, Any]) -> None:
    """Options travel with every step."""
    stub.answers[ROUTE] = step("deleted", done=True)
    assert run("rotate", "identity", *options).status == 0
    assert stub.asked(*ROUTE) == [body]


@pytest.mark.parametrize(
    ("did", "said"),
    [
        ("kept", "…WXYZ is Inactive until "),
        ("deleted", "…WXYZ is deleted; identity has one key, …ABCD"),
        ("reactivated", "…WXYZ works again and is not deleted; once nothing uses it any more, type `vault-client rot"),
        ("over", "the rotation of identity was ended elsewhere; its key in use is …ABCD"),
        ("abandoned", "what was made for the rotation is deleted; …WXYZ is in use as before"),
    ],
)
def test_each_end(run: Run, stub: Stub, did: str, said: str) -> None:
    """One sentence for each way in which it is over for now; --json has the daemon's object."""
    stub.answers[ROUTE] = step(did, "inactive" if did == "kept" else None, done=True)
    ended = run("rotate", "identity", "--json")

    assert told(ended.err)[0].startswith(said)
    assert f'"did": "{did}"' in ended.out


@pytest.mark.parametrize("options", [["--undo", "--abandon"], ["--grace", "24"], ["--grace", "91d"], ["--grace", "٣d"]])
def test_wrong_options(run: Run, stub: Stub, options: list[str]) -> None:
    """2, and nothing was asked."""
    assert run("rotate", "identity", *options).status == 2
    assert stub.requests == []


def test_a_stop_says_what_stands(run: Run, stub: Stub) -> None:
    """The daemon's own sentence where it names what stands at AWS; else what stands comes first."""
    stop = error(409, "RotationStopped", "two keys already: delete one, then type `vault-client rotate identity`", 1)
    stub.answers[ROUTE] = [step("intent", "intent"), stop]
    ended = run("rotate", "identity")
    assert (ended.status, len(told(ended.err))) == (1, 2)
    assert told(ended.err)[-1].startswith("two keys already")

    stub.answers["GET", "/v1/identities"] = (200, {"identities": [{**IDENTITY, "rotation": rotation("swapped")}]})
    stub.answers[ROUTE] = [step("swapped", "swapped"), error(403, "RoleDenied", "AWS refused: type `x`", 1)]
    ended = run("rotate", "identity")
    assert ended.status == 1
    assert told(ended.err)[-2:] == [
        "stopped: …ABCD is in use, and …WXYZ is Active, too; to go on, type `vault-client rotate identity`",
        "AWS refused: type `x`",
    ]


def test_aws_away_for_a_moment(run: Run, stub: Stub) -> None:
    """A step that AWS was not there for is taken again, twice; then 75, with what stands."""
    away = error(503, "StsUnavailable", "AWS is away: try again", 75)
    stub.answers[ROUTE] = [STORY[0], away, away, step("deleted", done=True)]
    assert run("rotate", "identity").status == 0

    stub.answers["GET", "/v1/identities"] = (200, {"identities": [{**IDENTITY, "rotation": rotation("intent")}]})
    stub.answers[ROUTE] = [STORY[0], away]
    ended = run("rotate", "identity")
    assert ended.status == 75
    assert "stopped: …WXYZ is in use, and a new key may have been made; to go on" in ended.err
    stub.answers[ROUTE] = away
    assert run("rotate", "identity").status == 75
    assert len(stub.asked(*ROUTE)) == 4 + 4 + 1, "nothing had begun: told at once"


def test_no_terminal(run: Run, process: Run, stub: Stub) -> None:
    """A code is needed and nobody is there: 3, and what to type."""
    stub.answers[ROUTE] = mfa_required()
    ended = process("rotate", "identity")
    assert ended.status == 3
    assert "--token-code CODE" in ended.err


def test_ctrl_c(terminal: Callable[..., OnTerminal], stub: Stub) -> None:
    """While the key spreads: 130, what stands, and how to go on; the line that changes is there for a person."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [{**IDENTITY, "rotation": rotation("pending")}]})
    stub.answers[ROUTE] = [*STORY[:2], step("tried", "pending", usable=1, retry_after_seconds=60)]
    screen = terminal("rotate", "identity")
    screen.until("known 1 of 3 times in a row")
    screen.type("\x03")

    ended = screen.end()
    assert ended.status == 130
    assert (
        "stopped: the new key …ABCD is stored and not in use yet, and …WXYZ is in use; to go on, type `vault-client "
        "rotate identity`"
    ) in ended.err


@pytest.mark.parametrize(
    ("stage", "options", "said"),
    [
        (None, [], "nothing was changed at AWS, and …WXYZ is in use"),
        ("swapped", [], "…ABCD is in use, and …WXYZ is Active, too"),
        ("inactive", ["--undo"], "…ABCD is in use, and …WXYZ is Inactive"),
    ],
)
def test_ctrl_c_at_the_code(
    terminal: Callable[..., OnTerminal], stub: Stub, stage: str | None, options: list[str], said: str
) -> None:
    """What stands at AWS, and both commands that go on: during the cool-down that a cancel starts only `mfa` asks."""
    listed = {**IDENTITY, "rotation": None if stage is None else rotation(stage)}
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [listed]})
    stub.answers[ROUTE] = mfa_required()
    screen = terminal("rotate", "identity", *options)
    screen.until("MFA code: ")
    screen.type("\x03")

    ended = screen.end()
    assert ended.status == 1
    again = " ".join(["vault-client rotate identity", *options])
    wanted = f"cancelled: {said}; to go on, wait 30 s, then type `vault-client mfa identity` and `{again}`"
    assert [each for each in told(ended.err) if "cancelled" in each] == [wanted]


@pytest.mark.parametrize("listed", [(200, {"identities": []}), error(500, "InternalError", "no: type `x`", 1)])
def test_nothing_is_known(run: Run, stub: Stub, listed: Any) -> None:
    """The identity is gone, or the daemon says nothing: still a way on."""
    stub.answers["GET", "/v1/identities"] = listed
    stub.answers[ROUTE] = [STORY[0], error(403, "Locked", "locked: type `vault-client unlock`", 1)]
    assert "type `vault-client rotate identity`" in run("rotate", "identity").err


def test_reminders_and_ages(run: Run, stub: Stub) -> None:
    """`identities` tells a key's age, or the least that it can be, and whose is old."""
    known = {**IDENTITY, "key_age_days": 120, "key_created": "2026-07-25T00:00:00Z"}
    least = {**IDENTITY, "name": "other", "key_age_days": 3, "key_created": None}
    reminder = "the key …WXYZ of identity is 120 days old: type `vault-client rotate identity`"
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [known, least], "reminders": [reminder]})
    ended = run("identities")

    assert " 120d " in ended.out
    assert " ≥ 3d " in ended.out
    assert told(ended.err) == [reminder]

    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [PROFILE], "reminders": [reminder]})
    listed = run("list")
    assert (listed.status, told(listed.err)) == (0, [reminder])
