"""Rules of model/plan.py, as the planner keeps them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import START
from vaultd.errors import BadProfile, BadRequest, Misconfigured, UnknownIdentity, UnknownProfile, VaultdError
from vaultd.model import limits
from vaultd.model.credentials import Identity
from vaultd.model.draft import Rules
from vaultd.model.near import Names
from vaultd.model.plan import Overrides, Plan
from vaultd.model.planner import make_plan
from vaultd.model.profiles import parse
from vaultd.model.text import shown

SERIAL = "arn:aws:iam::123456789012:mfa/franklin"
ROLE = "arn:aws:iam::234567890123:role/"
FRANKLIN = Identity(
    name="identity",
    account_id="123456789012",
    user_arn="arn:aws:iam::123456789012:user/team/franklin",
    mfa_serial=SERIAL,
    key_ending="WXYZ",
    created=START,
)
BARE = replace(FRANKLIN, mfa_serial=None)
TUTORIAL = f"""\
###### web-admin #####
[profile web-admin]
source_profile = identity
role_arn = {ROLE}WebAdmin
mfa_serial = {SERIAL}
"""
HOUR = timedelta(hours=1)


def plan(
    text: str,
    name: str = "p",
    *,
    rules: Rules | None = None,
    overrides: Overrides | None = None,
    identity: Identity = FRANKLIN,
) -> Plan:
    return make_plan(parse(text), rules or Rules(), {identity.name: identity}, name, overrides or Overrides())


def role(*lines: str, name: str = "p", arn: str = ROLE + "WebAdmin", source: str = "identity") -> str:
    return "\n".join((f"[profile {name}]", f"role_arn = {arn}", f"source_profile = {source}", *lines, ""))


def kinds(found: Plan) -> list[str]:
    return [step.kind for step in found.steps]


def ends_in_what_to_type(sentence: str) -> bool:
    """The last clause tells the reader what to write, type, remove or run."""
    last = re.split(r"[;:,] ", sentence)[-1] + " " + sentence.rsplit("; ", maxsplit=1)[-1]
    return re.search(r"\b(write|type|run|remove|use|ask|pass)\b", last) is not None and "\n" not in sentence


# ---- the path ----


def test_the_tutorials_profile() -> None:
    """One code, then AssumeRole without one; each value says where it came from."""
    found = plan(TUTORIAL, "web-admin")
    assert kinds(found) == ["mfa_session", "assume_role"]
    mfa, last = found.steps
    assert (mfa.identity, mfa.mfa_serial, mfa.duration, mfa.role) == ("identity", SERIAL, 12 * HOUR, None)
    assert mfa.needs_code
    assert not last.needs_code
    assert last.role is not None
    assert (last.role.role_arn, last.role.role_session_name) == (ROLE + "WebAdmin", "franklin")
    assert (last.role.tags, last.role.source_identity, last.mfa_serial) == ((), None, None)
    assert last.duration == HOUR
    assert (found.account_id, found.role_arn, found.mfa_serial) == ("234567890123", ROLE + "WebAdmin", SERIAL)
    assert (found.slug, found.identity, found.region, found.problems) == ("web-admin", "identity", None, ())
    told = {(line.field, line.value, line.source) for step in found.steps for line in step.sources}
    assert ("role_arn", ROLE + "WebAdmin", "config:4") in told
    assert ("mfa_serial", SERIAL, "config:5") in told
    assert ("identity", "identity", "config:3") in told
    assert ("region", "us-east-1", "default") in told
    assert ("duration", "3600s", "default") in told


def test_the_detected_device_serves_where_the_file_names_none() -> None:
    """M first even without mfa_serial in the profile; config.toml goes before the detection, the file before both."""
    assert kinds(plan(role())) == ["mfa_session", "assume_role"]
    assert plan(role()).mfa_serial == SERIAL
    listed = Rules(identity_serials={"identity": SERIAL + "2"})
    assert plan(role(), rules=listed).mfa_serial == SERIAL + "2"
    assert plan(role(f"mfa_serial = {SERIAL}3"), rules=listed).mfa_serial == SERIAL + "3"


def test_the_serial_is_searched_towards_the_identity() -> None:
    """A chain needs it once."""
    text = role(source="mid") + role(f"mfa_serial = {SERIAL}9", name="mid")
    assert plan(text, identity=BARE).mfa_serial == SERIAL + "9"


def test_one_code_serves_every_role_of_an_identity() -> None:
    """The MFA session's fingerprint knows no profile, no role and no role region."""
    text = (
        role() + role("region = ap-east-1", name="q", arn=ROLE + "Audit") + "[profile r]\nsource_profile = identity\n"
    )
    firsts = {plan(text, name).steps[0].fingerprint for name in "pqr"}
    assert len(firsts) == 1


