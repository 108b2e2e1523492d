"""Names in remedies: what is pasted from a message is one word of a shell (model/text.py)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vaultd.catalog import Catalog, rules_of
from vaultd.config import load_settings
from vaultd.errors import BadProfile, UnknownIdentity
from vaultd.model.profiles import parse
from vaultd.model.text import nearest, typed

VAULTD = Path(__file__).parents[2] / "vaultd"
#: A name in an f-string behind a command, with its expression.
NAMED = re.compile(r"`vault-client [a-z]+ (?:\"\s*f\")?\{([^}]*)\}")


@pytest.mark.parametrize("name", ["web-admin", "team.prod_2", "123456789012", "a/b", "a@b"])
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    """Nobody is to see quotes that are not needed."""
    assert typed(name) == name


@pytest.mark.parametrize("name", ["$(touch x)", "a b", "it's", "", "`id`", "a;b", "*", "x\x1b[31m", "é"])
def test_an_odd_name_is_one_word(name: str) -> None:
    """A shell reads it back as the name that was shown, and runs nothing of it."""
    (word,) = shlex.split(typed(name))
    assert word == name.replace("\x1b", "?")
    assert "\x1b" not in typed(name)


@pytest.mark.parametrize("name", ["-x", "--replace", "-a b"])
def test_a_name_is_no_option(name: str) -> None:
    """`vault-client explain -x` would be a usage error: two dashes end the options."""
    assert shlex.split(typed(name)) == ["--", name]


def test_a_name_is_suggested_once() -> None:
    """An identity and a profile may have one name."""
    assert nearest("identiti", ["identity", "identity", "other"]) == " Did you mean identity?"


@pytest.mark.parametrize("name", ["a\\\\b", "a/b", "-x", "x" * 129])
def test_a_name_that_cannot_be_stored_is_not_advised(name: str) -> None:
    """`vault-client add` would refuse it: the config file is what to change."""
    rules = rules_of(load_settings("", path="config.toml"), {})
    profiles = parse(f"[profile x]\nsource_profile = {name}\nrole_arn = arn:aws:iam::123456789012:role/R\n")
    with pytest.raises(UnknownIdentity) as unknown:
        Catalog(1, profiles, rules, {}).plan("x")
    assert "vault-client add" not in unknown.value.message
    assert unknown.value.message.endswith("write another source_profile there")


@pytest.mark.parametrize(("name", "told"), [("a/b", "add IDENTITY"), ("a-b", "add a-b")])
def test_a_key_in_the_config_file_is_stored_under_a_name_that_can_be(name: str, told: str) -> None:
    """The section's own name where it is one. A source that vaultd does not serve ends in the same words."""
    rules = rules_of(load_settings("", path="config.toml"), {})
    profiles = parse(f"[profile {name}]\ncredential_source = Environment\n")
    with pytest.raises(BadProfile) as refused:
        Catalog(1, profiles, rules, {}).plan(name)
    assert refused.value.message.endswith(f"run `vault-client {told}`.")


def test_a_message_quotes_the_name() -> None:
    """From a config file to the sentence."""
    rules = rules_of(load_settings("", path="config.toml"), {})
    profiles = parse("[profile x]\nsource_profile = $(touch y)\nrole_arn = arn:aws:iam::123456789012:role/R\n")
    with pytest.raises(UnknownIdentity) as unknown:
        Catalog(1, profiles, rules, {}).plan("x")
    assert unknown.value.message.endswith("run `vault-client add '$(touch y)'`")


def test_every_remedy_goes_through_typed() -> None:
    """No name stands bare behind a command, in any message of the daemon."""
    found = [
        (path.name, expression, path.read_text())
        for path in VAULTD.rglob("*.py")
        for expression in NAMED.findall(path.read_text())
    ]
    bare = [
        (name, expression)
        for name, expression, text in found
        if not expression.startswith("typed(") and f"{expression} = typed(" not in text
    ]
    assert bare == []
    assert len(found) > 15, "positive control: the messages are found"
    assert NAMED.findall('f"`vault-client add {shown(name)}`"') == ["shown(name)"]
