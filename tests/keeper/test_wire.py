"""Values ↔ frames: what the seams declare travels whole, and nothing else is taken."""

from __future__ import annotations

import inspect
import typing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.keeper.rooms import ENDPOINT, HOUR, ROLE, SERIAL, franklin, with_code
from tests.keeper.wired import NoOutlook, errors, setup
from vaultd.engine.seams import (
    Console,
    Custody,
    ForeignStore,
    Head,
    Importer,
    Keeper,
    Kin,
    Minted,
    MintRole,
    MintServed,
    Note,
    Offer,
    Opened,
    Outlook,
    Rotated,
    SignedIn,
    SignIn,
)
from vaultd.errors import CodeSpent, KeyringBusy, VaultdError
from vaultd.keeper import wire
from vaultd.keeper.process import Served, Whole
from vaultd.model.console import Site
from vaultd.model.credentials import Identity, MfaHandle, RoleSession
from vaultd.model.partitions import Endpoint
from vaultd.model.plan import RoleParameters
from vaultd.model.rotation import Rotation
from vaultd.model.secret import Secret

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
HANDLE = MfaHandle("franklin", SERIAL, NOON, NOON + 12 * HOUR)
SESSION = RoleSession(
    access_key_id="ASIAFRANKLIN00000001",
    secret_access_key=Secret("canary-role-secret"),
    session_token=Secret("canary-röle-token"),
    issued=NOON,
    expiration=NOON + HOUR,
    account_id="234567890123",
    role_arn="arn:aws:iam::234567890123:role/WebAdmin",
    packed_policy_size=12,
)
IDENTITY = Identity("franklin", "123456789012", "arn:aws:iam::123456789012:user/franklin", None, "0001", NOON)
ROTATION = Rotation("pending", "uuid", ("AKIAFRANKLIN00000001",), NOON, HOUR, "AKIAFRANKLIN00000002", ("AKIASTRAY",))
FULL = Endpoint("eu-west-1", "http://127.0.0.1:1", None, use_fips=True, ca_bundle="/etc/ca.pem", fallback_region="x-y")
TAGGED = RoleParameters("arn:a", "name", tags=(("team", "web"), ("cost", "7")), transitive_tag_keys=("team",))
FOREIGN = ForeignStore("file", "/home/franklin/.awsvault/keys")
SITE = Site("https://signin.aws.amazon.com/federation", "https://eu-west-1.console.aws.amazon.com/s3/home", doubt="d")
LONGEST = timedelta(days=36, seconds=5, microseconds=7)