def test_more_than_an_hour_goes_direct_with_the_code() -> None:
    """A chained call cannot give it (aws-facts §1.5 row 17)."""
    found = plan(role("duration_seconds = 7200"))
    assert kinds(found) == ["assume_role_with_code"]
    assert (found.last.duration, found.last.mfa_serial, found.last.needs_code) == (2 * HOUR, SERIAL, True)
    assert kinds(plan(role("duration_seconds = 3600"))) == ["mfa_session", "assume_role"]
    assert kinds(plan(role(), overrides=Overrides(duration=2 * HOUR))) == ["assume_role_with_code"]


def test_a_chain_is_capped_with_a_problem() -> None:
    """Each step has its parent's session; the surprise is said for the served role, not for its parents."""
    text = role("duration_seconds = 7200", name="leaf", source="p") + role("duration_seconds = 43200")
    found = plan(text, "leaf")
    assert kinds(found) == ["mfa_session", "assume_role", "assume_role"]
    assert [step.profile for step in found.steps] == ["leaf", "p", "leaf"]
    assert {step.duration for step in found.steps[1:]} == {HOUR}
    assert len(found.problems) == 1
    assert found.problems[0].startswith("7200 s (config:4) is cut to 3600 s")


def test_a_length_that_the_caller_asked_for_is_his_to_change() -> None:
    """No line of the file says 7200 s, so none is named: `--duration` is. Control: the file's own length."""
    text = role(name="leaf", source="p") + role()
    asked = plan(text, "leaf", overrides=Overrides(duration=2 * HOUR))
    assert asked.last.length_asked
    assert asked.problems[0].endswith("remove --duration.")
    assert plan(role(), overrides=Overrides(duration=2 * HOUR)).last.length_asked
    assert not plan(role("duration_seconds = 7200")).last.length_asked


def test_short_sessions_are_said() -> None:
    """SDKs want 15 minutes left, so below half an hour they ask all the time (aws-facts §1.3 (5), scenario C6)."""
    found = plan(role("duration_seconds = 900"))
    assert found.last.duration == timedelta(seconds=900)
    assert found.problems == (
        "900 s (config:4) is so short that SDKs ask again all the time; write duration_seconds = 3600.",
    )
    assert plan(role("duration_seconds = 1800")).problems == ()


def test_without_a_device() -> None:
    """Roles straight from the key (no GetSessionToken without MFA before them); without a role, GetSessionToken."""
    assert kinds(plan(role("duration_seconds = 7200"), identity=BARE)) == ["assume_role"]
    assert plan(role("duration_seconds = 7200"), identity=BARE).last.duration == 2 * HOUR
    assert kinds(plan(role(name="l", source="p") + role(), "l", identity=BARE)) == ["assume_role", "assume_role"]
    alone = plan("[profile p]\nsource_profile = identity\n", identity=BARE)
    assert kinds(alone) == ["session_token"]
    assert not alone.last.needs_code
    assert "AWS refuses IAM calls" in alone.problems[0]


