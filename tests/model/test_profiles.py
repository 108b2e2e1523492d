"""Rules of model/profiles.py; the oracle for the parse is botocore's own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import botocore.configloader
import botocore.exceptions
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from vaultd.errors import BadProfile, UnknownProfile
from vaultd.model.profiles import STATIC_KEYS, Profiles, Section, Value, by_client, parse

# ---- a corpus of config files: mostly well-formed, with every oddity that configparser or shlex knows ----

WORDS = st.sampled_from(["a", "b", "team", "prod", "web-admin", "default", "x.y", "é", "identity", "a/b"])
NAMES = st.one_of(
    WORDS,
    st.tuples(WORDS, WORDS).map(lambda two: f'"{two[0]} {two[1]}"'),
    WORDS.map(lambda word: f"'{word}'"),
    st.tuples(WORDS, WORDS).map(" ".join),  # three words: overlooked
    st.sampled_from(['"open', "", "a\\ b", '""', "a]b"]),
)
HEADERS = st.one_of(
    NAMES.map(lambda name: f"profile {name}"),
    st.sampled_from(
        ["default", "DEFAULT", "profile", "profile default", "plugins", "preview", "profilex y", " default "]
    ),
    st.tuples(st.sampled_from(["sso-session", "services"]), NAMES).map(" ".join),
)
KEYS = st.sampled_from(
    ["region", "Role_ARN", "source_profile", "mfa_serial", "include_profile", "s3", "sts", "duration_seconds", "k e y"]
)
TEXTS = st.one_of(
    st.sampled_from(["", "us-east-1", "a = b", "# not a comment", "x ; y", '"quoted"', "%(x)s", "$HOME", "a: b", "é"]),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8),
)
EQUALS = st.sampled_from([" = ", "=", ":", " : ", " =", "  =  "])
PAIRS = st.tuples(KEYS, EQUALS, TEXTS).map("".join)
ODD_LINES = st.sampled_from(["no equals sign", "[", "[]", "=x", "\tkey: value", "  no equals sign"])
INSIDE = st.one_of(
    st.tuples(st.sampled_from(["  ", "\t", "    "]), KEYS, st.sampled_from(["=", " = "]), TEXTS).map("".join),
    st.sampled_from(["", "   ", "  # comment", "# comment", "  ; x = 1"]),
)
BESIDE = st.sampled_from(["", "# comment", "; comment", "  # indented", "###### web-admin #####"])


def _first_word(line: str) -> str:
    """Most files of the corpus have no key and no section twice, or botocore would refuse nearly all of them."""
    return line.partition("=")[0].partition(":")[0].strip().lower() or line


def _section_strategy(*, odd: bool) -> st.SearchStrategy[str]:
    inside = st.lists(INSIDE | ODD_LINES if odd else INSIDE, max_size=3).map("\n".join)
    nested = st.tuples(KEYS.map(lambda key: f"{key} ="), inside).map("\n".join)
    lines = st.one_of(PAIRS, PAIRS, nested, BESIDE, *([ODD_LINES] if odd else []))
    return st.tuples(
        HEADERS.map(lambda header: f"[{header}]"),
        st.sampled_from(["", "  # trailing", " x"]),
        st.lists(lines, max_size=5, unique_by=None if odd else _first_word).map(
            lambda found: "".join("\n" + line for line in found)
        ),
    ).map("".join)


def _file_strategy(*, odd: bool) -> st.SearchStrategy[str]:
    return st.tuples(
        st.sampled_from(["", "\ufeff", "stray = 1\n"] if odd else ["", "# first\n", "\n\n"]),
        st.lists(
            _section_strategy(odd=odd),
            max_size=5,
            unique_by=None if odd else lambda section: section.partition("]")[0],
        ),
        st.sampled_from(["\n", "\r\n", "\n\n"]),
    ).map(lambda parts: parts[0] + parts[2].join(parts[1]))


FILES = st.one_of(_file_strategy(odd=False), _file_strategy(odd=False), _file_strategy(odd=True))


def plain(values: dict[str, Value] | Any) -> dict[str, Any]:
    return {
        key: value.text if value.nested is None else {name: each.text for name, each in value.nested.items()}
        for key, value in values.items()
    }


def as_botocore(profiles: Profiles) -> dict[str, Any]:
    def group(sections: Any) -> dict[str, Any]:
        found: dict[str, Section] = dict(sections)
        return {name: plain(section.values) for name, section in found.items()}

    return {
        **group(profiles.others),
        "profiles": group(profiles.profiles),
        "sso_sessions": group(profiles.sso_sessions),
        "services": group(profiles.services),
    }


def by_botocore(text: str, path: Path) -> dict[str, Any] | None:
    path.write_bytes(text.encode())
    try:
        return dict(botocore.configloader.load_config(str(path)))
    except botocore.exceptions.ConfigParseError:
        return None


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aws") / "config"


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(FILES)
def test_parse_equals_botocores(config_file: Path, text: str) -> None:
    """Same sections, names, keys and values; and a file that the CLI refuses is refused, naming a line."""
    theirs = by_botocore(text, config_file)
    event("refused" if theirs is None else "read")
    if theirs is None:
        with pytest.raises(BadProfile, match=r"^config:\d+"):
            parse(text)
    else:
        assert as_botocore(parse(text)) == theirs


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(FILES)
def test_every_value_stands_on_its_line(text: str) -> None:
    """The line of a value holds its key, a nested one its own, a section's its header."""
    try:
        profiles = parse(text)
    except BadProfile:
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    sections = (*profiles.profiles.values(), *profiles.services.values(), *profiles.others.values())
    for section in sections:
        assert lines[section.line - 1].strip().startswith(f"[{section.header}]")
        for key, value in section.values.items():
            assert lines[value.line - 1].strip().lower().startswith(key)
            for name, inner in (value.nested or {}).items():
                pieces = lines[inner.line - 1].splitlines()  # as the CLI: at a record separator, too
                assert any(piece.strip().startswith(name) for piece in pieces)
                assert inner.line > value.line


