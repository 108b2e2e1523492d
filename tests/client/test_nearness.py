"""What fits what was typed, best first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_client.nearness import Row, fitting, folded, marks, nearness, scattered

SHOWN = st.characters(min_codepoint=32, max_codepoint=0x2FFFF, exclude_categories=("C", "Zl", "Zp"))
NAMES = st.text(SHOWN, min_size=1, max_size=30)
LETTERS = st.text("abprod-_ 12ÄßE", min_size=1, max_size=20)
LISTS = st.lists(st.one_of(LETTERS, NAMES), max_size=12, unique=True)


def row(name: str, used: float = 0.0, **more: Any) -> Row:
    return Row({"profile": name, "account_id": None, "role_arn": None, "state": "none", **more}, used)


def names(typed: str, *rows: Row) -> list[str]:
    return [each.name for each in fitting(rows, typed)]


def in_order(word: str, name: str) -> bool:
    """The letters of `word` are in `name` in their order: the definition, in other words than the code's."""
    left = iter(name)
    return all(char in left for char in word)


@given(LISTS, LETTERS)
def test_what_fits_are_the_letters_in_their_order(found: list[str], typed: str) -> None:
    """Without account and role: a row fits when each word's letters are in its name in their order, and only then."""
    wanted = {name for name in found if all(in_order(word, folded(name)) for word in folded(typed).split())}

    assert set(names(typed, *map(row, found))) == wanted


@given(LISTS, LETTERS, st.text("abprod-1 ", min_size=1, max_size=3))
def test_a_longer_text_fits_no_more(found: list[str], typed: str, more: str) -> None:
    """What is typed after only narrows."""
    rows = [row(name, account_id="234567890123", role_arn="arn:aws:iam::1:role/ProdAdmin") for name in found]

    assert set(names(typed + more, *rows)) <= set(names(typed, *rows))


@given(LISTS, st.one_of(LETTERS, NAMES))
def test_each_fits_its_own_name_best(found: list[str], typed: str) -> None:
    """A name that was typed whole comes first; in any letter case."""
    plain = [name for name in found if len(name.split()) == 1 and name == name.strip()]
    for name in plain:
        equal = {each for each in found if folded(each) == folded(name)}
        assert names(name, *map(row, found))[0] in equal
        if folded(name.upper()) == folded(name):  # a dotless i is another letter when it comes back
            assert names(name.upper(), *map(row, found))[0] in equal


@given(st.permutations(["prod", "prod-a", "a-prod", "pre-ro-dev", "xprodx", "p-r-o-d", "par-old-days"]))
def test_the_order_of_kinds(shuffled: list[str]) -> None:
    """Whole, begins, a word of it, initials, inside, scattered and tight, scattered and wide, whatever came first."""
    assert names("prod", *map(row, shuffled)) == [
        "prod", "prod-a", "a-prod", "p-r-o-d", "xprodx", "par-old-days", "pre-ro-dev",
    ]  # fmt: skip


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=8))
def test_among_equals_the_most_used(uses: list[float]) -> None:
    """Two that fit alike come in the order of their use."""
    rows = [row(f"prod-{at}", used) for at, used in enumerate(uses)]
    found = [each.used for each in fitting(rows, "prod")]

    assert found == sorted(uses, reverse=True)


def test_a_better_fit_beats_use() -> None:
    """What was typed decides, use does not; control: with nothing typed the order given (the most used first) stays."""
    rows = [row("staging-prod-copy", 99.0), row("prod")]

    assert names("prod", *rows) == ["prod", "staging-prod-copy"]
    assert names("", *rows) == names("  ", *rows) == ["staging-prod-copy", "prod"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("web adm", ["web-admin"]),
        ("adm web", ["web-admin"]),
        ("WA", ["web-admin"]),
        ("2345", ["web-admin"]),
        ("readonly", ["audit"]),
        ("audit zzz", []),
        ("wdm", ["web-admin"]),
        ("nimda", []),
    ],
)
def test_words_accounts_roles(typed: str, found: list[str]) -> None:
    """Each word for itself, in any order; how account and role begin; never against the order of the letters."""
    rows = [
        row("web-admin", account_id="234567890123", role_arn="arn:aws:iam::234567890123:role/Ops"),
        row("audit", account_id="345678901234", role_arn="arn:aws:iam::345678901234:role/ReadOnly"),
    ]

    assert names(typed, *rows) == found


def test_accents_however_they_are_typed() -> None:
    """Composed and decomposed are the same letter, and so are cases beyond ASCII."""
    assert names("\u00e9quipe", row("E\u0301QUIPE-prod")) == ["E\u0301QUIPE-prod"]
    assert names("strasse", row("Straße")) == ["Straße"]


@given(st.one_of(LETTERS, NAMES), LETTERS)
def test_marks_are_what_was_typed(name: str, typed: str) -> None:
    """The marked letters of the name are each word's letters in their order, and no more than were typed."""
    each = row(name)
    for word in folded(typed).split():
        found = sorted(marks(each, word))
        if nearness(each, word) is None or len(each.folded) != len(name):
            assert not found
        else:
            assert [each.folded[at] for at in found] == list(word)


@given(st.one_of(LETTERS, NAMES), LETTERS)
def test_scattered_is_close_together(name: str, word: str) -> None:
    """The letters are where they are said to be, and no tighter place ends as early."""
    hits = scattered(name, word)

    assert bool(hits) == in_order(word, name)
    if hits:
        assert [name[at] for at in hits] == list(word)
        assert hits == sorted(set(hits))
        assert not in_order(word, name[hits[0] + 1 : hits[-1] + 1])


def test_session_in_words() -> None:
    """The state, with the larger unit of the time left."""
    assert row("a", state="fresh", seconds_left=3300).session == "fresh 55m"
    assert row("a", state="mfa_required").session == "needs a code"
    assert row("a", state="none").session == "no session"
    assert row("a", state="due", seconds_left=7400).session == "due 2h"