def test_a_profile_without_role_serves_the_mfa_session() -> None:
    """Of its own name's identity or the chain's end; its account is the identity's."""
    own = replace(FRANKLIN, name="p")
    for text, identity in (("[profile p]\n", own), ("[profile p]\nsource_profile = identity\n", FRANKLIN)):
        found = plan(text, identity=identity)
        assert kinds(found) == ["mfa_session"]
        assert (found.account_id, found.role_arn) == ("123456789012", None)
    through = plan("[profile l]\nsource_profile = p\n" + role(), "l")
    assert (kinds(through), through.role_arn) == (["mfa_session"], None)
    assert "has no role_arn" in through.problems[0]
    assert "vault-client use p" in through.problems[0]


def test_mfa_max_age_is_the_first_roles() -> None:
    """A role session carries no MFA age, so a limit means the role that the MFA session assumes."""
    rules = Rules(mfa_max_age={"p": HOUR, "leaf": 2 * HOUR})
    found = plan(role(name="leaf", source="p") + role(), "leaf", rules=rules)
    assert [step.mfa_max_age for step in found.steps] == [None, HOUR, None]


# ---- regions ----


def test_regions() -> None:
    """STS in the identity's region, AWS_REGION by the profile's; config.toml's word on the identity goes first."""
    text = role("region = eu-west-3") + "[profile identity]\nregion = eu-west-1\n"
    found = plan(text)
    assert (found.region, found.last.endpoint.region) == ("eu-west-3", "eu-west-1")
    listed = Rules(identity_regions={"identity": "eu-west-2"}, region_fallback="us-east-2")
    assert plan(text, rules=listed).last.endpoint.region == "eu-west-2"
    assert plan(text, rules=listed).last.endpoint.fallback_region == "us-east-2"
    assert plan(role(), rules=listed).region == "eu-west-2"
    assert plan(role(), rules=Rules(region_fallback="us-east-2")).region == "us-east-2"
    assert plan(role(), overrides=Overrides(region="sa-east-1")).region == "sa-east-1"
    assert plan(role()).region is None


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1"), ("aws-eusc", "eusc-de-east-1")],
)
def test_the_partition_decides_the_default_region(partition: str, region: str) -> None:
    """Keys do not cross partitions: a role or a region of another one is a problem."""
    identity = replace(FRANKLIN, user_arn=FRANKLIN.user_arn.replace("aws", partition, 1), mfa_serial=None)
    found = plan(role(arn=ROLE.replace("aws", partition, 1) + "x"), identity=identity)
    assert found.last.endpoint.region == region
    assert found.account_id == "234567890123"
    assert found.problems == ()
    foreign = plan(role(), identity=identity, rules=Rules(identity_regions={"identity": "us-east-1"}))
    assert len(foreign.problems) == 2


# ---- session names (aws-facts §5, scenarios F1 F2) ----


@pytest.mark.parametrize(
    ("template", "user", "expected"),
    [
        ("{iam_user}", "franklin", "franklin"),
        ("{iam_user}", "a.b+c=d,e@f-g_h", "a.b+c=d,e@f-g_h"),
        ("{iam_user}", "x" * 80, "x" * 64),
        ("Müller x", "franklin", "M-ller-x"),
        ("{iam_user}", "x", "x-"),
        ("{profile}/{identity}", "franklin", "p-identity"),
    ],
)
def test_role_session_names(template: str, user: str, expected: str) -> None:
    """2 to 64 of the charset, ASCII only, stable; the user's path is not part of the name."""
    identity = replace(FRANKLIN, user_arn=f"arn:aws:iam::123456789012:user/team/{user}")
    found = plan(role(), rules=Rules(role_session_name=template), identity=identity).last.role
    assert found is not None
    assert found.role_session_name == expected


def test_the_profiles_own_session_name_wins() -> None:
    """Sent as it stands where AWS takes it, else made to fit and said."""
    kept, mended = plan(role("role_session_name = ci@host")), plan(role("role_session_name = Müller x"))
    assert kept.last.role is not None
    assert kept.last.role.role_session_name == "ci@host"
    assert kept.problems == ()
    assert mended.last.role is not None
    assert mended.last.role.role_session_name == "M-ller-x"
    assert "is sent as M-ller-x" in mended.problems[0]