def test_the_comparison_can_fail(config_file: Path) -> None:
    """Positive control: a reading without shell quoting would not be botocore's."""
    text = '[profile "team prod"]\nregion = x\n'
    theirs = by_botocore(text, config_file)
    assert theirs is not None
    assert theirs["profiles"] == {"team prod": {"region": "x"}}
    assert as_botocore(parse(text.replace('"', ""))) != theirs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "config:1: this line comes before any section; write `[default]` or `[profile NAME]` above."),
        ("[a]\nx = 1\n\n[a]\n", "config:4: the section [a] stands there twice; join the two."),
        ("[a]\nx = 1\nX = 2\n", "config:3 [a]: the key x stands there twice; remove one of the two."),
        ("[a]\nsecret-words\n", "config:2: this line is neither `[section]` nor `key = value`; write one of them."),
        ("[a]\ns3 =\n  secret\n", "config:3: this indented line has no `=`; write it as `key = value`."),
    ],
)
def test_a_refused_file_is_named_by_line(text: str, message: str) -> None:
    """file:line and what to write; never the line itself, which may hold a key."""
    with pytest.raises(BadProfile) as caught:
        parse(text)
    assert caught.value.message == message


def test_sections_that_the_cli_overlooks_are_said() -> None:
    """`[profile team prod]` without quotes is nothing to the CLI: said, with the right spelling."""
    profiles = parse('[profile team prod]\nregion = x\n[profile "ok ok"]\n')
    assert profiles.names() == ("ok ok",)
    assert len(profiles.problems) == 1
    assert profiles.problems[0].startswith("config:1 [profile team prod] is overlooked")
    assert profiles.problems[0].endswith(': write it with quotes, `[profile "team prod"]`.')
    with pytest.raises(UnknownProfile) as asked:
        profiles.chain("team prod")
    assert asked.value.message == profiles.problems[0], "told as `list` tells it, not as a name that is nowhere"


@pytest.mark.parametrize(
    ("header", "written"),
    [
        ("profile", "`[profile NAME]`"),
        ('profile "unclosed', "`[profile unclosed]`"),
        ("sso-session my corp", 'with quotes, `[sso-session "my corp"]`'),
    ],
)
def test_each_overlooked_header_has_its_spelling(header: str, written: str) -> None:
    """What the CLI sees no name in, and what to write for it."""
    profiles = parse(f"[{header}]\n")
    assert profiles.problems[0].endswith(f"{written}.")
    assert profiles.names() == ()


def test_static_keys_are_seen_but_not_kept() -> None:
    """A key in clear in the file does not enter our memory for longer than the parse."""
    profiles = parse("[default]\naws_access_key_id = AKIACANARY\naws_secret_access_key = canary\n")
    assert set(profiles.profiles["default"].values) < STATIC_KEYS
    assert "canary" not in repr(profiles).lower()


def test_the_tutorials_file() -> None:
    """`source_profile = identity` names no section: it is an identity."""
    chain = parse(
        "###### web-admin #####\n[profile web-admin]\nsource_profile = identity\n"
        "role_arn = arn:aws:iam::234567890123:role/WebAdmin\n"
    ).chain("web-admin")
    assert chain.identity == "identity"
    assert chain.named_by == Value("identity", 3)
    assert [each.name for each in chain.profiles] == ["web-admin"]


CHAINS = """\
[profile a]
source_profile = b
[profile b]
source_profile = c
[profile c]
source_profile = a
[profile self]
source_profile = self
[profile leaf]
source_profile = self
[profile alone]
region = eu-west-1
[profile included]
include_profile = base
region = eu-west-2
[profile base]
include_profile = deeper
region = eu-west-3
mfa_serial = 12345678
[profile deeper]
source_profile = alone
[profile ring]
include_profile = gnir
[profile gnir]
include_profile = ring
[profile missing]
include_profile = bsae
[default]
region = sa-east-1
"""