#: (call, its arguments), at least one of each call and of each kind of value.
CALLS: list[tuple[str, dict[str, object]]] = [
    ("open", {"passphrase": Secret(b"\xff\x00 correct horse"), "unlock": True, "accept_rollback": False}),
    ("open", {"passphrase": None, "unlock": False, "accept_rollback": True}),
    ("open", {"passphrase": Secret(""), "unlock": False, "accept_rollback": True}),
    ("mint", {"order": with_code()}),
    ("mint", {"order": MintRole("franklin", FULL, LONGEST, TAGGED, source=HANDLE)}),
    ("mint", {"order": MintRole("franklin", ENDPOINT, HOUR, ROLE, source=SESSION)}),
    ("mint", {"order": MintRole("franklin", ENDPOINT, HOUR, ROLE, mfa_serial=SERIAL, token_code=Secret("123456"))}),
    ("mint", {"order": MintServed(HANDLE)}),
    ("note", {"note": Note("session", "c" * 64, session=SESSION)}),
    ("note", {"note": Note("limit", "c" * 64, seconds=7200)}),
    ("note", {"note": Note("head", head=Head(7, "0" * 64))}),
    ("close", {"head": Head(1, "f" * 64), "lock": True}),
    ("close", {"head": None, "lock": False}),
    ("add", {"key": franklin(), "endpoint": ENDPOINT, "mfa_serial": SERIAL, "replace": False}),
    ("remove", {"name": "franklin"}),
    ("probe", {"name": "franklin", "endpoint": ENDPOINT}),
    ("detect", {"name": "franklin", "endpoint": ENDPOINT}),
    ("rotate", {"name": "franklin", "endpoint": ENDPOINT, "handle": HANDLE, "wish": "go", "grace": None}),
    ("rotate", {"name": "franklin", "endpoint": ENDPOINT, "handle": None, "wish": "undo", "grace": LONGEST}),
    ("date", {"name": "franklin", "endpoint": ENDPOINT, "handle": HANDLE}),
    ("offers", {"source": FOREIGN, "passphrase": Secret("correct horse"), "names": ("identity", "50% off")}),
    ("offers", {"source": FOREIGN, "passphrase": None, "names": ()}),
    (
        "adopt",
        {"source": FOREIGN, "name": "bücher", "passphrase": None, "endpoint": ENDPOINT, "mfa_serial": SERIAL},
    ),
    ("discard", {"source": FOREIGN, "name": "team/prod", "passphrase": Secret("correct horse")}),
    ("holds", {"key": franklin()}),
    ("kin", {"key": franklin()}),
    ("warm", {}),
    ("keyring", {}),
    ("url", {"order": SignIn(SESSION, SITE, FULL, "web-admin", LONGEST)}),
    ("url", {"order": SignIn(SESSION, SITE, ENDPOINT, "web-admin")}),
]
RESULTS: list[tuple[str, object]] = [
    ("open", Opened(3, "file", locked=True, reason="shut; run `vault-client unlock`")),
    (
        "open",
        Opened(0, "keyring", False, "", (HANDLE,), (Note("session", "c", session=SESSION),), Head(2, "a"), ("w",)),
    ),
    ("mint", Minted(handle=HANDLE)),
    ("mint", Minted(session=SESSION)),
    ("note", None),
    ("close", 4),
    ("add", IDENTITY),
    ("remove", None),
    ("probe", "arn:aws:iam::123456789012:user/franklin"),
    ("detect", (SERIAL, "GAHT12345678")),
    ("rotate", Rotated(replace(IDENTITY, rotation=ROTATION), "tried", "0001", "0002", usable=2)),
    ("rotate", Rotated(IDENTITY, "deleted", "0001", "0002", living=(HANDLE,))),
    ("date", replace(IDENTITY, key_created=NOON)),
    ("offers", (Offer("identity", "identity", "0001", held="same"), Offer("team/prod", "team-prod", wrong="damaged"))),
    ("offers", ()),
    ("adopt", IDENTITY),
    ("discard", None),
    ("holds", True),
    ("kin", Kin("franklin", old=True)),
    ("warm", None),
    ("keyring", None),
    ("keyring", "secret-service"),
    ("url", SignedIn(Secret("https://signin.example/?SigninToken=canary"), LONGEST)),
    ("url", SignedIn(Secret("https://signin.example/?SigninToken=canary"))),
]


def sent(message: wire.Message) -> wire.Message:
    """Through bytes and back."""
    (found,) = wire.Frames().feed(wire.framed(message))
    return found


@pytest.mark.parametrize(("name", "given"), CALLS)
def test_a_call_arrives_as_it_was_made(name: str, given: dict[str, object]) -> None:
    """Every call of the seams, with every kind of value, is the same below."""
    assert wire.called(sent(wire.call(5, name, given))) == (5, name, given)


@pytest.mark.parametrize(("name", "result"), RESULTS)
def test_a_result_arrives_as_it_was_given(name: str, result: object) -> None:
    """Every result of the seams is the same above."""
    assert wire.result_of(name, sent({"id": 1, "result": wire.packed(result)})) == result


@pytest.mark.parametrize("kind", errors(), ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_the_same_class(kind: type[VaultdError]) -> None:
    """Errors are codes: class, sentence and details cross, whatever the class."""
    error = kind("do this; type `that`", retry_after_seconds=7, mfa_serials=["a", "b"])
    with pytest.raises(kind) as caught:
        wire.result_of("mint", sent({"id": 1, "error": wire.packed_error(error)}))
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.details) == (error.message, error.details)


