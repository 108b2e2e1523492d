"""Rules of model/near.py."""

from __future__ import annotations

import difflib

import pytest

from vaultd.model import near
from vaultd.model.near import Names

#: 200 characters each, most of them the same: what a generator of config files writes.
MANY = [f"team-{number:05}-{'x' * 183}-{number:05}" for number in range(10_000)]


def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many names each search compares whole, and their letters times those of the wanted one."""
    work: list[int] = []
    search = difflib.get_close_matches

    def counted(word: str, possibilities: list[str], n: int, cutoff: float) -> list[str]:
        work.append(sum(map(len, possibilities)) * len(word))
        return search(word, possibilities, n=n, cutoff=cutoff)

    monkeypatch.setattr("vaultd.model.near.difflib.get_close_matches", counted)
    return work


def test_few_names_are_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As difflib has them, in its order; also where they begin and end otherwise."""
    work = compared(monkeypatch)
    names = ["prod-admin", "dev-admin", "billing", "prod-audit", *(f"account-{number:04}" for number in range(900))]
    for wanted in ("prd-admin", "xprod-admixx", "acount-0017", "nothing like it"):
        expected = difflib.get_close_matches(wanted, names, n=3, cutoff=0.6)
        assert Names(names).close(wanted) == expected
    assert work[-1] == sum(map(len, names)) * len("nothing like it")


@pytest.mark.parametrize(
    "slip",
    [
        lambda name: "q" + name[1:],
        lambda name: name[1:],
        lambda name: name[:7] + name[8:],
        lambda name: name[:100] + "q" + name[100:],
        lambda name: name[:-1],
        lambda name: name + "q",
        lambda name: name[1] + name[0] + name[2:],
    ],
)
def test_a_slip_is_found_among_many_in_bounded_work(monkeypatch: pytest.MonkeyPatch, slip: object) -> None:
    """One changed, lost or doubled letter, wherever it is; 10,000 long names took 20 s to compare, on the loop."""
    assert callable(slip)
    work = compared(monkeypatch)
    names = Names(MANY)
    assert names.close(slip(MANY[1234]))[0] == MANY[1234]
    assert work[0] <= near.WORK
    assert sum(map(len, MANY)) * 200 > 1000 * near.WORK  # control


def test_a_wanted_name_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut before it is compared; and nothing is compared with nothing."""
    work = compared(monkeypatch)
    Names(MANY).close("y" * 100_000)
    assert work[0] <= near.WORK
    assert Names(()).close("a") == Names(MANY).close("") == []


def test_a_few_more_names_are_compared_always() -> None:
    """Stored identities beside the profiles; one name of both is told once."""
    assert Names(MANY).close("identiti", also=["identity", "identity"]) == ["identity"]
    assert Names(["identity"]).close("identiti", also=["identity"]) == ["identity"]
    assert Names(["identity", "identitx"]).close("identiti", most=1) == ["identity"]