@given(st.text(max_size=100))
def test_any_text_becomes_a_session_name(text: str) -> None:
    """The charset of aws-facts §1.4, whatever the template gives; and a good name is left alone."""
    name = limits.session_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", name)
    assert limits.session_name(name) == name


# ---- limits, all local (aws-facts §1.4) ----

LONG_TAGS = ",".join(f"k{n}=v" for n in range(51))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "duration_seconds = 899",
            "config:4 [profile p] duration_seconds=899: write a number of seconds from 900 to 43200",
        ),
        ("duration_seconds = 43201", "write a number of seconds from 900 to 43200"),
        ("duration_seconds = 1h", "write a number of seconds from 900 to 43200"),
        ("duration_seconds = ٣٦٠٠", "write a number of seconds from 900 to 43200"),
        ("external_id = x", "write 2 to 1224 letters, digits or _+=,.@:/-"),
        (f"external_id = {'x' * 1225}", "write 2 to 1224"),
        ("external_id = é" * 2, "write 2 to 1224"),
        ("source_identity = aws:x", "write 2 to 64 letters, digits or _+=,.@-"),
        ("source_identity = x y", "write 2 to 64"),
        (f"source_identity = {'x' * 65}", "write 2 to 64"),
        (f"session_tags = {LONG_TAGS}", "more than 50 tags: write at most 50"),
        (f"session_tags = {'k' * 129}=v", "a key has 129 characters: write 1 to 128"),
        (f"session_tags = k={'v' * 257}", "a value has 257 characters: write at most 256"),
        ("session_tags = k=v,K=w", "the key k stands there twice: write each key once"),
        ("session_tags = k", "'k' has no value; write key=value,key2=value2"),
        ("session_tags = aws:k=v", "write another key"),
        ("session_tags = k=a*b", "a value has a forbidden character"),
        (f"transitive_session_tags = {'k' * 129}", "a key has 129 characters: write 1 to 128"),
        ("mfa_serial = <serial>", "this is no MFA device; write the device's ARN"),
        ("region = evil.example/", "this is no region; write one such as eu-west-1"),
        ("use_fips_endpoint = ja", "write true or false"),
        ("endpoint_url = https://evil.example", "keys are not sent there"),
        ("services = nowhere", "there is no such section"),
    ],
)
def test_what_aws_would_refuse_is_refused_here(line: str, message: str) -> None:
    """file:line, section, key and value; nothing is sent."""
    with pytest.raises(BadProfile) as caught:
        plan(role(line))
    assert caught.value.message.startswith("config:4 ")
    assert message in caught.value.message
    assert ends_in_what_to_type(caught.value.message)


def test_values_at_their_limits_are_taken() -> None:
    """Positive control of the table above."""
    tags = ",".join(f"k{n}=v" for n in range(50))
    found = plan(
        role(
            "duration_seconds = 900",
            f"external_id = {'x' * 1224}",
            f"source_identity = {'x' * 64}",
            f"session_tags = {tags}",
            "transitive_session_tags = k1, k2",
        )
    ).last
    assert found.role is not None
    assert len(found.role.tags) == 50
    assert found.role.tags[0] == ("k0", "v")
    assert found.role.transitive_tag_keys == ("k1", "k2")
    assert found.role.external_id == "x" * 1224
    assert found.role.source_identity == "x" * 64
    spaced = plan(role("session_tags = Cost Center = 12 34 , é=ü")).last.role
    assert spaced is not None
    assert spaced.tags == (("Cost Center", "12 34"), ("é", "ü"))