def test_an_error_of_a_class_of_its_own_arrives_as_the_nearest_known() -> None:
    """A subclass that some room below made for itself is not known above."""

    class Busier(KeyringBusy):
        pass

    assert type(wire.error_of(wire.packed_error(Busier("busy; try `it`")))) is KeyringBusy


def test_every_call_of_the_seams_is_carried() -> None:
    """A method that is added to one of these is carried too, or this says that it was forgotten."""
    for seam in (Keeper, Custody, Importer, Outlook, Console):
        made = {name for name, each in vars(seam).items() if inspect.iscoroutinefunction(each)}
        assert made == {name for name, owner in wire.CALLS.items() if owner is seam}
    assert {name for name, _ in CALLS} == set(wire.CALLS) == {name for name, _ in RESULTS}


def _altered(name: str, given: dict[str, object], **changes: Any) -> wire.Message:
    return {**wire.call(5, name, given), **changes}


#: What a broken daemon could send: wrong names, wrong types, too much, too little.
WRONG: list[wire.Message] = [
    {},
    {"call": "open", "id": 1},
    _altered(*CALLS[1], id="5"),
    _altered(*CALLS[1], id=True),
    _altered(*CALLS[1], call="list"),
    _altered(*CALLS[1], call="__init__"),
    _altered(*CALLS[1], call=["open"]),
    {"call": "open", "id": 1, "with": {"passphrase": None, "unlock": 1, "accept_rollback": False}},
    {"call": "open", "id": 1, "with": {"passphrase": None, "unlock": True}},
    {"call": "open", "id": 1, "with": {"passphrase": "no base64!", "unlock": True, "accept_rollback": True}},
    {"call": "open", "id": 1, "with": {"passphrase": 7, "unlock": True, "accept_rollback": True}},
    {"call": "warm", "id": 1, "with": {"more": 1}},
    {"call": "remove", "id": 1, "with": {"name": None}},
    {"call": "mint", "id": 1, "with": {"order": None}},
    {"call": "mint", "id": 1, "with": {"order": {"!": "Opened"}}},
    {"call": "mint", "id": 1, "with": {"order": {"!": "MintServed", "handle": wire.packed(IDENTITY)}}},
    {"call": "mint", "id": 1, "with": {"order": {"!": ["MintServed"], "handle": wire.packed(HANDLE)}}},
    {"call": "mint", "id": 1, "with": {"order": {"!": "MintServed", "handle": {**wire.packed(HANDLE), "x": 1}}}},
    {
        "call": "mint",
        "id": 1,
        "with": {"order": {"!": "MintServed", "handle": {**wire.packed(HANDLE), "issued": "now"}}},
    },
    {
        "call": "mint",
        "id": 1,
        "with": {"order": {"!": "MintServed", "handle": {**wire.packed(HANDLE), "issued": "2026-11-22T12:00:00"}}},
    },
    {"call": "close", "id": 1, "with": {"head": {"!": "Head", "seq": 1.5, "digest": ""}, "lock": True}},
    {"call": "close", "id": 1, "with": {"head": {"!": "Head", "seq": True, "digest": ""}, "lock": True}},
    {"call": "note", "id": 1, "with": {"note": {**wire.packed(Note("limit")), "seconds": False}}},
    {"call": "note", "id": 1, "with": {"note": {**wire.packed(Note("limit")), "kind": "anything"}}},
    {"call": "note", "id": 1, "with": {"note": {**wire.packed(Note("limit")), "kind": ["limit"]}}},
    {
        "call": "mint",
        "id": 1,
        "with": {"order": {**wire.packed(MintRole("f", ENDPOINT, HOUR, ROLE)), "duration": [10**12, 0, 0]}},
    },
    {
        "call": "mint",
        "id": 1,
        "with": {"order": {**wire.packed(MintRole("f", ENDPOINT, HOUR, TAGGED)), "duration": [0, 0]}},
    },
]


@pytest.mark.parametrize("message", WRONG)
def test_what_no_seam_declares_is_refused(message: wire.Message) -> None:
    """The daemon's end may be broken into: a call that is not exactly one of the seams' is Malformed."""
    with pytest.raises(wire.Malformed):
        wire.called(sent(message))