def test_a_loop_names_its_members() -> None:
    """file:line, the key and the whole ring, from wherever it is entered."""
    with pytest.raises(BadProfile) as caught:
        parse(CHAINS).chain("a")
    assert caught.value.message.startswith("config:6 [profile c] source_profile=a: the loop a → b → c → a ends in no")
    with pytest.raises(
        BadProfile, match=r"config:25 \[profile gnir\] include_profile=ring: the loop ring → gnir → ring"
    ):
        parse(CHAINS).chain("ring")


def _row(key: str, length: int) -> str:
    """p1 → p2 → … → identity, each by `key`; the last include is a section."""
    lines = [f"[profile p{n}]\n{key} = p{n + 1}\n" for n in range(1, length)]
    return "".join(lines) + f"[profile p{length}]\nregion = eu-west-1\n"


@pytest.mark.parametrize("key", ["source_profile", "include_profile"])
def test_a_chain_has_an_end(key: str) -> None:
    """16 profiles in a row are followed; the 17th is refused with file:line, from wherever it is out of reach."""
    assert parse(_row(key, 16)).chain("p1").identity == ("p16" if key == "source_profile" else "p1")
    with pytest.raises(BadProfile) as caught:
        parse(_row(key, 17)).chain("p1")
    assert caught.value.message == (
        f"config:32 [profile p16] {key}=p17: more than 16 profiles in a row from p1 on; shorten the chain and run "
        "`vault-client explain p1`."
    )
    assert parse(_row(key, 17)).chain("p2").profiles, "positive control: one less is followed"


@pytest.mark.parametrize("key", ["source_profile", "include_profile"])
def test_the_work_of_a_long_chain_is_bounded(key: str) -> None:
    """A chain of 400, every profile planned: at most 16 look-ups for each, not 400."""
    profiles = parse(_row(key, 400))
    looked = _Counting(profiles.profiles)
    counted = Profiles(profiles.file, looked)
    for name in profiles.names():
        with suppress(BadProfile):
            counted.chain(name)
    assert 400 * 16 < looked.looks < 400 * 16 * 5, "positive control: the looks are counted"


class _Counting(dict[str, Section]):
    """Counts what is read of it."""

    looks = 0

    def __getitem__(self, key: str) -> Section:
        self.looks += 1
        return super().__getitem__(key)

    def get(self, key: str, default: object = None) -> Any:
        self.looks += 1
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)


def test_a_profile_that_names_itself_is_an_identity() -> None:
    """The CLI's special case for static keys."""
    profiles = parse(CHAINS)
    assert profiles.chain("self").identity == "self"
    assert [each.name for each in profiles.chain("leaf").profiles] == ["leaf", "self"]
    assert profiles.chain("alone").identity == "alone"


def test_include_profile_fills_what_is_open() -> None:
    """The nearer value wins, its line is kept; nothing comes from [default]."""
    profile = parse(CHAINS).profile("included")
    region, serial, source = profile.get("region"), profile.get("mfa_serial"), profile.get("source_profile")
    assert region == Value("eu-west-2", 15)
    assert serial == Value("12345678", 19)
    assert source == Value("alone", 21)
    assert parse(CHAINS).profile("deeper").get("region") is None
    assert parse(CHAINS).chain("included").identity == "alone"


def test_missing_names() -> None:
    """An include that is not there is 78 with file:line; an unknown profile gives the nearest names."""
    with pytest.raises(BadProfile) as caught:
        parse(CHAINS).profile("missing")
    assert caught.value.message == (
        "config:27 [profile missing] include_profile=bsae: there is no such profile. Did you mean base? "
        "Correct the name, then run `vault-client explain missing`."
    )
    with pytest.raises(UnknownProfile, match=r"There is no profile alnoe in config. Did you mean alone"):
        parse(CHAINS).profile("alnoe")


@given(FILES)
def test_no_name_makes_an_unexpected_error(text: str) -> None:
    """Whatever the file, a chain is found or a typed error says why not."""
    try:
        profiles = parse(text)
    except BadProfile:
        return
    for name in profiles.names():
        with suppress(BadProfile):
            assert profiles.chain(name).profiles[0].name == name


@pytest.mark.parametrize(
    ("text", "line"), [("[profile a\nregion = x\n", 1), ("[default]\n[profile a\n", 2), ("  [a\n", 1)]
)
def test_a_header_without_its_bracket(text: str, line: int) -> None:
    """Told as what it is, wherever it stands; never by the line's own text, which may hold a key."""
    with pytest.raises(BadProfile) as caught:
        parse(text)
    assert caught.value.message == (
        f"config:{line}: this section header lacks its closing bracket; write it as `[profile NAME]`."
    )


def test_our_own_command_is_looked_for_within_bounds() -> None:
    """A value of 400 kB took `shlex` a second, for each row of each `list`."""
    command = "vault-client credential-process "

    assert by_client(command + "p" * 400) == "p" * 400
    assert by_client(command + "p" * 500) is None