@pytest.mark.parametrize("arn", ["x", "arn:aws:iam::<prod-account-id>:role/Web", "arn:aws:iam::123456789012:user/x"])
def test_a_role_arn_is_one(arn: str) -> None:
    """The tutorial's placeholder is named before AWS sees it."""
    with pytest.raises(BadProfile, match=r"config:2 \[profile p\] role_arn=.*write the role's ARN"):
        plan(role(arn=arn))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(duration=timedelta(seconds=899)), "duration_seconds: "),
        (Overrides(duration=timedelta(seconds=43201)), "duration_seconds: "),
        (Overrides(region="x"), "region: "),
        (Overrides(policy="x" * 2049), "policy: 2049 characters"),
        (Overrides(policy_arns=("arn:aws:iam::aws:policy/ReadOnlyAccess",) * 11), "policy_arns: 11 ARNs"),
        (Overrides(policy_arns=("x",)), "policy_arns: 'x' is no policy's ARN"),
    ],
)
def test_bad_overrides_name_their_field(overrides: Overrides, message: str) -> None:
    """BadRequest: the caller's value, not the user's file."""
    with pytest.raises(BadRequest) as caught:
        plan(role(), overrides=overrides)
    assert caught.value.message.startswith(message)


def test_a_policy_is_never_dropped() -> None:
    """A profile without role cannot apply one: refused, since silence would serve more than was asked."""
    with pytest.raises(BadRequest, match="takes no policy"):
        plan("[profile p]\nsource_profile = identity\n", overrides=Overrides(policy="{}"))
    shaped = plan(role(name="l", source="p") + role(), "l", overrides=Overrides(policy="{}"))
    assert [step.role.policy if step.role else None for step in shaped.steps] == [None, None, "{}"]


# ---- what cannot be served ----


@pytest.mark.parametrize(
    "lines",
    [
        ["sso_session = corp"],
        ["sso_start_url = https://x", "sso_account_id = 1"],
        ["credential_process = /bin/x"],
        ["login_session = x"],
        [f"role_arn = {ROLE}x", "credential_source = Ec2InstanceMetadata"],
        [f"role_arn = {ROLE}x", "web_identity_token_file = /x", "source_profile = identity"],
    ],
)
def test_sources_of_later_issues_are_refused_in_words(lines: list[str]) -> None:
    """Never served as something else, not even where a key of that name is stored."""
    with pytest.raises(
        BadProfile, match=r"config:\d+ \[profile p\] .*does not serve .* yet; .*vault-client add p"
    ) as caught:
        plan("\n".join(["[profile p]", *lines]), identity=replace(FRANKLIN, name="p"))
    assert ends_in_what_to_type(caught.value.message)


@pytest.mark.parametrize(
    ("line", "more", "said"),
    [
        ("vault-client credential-process web-admin", "", "served"),
        ("'/usr/local/bin/vault-client' credential-process -- web-admin", "", "served"),
        ("vault-client credential-process web-admn", "", "there is no such profile; write the name of one there."),
        ("vault-client credential-process keys", "", "that profile has such a line itself; write the name of the one"),
        ("vault-client credential-process web-admin", role(source="keys"), "write `source_profile = web-admin`."),
        ("vault-client credential-process 'web-admin", "", "does not serve it yet"),
        ("vault-client export web-admin", "", "does not serve it yet"),
        ("aws-vault credential-process web-admin", "", "does not serve it yet"),
    ],
)
def test_our_own_client_as_credential_process(line: str, more: str, said: str) -> None:
    """docs/export.md's own line is no mistake: it is said which profile serves it, and nothing is to be removed. It
    has no plan of its own: a name beside `[profiles.web-admin] protected` would be a way around that.
    """
    with pytest.raises(BadProfile) as caught:
        plan(f"{TUTORIAL}[profile keys]\ncredential_process = {line}\n{more}", "p" if more else "keys")
    if said == "served":
        said = ": vaultd serves it through web-admin, so type `vault-client use web-admin`."
    assert said in caught.value.message
    assert ("add keys" in caught.value.message) is ("does not" in said)
    assert len(caught.value.message) <= 200
    assert ends_in_what_to_type(caught.value.message)


