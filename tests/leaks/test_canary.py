"""The scanner finds what it must, and nothing else: the positive controls of every canary grep."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.leaks.canary import NAMES, Canaries

FORMS: dict[str, Callable[[str], bytes]] = {
    "itself": str.encode,
    "in a line": lambda value: f"2026-11-22 x={value!r}, y\n".encode(),
    "url": lambda value: b"?a=" + quote(value, safe="").encode() + b"&b",
    "url lower": lambda value: quote(value, safe="").lower().encode() if value.islower() else quote(value).encode(),
    "form": lambda value: b"a=" + quote_plus(value).encode(),
    "json": lambda value: json.dumps({"a": value}).encode(),
    "hex": lambda value: value.encode().hex().encode(),
    "base64": lambda value: base64.b64encode(value.encode()),
    "base64 +1": lambda value: base64.b64encode(b"x" + value.encode() + b"tail"),
    "base64 +2": lambda value: base64.b64encode(b"xy" + value.encode() + b"t"),
    "base64 url": lambda value: base64.urlsafe_b64encode(b"user:" + value.encode() + b"\n"),
    "utf-16": lambda value: value.encode("utf-16"),
    "bytes repr": lambda value: repr(value.encode()).encode(),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_every_canary_is_found(name: str, form: str) -> None:
    """A leak is a leak in whatever form gives the value back. The code's hex is left out: account ids look like it."""
    canaries = Canaries.random()
    hits = canaries.scan(b"before " + FORMS[form](canaries.values[name]) + b" after")

    if (name, form) == ("token_code", "hex"):
        assert hits == []
    else:
        assert name in {hit.canary for hit in hits}
        assert canaries.values[name] not in repr(hits) + repr(canaries)


def test_a_part_of_a_long_one_is_found_and_four_characters_are_not() -> None:
    """A cut line leaks as well; the last 4 of a key are what an audit line shows."""
    canaries = Canaries.random()
    token = canaries.values["session_token"]

    assert canaries.scan(token[:16])
    assert canaries.scan("…" + token[-16:])
    assert not canaries.scan(f"{token[-4:]} {canaries.values['secret_key'][-4:]}")


def test_nothing_is_found_where_nothing_is() -> None:
    """A code inside longer numbers, hashes and fractions is not one."""
    canaries = Canaries(token_code="123456")

    assert not canaries.scan("seq=1234567 0.123456 a123456 2026-11-22T12:00:00.123456Z 123456.78 123456-9")
    assert canaries.scan("code 123456.")
    assert canaries.scan("x=123456\n")
    assert canaries.scan('"123456"')
    assert not Canaries.random().scan(Path(__file__).read_bytes())


def test_a_tree_is_scanned_by_content_and_name(tmp_path: Path) -> None:
    """State, run and log directories; carriers that the contract names are left out by path."""
    canaries = Canaries.random()
    token = canaries.values["grant_token"]
    carrier, leak = tmp_path / "grants" / "a.token", tmp_path / "log"
    carrier.parent.mkdir()
    carrier.write_text(token)
    found = canaries.scan_path(tmp_path)
    clean = canaries.scan_path(tmp_path, besides=[carrier])
    (tmp_path / token).mkdir()
    leak.write_text(f"x {token}")

    assert {hit.where for hit in found} == {str(carrier)}
    assert clean == []
    assert {hit.where for hit in canaries.scan_path(tmp_path, besides=[carrier])} == {str(leak), f"name of {token}"}


def test_argv_and_environ_of_a_process_are_scanned() -> None:
    """What `ps` and /proc show of a process."""
    canaries = Canaries.random()
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", "print(1, flush=True); input()", canaries.values["token_code"]],
        env={"X": canaries.values["grant_token"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    hits = canaries.scan_process(process.pid)
    process.communicate(b"\n")

    found = {(hit.canary, hit.where) for hit in hits}
    assert ("token_code", f"cmdline of {process.pid}") in found
    assert ("grant_token", f"environ of {process.pid}") in found
    assert canaries.scan_process(process.pid) == []


def test_an_unknown_kind_is_refused() -> None:
    """A misspelt canary would never be looked for."""
    with pytest.raises(ValueError, match="no such canary"):
        Canaries(secret="x")
