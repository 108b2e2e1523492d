"""Scenarios F: what goes along with AssumeRole, and what comes back (scenarios §4.4)."""

from __future__ import annotations

import json
import re

import pytest

from tests.scenarios.bench import PROFILES, Scene, refused, section
from tests.scenarios.conftest import Stage
from tests.strict_sts import SERIAL
from vaultd.errors import BadProfile, RoleDenied
from vaultd.model.dialects import ecs_reply
from vaultd.model.secret import Secret

NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")


async def test_f1_the_session_is_named_like_the_user(scene: Scene) -> None:
    """F1: with the default configuration NameLock opens, and CloudTrail's user agent names vaultd."""
    session = await scene.warm("name-lock")

    (made,) = scene.calls("AssumeRole")
    assert made.session_name == "franklin"
    assert session.role_session_name == "franklin"
    assert all("app/vaultd" in call.user_agent for call in scene.calls())


async def test_f1_another_name_is_refused_there(stage: Stage) -> None:
    """Positive control of F1: NameLock does look at the name."""
    scene = await stage.open(settings='[sessions]\nrole_session_name = "{profile}"\n')
    await refused(scene.ask("name-lock"))
    await scene.answer()
    assert isinstance(await refused(scene.ask("name-lock")), RoleDenied)


LONG = "a-name-of-eighty-characters-" + "x" * 52
NAMED = {"eighty": LONG, "spaced": "Müller x", "short": "x"}


async def test_f2_every_name_fits(stage: Stage) -> None:
    """F2: a user under a path, names of 80 characters, umlauts and blanks: 2 to 64 of the charset, stable."""
    dora = "arn:aws:iam::123456789012:user/team/dora"
    serial = "arn:aws:iam::123456789012:mfa/dora"
    named = {"plainly": {}, **{name: {"role_session_name": text} for name, text in NAMED.items()}}
    profiles = "".join(
        section(name, "WebAdmin", source="dora", mfa_serial=serial, **more) for name, more in named.items()
    )
    scene = await stage.open(profiles=profiles, users=())
    scene.strict.mutate(
        user={"arn": dora, "groups": ["Everyone", "WebAdmin"]},
        key={"user": "dora", "id": "AKIASTRICTDORASKEY01", "secret": "dora/secret"},
        device={"serial": serial, "user": dora},
    )
    assert (await scene.add("dora")).user_arn == dora
    await refused(scene.ask("plainly"))
    await scene.answer(await scene.code(serial))
    first = {name: (await scene.ask(name)).role_session_name for name in ("plainly", *NAMED)}
    before = {name: scene.plan(name).last.fingerprint for name in first}
    await scene.restart()

    assert len(LONG) == 80
    assert first["plainly"] == "dora"
    assert first["spaced"] == "M-ller-x"
    assert all(NAME.fullmatch(name or "") for name in first.values()), first
    assert {name: scene.plan(name).last.fingerprint for name in first} == before
    assert {call.session_name for call in scene.calls("AssumeRole")} == set(first.values())


async def test_f3_source_identity_unset_is_not_sent(scene: Scene) -> None:
    """F3: nor are tags: the tutorial's policies allow neither (aws-facts §0)."""
    await scene.warm("web-admin")
    (made,) = scene.calls("AssumeRole")

    sent = set(made.params) - {"Action", "Version"}
    assert sent == {"RoleArn", "RoleSessionName", "DurationSeconds"}


async def test_f3_source_identity_without_permission_is_named(stage: Stage) -> None:
    """F3: the refusal names sts:SetSourceIdentity."""
    own = section("sourced", "WebAdmin", mfa_serial=SERIAL, source_identity="franklin")
    scene = await stage.open(profiles=own)
    await refused(scene.ask("sourced"))
    await scene.answer()
    with pytest.raises(RoleDenied, match="sts:SetSourceIdentity"):
        await scene.ask("sourced")

    assert scene.calls("AssumeRole")[0].params["SourceIdentity"] == "franklin"
    assert scene.prompts() == 1


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (",".join(f"tag{number}=x" for number in range(51)), "more than 50 tags"),
        ("k" * 129 + "=x", "a key has 129 characters"),
    ],
)
async def test_f4_tags_beyond_the_limits_are_refused_here(stage: Stage, tags: str, said: str) -> None:
    """F4: a local error with file and line; no call, no question."""
    scene = await stage.open(profiles=section("tagged", "WebAdmin", mfa_serial=SERIAL, session_tags=tags))
    with pytest.raises(BadProfile, match=said) as bad:
        await scene.ask("tagged")

    assert "aws-config:5 [profile tagged]" in bad.value.message
    assert scene.calls() == []
    assert scene.prompts() == 0


async def test_f4_a_wrong_external_id_is_surfaced(stage: Stage) -> None:
    """F4: AWS's refusal is told, once, from memory the second time; with the right one the role opens."""
    wrong = section("wrong-ext", "Ext", mfa_serial=SERIAL, external_id="not-this")
    scene = await stage.open(profiles=PROFILES + wrong)
    await scene.warm("ext")
    for _ in range(2):
        with pytest.raises(RoleDenied, match="sts:AssumeRole"):
            await scene.ask("wrong-ext")

    assert [call.params["ExternalId"] for call in scene.calls("AssumeRole")] == ["vaultd-scenario", "not-this"]
    assert scene.prompts() == 1


@pytest.mark.parametrize("phrase", [None, "correct horse"], ids=["keyring", "file"])
async def test_f6_a_token_of_six_kilobytes(stage: Stage, phrase: str | None) -> None:
    """F6: it goes through store and reply whole, and a restart serves the same without a call or a code."""
    passphrase = None if phrase is None else Secret(phrase)
    scene = await stage.open(knobs={"session_token_bytes": 6 * 1024}, passphrase=passphrase)
    session = await scene.warm("web-admin")
    assert len(session.session_token.reveal()) >= 6 * 1024
    await scene.restart()
    scene.mark()
    again = await scene.get(scene.use("web-admin"))
    reply = ecs_reply(again)
    body = json.loads(reply.partition(b"\r\n\r\n")[2])

    assert body["Token"] == session.session_token.reveal()
    assert body["SecretAccessKey"] == session.secret_access_key.reveal()
    assert len(reply) < 9_000
    assert (await scene.ask("audit")).account_id == "345678901234"  # the MFA session's token came back as well
    assert scene.counts() == {"AssumeRole": 1}
    assert scene.prompts() == 1