@pytest.mark.parametrize("target", ["n" * 128, "team prod " + "x" * 60])
def test_our_own_client_for_a_long_name(target: str) -> None:
    """What to type is never cut."""
    with pytest.raises(BadProfile) as caught:
        plan(f'{role(name=repr(target))}[profile k]\ncredential_process = vault-client credential-process "{target}"\n',
             "k")  # fmt: skip
    assert len(caught.value.message) <= 200
    assert re.search(r"so type `vault-client use (PROFILE|'team prod x+')`\.$", caught.value.message)


@pytest.mark.parametrize("more", ["", f"[profile {'n' * 128}]\nregion = eu-west-1\n"])
def test_our_own_client_of_a_long_name_in_a_chain(more: str) -> None:
    """With and without a profile of that name: the whole sentence fits on the wire."""
    line = f"credential_process = vault-client credential-process {'n' * 128}"
    with pytest.raises(BadProfile) as caught:
        plan(f"{role(source='k' * 128)}{more}[profile {'k' * 128}]\n{line}\n")
    assert len(caught.value.message) <= 200
    assert re.search(r"write the (name of one there|one of that line as source_profile)\.$", caught.value.message)


def test_an_identity_that_was_never_added() -> None:
    """Exit 1, ending in `vault-client add IDENTITY`, with the place that names it and the nearest names."""
    with pytest.raises(UnknownIdentity) as caught:
        plan(role(source="idenity"))
    assert caught.value.message == (
        "config:3 [profile p] source_profile=idenity: no section and no stored key has that name "
        "(Did you mean identity?): run `vault-client add idenity`"
    )
    with pytest.raises(UnknownIdentity, match=r"identity q: run `vault-client add q`$"):
        plan("[profile q]\nregion = eu-west-1\n", "q")


@pytest.mark.parametrize("name", ["p", "n" * 80, "n" * 128])
@pytest.mark.parametrize("value", ["/bin/x", "/usr/local/bin/keys --of " + "v" * 400])
def test_a_long_value_is_cut_and_the_remedy_is_not(value: str, name: str) -> None:
    """The wire has 200 characters for an error: the quotations give way, what to type stays whole."""
    with pytest.raises(BadProfile) as caught:
        plan(f"[profile {name}]\ncredential_process = {value}\n", name)
    said = caught.value.message

    assert shown(said) == said, "fits as it is"
    assert said.startswith(f"config:2 [profile {name[:11]}")
    assert f"credential_process={value[:6]}" in said
    assert said.endswith(f"or remove the line and run `vault-client add {name if name == 'p' else 'IDENTITY'}`.")


def test_near_names_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 profiles of an identity that was never added: one comparison with all names, not one for each; another
    identity that is stored meanwhile makes one more, as its name may be the one that was meant.
    """
    text = "".join(role(name=f"p{number}", source="idenity") for number in range(50))
    profiles, looked = parse(text), list[str]()
    close = Names.close

    def counted(self: Names, wanted: str, *, also: Iterable[str] = (), most: int = 3) -> list[str]:
        looked.append(wanted)
        return close(self, wanted, also=also, most=most)

    monkeypatch.setattr(Names, "close", counted)

    def ask(stored: dict[str, Identity]) -> set[str]:
        said = set()
        for name in profiles.names():
            with pytest.raises(UnknownIdentity) as caught:
                make_plan(profiles, Rules(), stored, name, Overrides())
            said.add(caught.value.message.partition("name")[2])
        return said

    assert ask({}) == {": run `vault-client add idenity`"}
    assert looked == ["idenity"]
    assert ask({"identity": FRANKLIN}) == {" (Did you mean identity?): run `vault-client add idenity`"}
    assert looked == ["idenity"] * 2


def test_a_file_of_wrong_names_is_not_compared_name_by_name() -> None:
    """10,000 sources that are nobody's took 2 ms each: the first 64 are compared, the others are told without. A person
    who mistypes is still told.
    """
    profiles = parse("".join(role(name=f"p{number:03}", source=f"idenity{number}") for number in range(100)))
    said = []
    for name in profiles.names():
        with pytest.raises(UnknownIdentity) as caught:
            make_plan(profiles, Rules(), {"identity": FRANKLIN}, name, Overrides())
        said.append("Did you mean identity?" in caught.value.message)
        assert "vault-client add idenity" in caught.value.message
    assert said == [True] * 64 + [False] * 36
    with pytest.raises(UnknownProfile, match="Did you mean p09"):
        profiles.chain("p09x")


@pytest.mark.parametrize(
    "serial", ["arn:aws:iam::123456789012:u2f/user/franklin/key", "arn:aws:iam::123456789012:user/franklin"]
)
def test_devices_that_show_no_code(serial: str) -> None:
    """FIDO keys and a user's ARN as serial are said before AWS refuses them (aws-facts §1.5 row 3)."""
    assert "shows no codes" in plan(role(f"mfa_serial = {serial}")).problems[0]
    assert plan(role("mfa_serial = GAHT12345678")).problems == ()


