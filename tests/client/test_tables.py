"""Tables, widths, times and colour."""

from __future__ import annotations

import io
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_client import tables
from vault_client.tables import Ink, ago, clean, epoch, fit, peer_text, skew, span, table, typed, width
from vaultd.model.text import duration_text, shown


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


PLAIN = Ink(io.StringIO(), {})


def test_columns_are_aligned() -> None:
    """Wide and combining characters count as a terminal shows them; no blanks at a line's end."""
    text = table(("A", "B"), [("日本", "x"), ("e\u0301", None), ("abcdef", "y")], PLAIN)

    assert text == "A       B\n日本    x\ne\u0301       -\nabcdef  y\n"
    assert (width("日本"), width("e\u0301"), width("a")) == (4, 1, 1)


def test_tables_are_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest column gives way first; every line fits."""
    monkeypatch.setattr(tables, "_columns", lambda _: 30)
    text = table(("NAME", "ARN"), [("web-admin", "arn:aws:iam::123456789012:role/x")], Ink(Screen(), {"NO_COLOR": "1"}))

    assert [width(line) for line in text.splitlines()] == [14, 30]
    assert text.splitlines()[1].endswith("…")
    assert fit("日本語", 5) == "日本…"
    assert fit("日本語", 4) == "日…"


@pytest.mark.parametrize("columns", [1, 8, 20])
def test_a_narrow_terminal_ends(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Shrinking stops at a readable width."""
    monkeypatch.setattr(tables, "_columns", lambda _: columns)

    assert table(("A" * 20, "B" * 20), [], Ink(Screen(), {})).strip()


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Screen(), {}, True),
        (Screen(), {"NO_COLOR": "1"}, False),
        (Screen(), {"NO_COLOR": ""}, True),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour(stream: io.StringIO, environ: dict[str, str], coloured: bool) -> None:
    """Only on a terminal, and not where NO_COLOR is set and not empty."""
    text = table(("S",), [("fresh",)], Ink(stream, environ), state=0)

    assert ("\x1b[32mfresh\x1b[0m" in text) is coloured
    assert ("\x1b" in text) is coloured


@given(st.text(max_size=80))
def test_clean_is_as_strict_as_the_daemon(text: str) -> None:
    """What `shown` leaves alone stays, and what it replaces goes: the client trusts no wire with its terminal."""
    assert clean(text) == shown(text)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1)))  # noqa: DTZ001 - naive bounds
def test_epoch_is_datetimes(moment: datetime) -> None:
    """Equal to datetime, which costs 2 ms at every start."""
    moment = moment.replace(microsecond=0, tzinfo=UTC)

    assert epoch(moment.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)) == moment.timestamp()


@pytest.mark.parametrize(
    "text", [None, "", "now", "2026-11-22 20:00:00Z", "2026-11-22T20:00:00+", "xxxx-11-22T20:00:00Z"]
)
def test_epoch_of_no_time(text: object) -> None:
    """Anything else is no time."""
    assert epoch(text) is None


@given(st.floats(min_value=-10, max_value=10**7))
def test_span_is_the_daemons(seconds: float) -> None:
    """The same words as the daemon's own messages."""
    assert span(seconds) == duration_text(seconds)


def test_sentences() -> None:
    """Skew is positive when this machine is ahead (interface.md §6)."""
    assert skew(420) == "clock is 7 minutes ahead of AWS"
    assert skew(-61) == "clock is 1 minute behind AWS"
    assert [skew(nothing) for nothing in (59, 0, None)] == [None] * 3
    assert ago(None) == "never"
    assert ago("1970-01-01T00:00:00Z", 125.0) == "2m 5s ago"
    assert peer_text({"pid": 7, "exe": "/bin/zsh", "argv0": "-zsh"}) == "zsh (7)"
    assert [peer_text(nobody) for nobody in (None, {}, {"pid": None})] == ["-", "-", "-"]


@pytest.mark.parametrize("name", ["a b", "it's", "`id`", "a;b", "*", "$(x)", "", "é", "plain-1", "-x", "--a b"])
def test_a_name_in_a_remedy_is_one_word(name: str) -> None:
    """As shlex quotes it, whose import would cost each command 2 ms; behind two dashes where it begins with one."""
    assert shlex.split(typed(name)) == ([name] if not name.startswith("-") else ["--", name])
    assert typed(name).removeprefix("-- ") == shlex.quote(name)


@pytest.mark.parametrize("module", ["ask", "keys", "show", "point", "sessions", "carry"])
def test_every_remedy_goes_through_typed(module: str) -> None:
    """No name stands bare behind a command in a message of the client."""
    text = (Path(__file__).parents[2] / "client" / "vault_client" / f"{module}.py").read_text()
    bare = [each for each in re.findall(r"`vault-client [a-z]+ \{([^}]*)\}", text) if not each.startswith("typed(")]
    assert bare == []
    assert re.findall(r"`vault-client [a-z]+ \{([^}]*)\}", "`vault-client add {name}`") == ["name"]