@pytest.mark.parametrize(
    "message",
    [{"cancel": [1]}, {"cancel": {}}, {"cancel": "1"}, {"cancel": True}, {"cancel": None}, _altered("warm", {})],
)
async def test_neither_is_a_cancellation_of_no_number_or_a_number_twice(message: wire.Message) -> None:
    """The other frames that come down: nothing but Malformed is raised into the loop, which would go on after it."""
    served = Served(typing.cast("Whole", None), NoOutlook())
    served.take(_altered("warm", {}))
    served.take({"cancel": 6})
    with pytest.raises(wire.Malformed):
        served.take(message)


def test_an_error_whose_details_are_its_own_parameters_is_refused() -> None:
    """What comes up is a value of the declared classes, or Malformed."""
    with pytest.raises(wire.Malformed):
        wire.error_of({"kind": "Locked", "message": "m", "details": {"message": "x"}})


def test_a_refused_frame_is_not_quoted() -> None:
    """What was sent is in no text of the refusal."""
    with pytest.raises(wire.Malformed) as caught:
        wire.called({"call": "canary-call", "id": 1, "with": {}})
    assert "canary" not in repr(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(name=st.sampled_from(sorted(wire.CALLS)), data=st.data(), value=json_values)
def test_any_json_in_any_place_is_a_value_or_refused(name: str, data: st.DataObject, value: Any) -> None:
    """Whatever stands in the place of an argument: a call of the declared types comes of it, or Malformed."""
    message = wire.call(1, name, next(given for each, given in CALLS if each == name))
    keys = sorted(message["with"])
    if keys:
        message["with"][data.draw(st.sampled_from(keys))] = value
    try:
        _, _, found = wire.called(sent(message))
    except wire.Malformed:
        return
    assert set(found) == set(keys)


@given(st.binary(max_size=64))
def test_any_bytes_are_messages_or_refused(content: bytes) -> None:
    """Bytes that are no frames are Malformed, or wait for more; nothing else is raised."""
    try:
        list(wire.Frames().feed(content))
    except wire.Malformed:
        return


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 1000])
def test_frames_come_whole_however_they_are_cut(cut: int) -> None:
    """A stream has no edges: any split gives the same messages in order."""
    messages = [wire.call(number, name, given) for number, (name, given) in enumerate(CALLS)]
    stream = b"".join(map(wire.framed, messages))
    frames = wire.Frames()

    found = [each for at in range(0, len(stream), cut) for each in frames.feed(stream[at : at + cut])]

    assert found == messages


@pytest.mark.parametrize("content", [b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1x", b'\0\0\0\6"\xff\xfe\xff"\0'])
def test_what_is_no_frame_is_refused(content: bytes) -> None:
    """A length beyond all bounds, JSON that is no object, and no JSON at all."""
    with pytest.raises(wire.Malformed):
        list(wire.Frames().feed(content))


def test_no_value_without_a_declaration_is_sent() -> None:
    """What cannot be read at the other end is not sent: an object, bytes, a plain dict."""
    for value in (object(), b"bytes", {"a": 1}, {1, 2}):
        with pytest.raises(TypeError):
            wire.packed(value)


def test_the_setup_is_read_and_shows_no_password() -> None:
    """The first frame, with a proxy's password in it, arrives whole and has no repr of it."""
    assert wire.unpacked(wire.Setup, sent({"s": wire.packed(setup())})["s"]) == setup()
    assert "proxy-canary" not in repr(setup())


def test_every_declared_kind_is_known() -> None:
    """No annotation of the seams is one that the wire cannot read: found here, not at the first call."""
    for name, seam in wire.CALLS.items():
        for kind in typing.get_type_hints(getattr(seam, name)).values():
            with pytest.raises(wire.Malformed):
                wire.unpacked(kind, object())


def test_control_a_spent_code_keeps_its_wait() -> None:
    """Positive control of the error round trip: a detail that is lost would be seen."""
    packed = wire.packed_error(CodeSpent("wait; type it", retry_after_seconds=9))
    packed["details"] = {}
    assert wire.error_of(packed).details != {"retry_after_seconds": 9}