def test_a_serial_of_another_account_is_said() -> None:
    """The production account's id in mfa_serial is the tutorial's own mistake (aws-facts §0)."""
    found = plan(role("mfa_serial = arn:aws:iam::234567890123:mfa/franklin"))
    assert "is of account 234567890123" in found.problems[0]


def test_bad_settings_name_config_toml() -> None:
    """A serial of config.toml that is none is that file's fault."""
    with pytest.raises(Misconfigured, match=r"config.toml \[identities.identity\] mfa_serial=x: "):
        plan(role(), rules=Rules(identity_serials={"identity": "x"}))


# ---- properties ----


@dataclass(frozen=True)
class World:
    """A generated config: a chain of `depth` roles with the lines of each, a device or none, overrides."""

    lines: tuple[tuple[str, ...], ...]
    device: bool
    duration: int | None
    region: str | None
    policy: str | None

    def plan(self) -> Plan:
        names = [f"p{n}" for n in range(len(self.lines))] + ["identity"]
        text = "".join(
            "\n".join((f"[profile {name}]", f"source_profile = {source}", *lines, ""))
            for name, source, lines in zip(names, names[1:], self.lines, strict=False)
        )
        overrides = Overrides(
            duration=timedelta(seconds=self.duration) if self.duration else None, region=self.region, policy=self.policy
        )
        return plan(text, "p0", identity=FRANKLIN if self.device else BARE, overrides=overrides)


OPTIONAL: Mapping[str, list[str]] = {
    "role_arn": [ROLE + "A", ROLE + "B"],
    "duration_seconds": ["900", "3600", "7200", "43200"],
    "external_id": ["abc", "def"],
    "session_tags": ["a=b", "a=c"],
    "transitive_session_tags": ["a"],
    "source_identity": ["franklin", "other"],
    "role_session_name": ["ci", "Müller x"],
    "mfa_serial": [SERIAL, "GAHT12345678", "arn:aws:iam::123456789012:u2f/x", "arn:aws:iam::999999999999:mfa/x"],
    "region": ["eu-west-1", "cn-north-1"],
    "mfa_process": ["/bin/x"],
    "aws_access_key_id": ["AKIAX"],
    "sts_regional_endpoints": ["legacy"],
    "endpoint_url": ["http://127.0.0.1:1", "http://127.0.0.1:2"],
    "use_fips_endpoint": ["true"],
    "ca_bundle": ["/x.pem"],
}
LINES = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in OPTIONAL.items()}).map(
    lambda found: tuple(f"{key} = {value}" for key, value in found.items())
)
WORLDS = st.builds(
    World,
    lines=st.lists(LINES, min_size=1, max_size=4).map(tuple),
    device=st.booleans(),
    duration=st.sampled_from([None, None, 900, 3600, 3601, 43200]),
    region=st.sampled_from([None, "eu-west-1"]),
    policy=st.sampled_from([None, None, "{}"]),
)


def planned(world: World) -> Plan | None:
    try:
        return world.plan()
    except VaultdError as exc:
        assert ends_in_what_to_type(exc.message), exc.message  # noqa: PT017 - every refusal of the corpus is read
        return None


@settings(max_examples=300, deadline=None)
@given(WORLDS)
def test_what_no_plan_ever_does(world: World) -> None:
    """No GetSessionToken without MFA before a role, no chained call above an hour, one code at most, first."""
    found = planned(world)
    if found is None:
        return
    made = kinds(found)
    assert "session_token" not in made[:-1]
    assert made == ["session_token"] or "session_token" not in made
    assert all(step.duration <= HOUR for step in found.steps[1:])
    assert [step.needs_code for step in found.steps[1:]] == [False] * (len(made) - 1)
    assert found.steps[0].needs_code == (found.mfa_serial is not None)
    assert ("assume_role_with_code" in made) <= (len(made) == 1)
    assert len({step.fingerprint for step in found.steps}) == len(made)
    assert all(re.fullmatch("[0-9a-f]{64}", step.fingerprint) for step in found.steps)
    for problem in found.problems:
        assert ends_in_what_to_type(problem), problem


SHAPES_NOTHING = ("mfa_process", "aws_access_key_id", "sts_regional_endpoints", "use_fips_endpoint", "ca_bundle")


def shape(found: Plan) -> list[object]:
    """What AWS would be told, step by step, written down without the planner's own hash."""
    return [
        (
            step.kind,
            step.identity,
            step.mfa_serial,
            step.duration,
            step.endpoint.region,
            step.endpoint.sts_url,
            step.role,
        )
        for step in found.steps
    ]


@settings(max_examples=300, deadline=None)
@given(WORLDS, WORLDS)
def test_a_fingerprint_changes_exactly_with_what_shapes_the_session(one: World, other: World) -> None:
    """Equal calls up to a step, equal fingerprint; any difference in it or its parents, another."""
    first, second = planned(one), planned(other)
    if first is None or second is None:
        return
    for mine, its, own, foreign in zip(first.steps, second.steps, shape(first), shape(second), strict=False):
        same = own == foreign
        assert (mine.fingerprint == its.fingerprint) == same
        if not same:
            break


@settings(max_examples=200, deadline=None)
@given(WORLDS, st.integers(0, 3), st.sampled_from(sorted(OPTIONAL)))
def test_one_changed_line(world: World, position: int, key: str) -> None:
    """Drop one key of one profile: the last fingerprint stays exactly where the calls stay."""
    lines = list(world.lines)
    position %= len(lines)
    lines[position] = tuple(line for line in lines[position] if not line.startswith(f"{key} ="))
    before, after = planned(world), planned(replace(world, lines=tuple(lines)))
    if before is None or after is None:
        return
    assert (before.last.fingerprint == after.last.fingerprint) == (shape(before) == shape(after))
    if key in SHAPES_NOTHING:
        assert before.last.fingerprint == after.last.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        replace(FRANKLIN, user_arn="arn:aws:iam::123456789012:user/other"),
        replace(FRANKLIN, user_arn="arn:aws:iam::123456789012:user/there/franklin"),  # the same role session name
        replace(FRANKLIN, mfa_serial=SERIAL + "2"),
    ],
)
def test_the_identity_shapes_every_step(changed: Identity) -> None:
    """The user's ARN and the serial do; the access key does not, because rotation would orphan every session."""
    before = plan(role())
    assert plan(role(), identity=changed).last.fingerprint != before.last.fingerprint
    rotated = replace(FRANKLIN, key_ending="NEWK", created=START + HOUR)
    assert plan(role(), identity=rotated).last.fingerprint == before.last.fingerprint


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """It names sealed sessions on disk: a change here costs every user a code, and needs a reason."""
    assert plan(TUTORIAL, "web-admin").last.fingerprint == FINGERPRINT


FINGERPRINT = "d1c440dcc5528738511f62995c6d103b2d382b80661d5d2b70e50bac4dea4d9b"
