"""`vaultd check --audit` of a real daemon's log: whole, tampered with, and without a daemon."""

from __future__ import annotations

import json

import pytest

from tests.process.harness import Home, Ran

pytestmark = pytest.mark.needs("gcc")  # the conftest's clock


def proof(home: Home) -> Ran:
    return home.run("vaultd", "check", "--audit", "--json")


def test_a_whole_log_is_proved_with_its_end(home: Home) -> None:
    """Exit 0; the daemon says where it ends."""
    ran = proof(home)
    found = ran.json()

    assert ran.status == 0, ran
    assert found["checks"][0]["ok"] is True
    assert (found["audit"]["end_known"], found["audit"]["breaches"]) == (True, [])
    assert found["audit"]["last"] == len(home.audit())
    text = home.run("vaultd", "check", "--audit")
    assert (text.status, text.out.startswith("ok   audit ")) == (0, True)


def test_an_edited_and_a_cut_log_are_named(home: Home) -> None:
    """Exit 1, file:line and number; the cut is seen under a running daemon and, by the sealed head, by the next one."""
    path = home.state / "audit.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole[0].replace(b'"start"', b'"stop!"') + b"".join(whole[1:]))
    edited = proof(home)
    path.write_bytes(b"".join(whole[:-1]))
    cut = proof(home)
    home.stop()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    alone = proof(home)
    with home.daemon():
        after = proof(home)

    assert (edited.status, edited.json()["audit"]["breaches"][0]["kind"]) == (1, "edited")
    assert f"{path}:1 (line 1 of the log)" in edited.json()["checks"][0]["message"]
    assert (cut.status, cut.json()["audit"]["breaches"][0]["kind"]) == (1, "truncated")
    assert f"it ends with line {len(whole) - 1}, line {len(whole)} had been written" in json.dumps(cut.json())
    assert (alone.status, alone.json()["audit"]["end_known"]) == (0, False), "without a daemon the end is not known"
    assert "where it should end is known once vaultd runs" in alone.json()["checks"][0]["message"]
    assert (after.status, "was cut" in after.json()["checks"][0]["message"]) == (1, True), after


def test_a_log_that_others_may_read_is_refused(home: Home) -> None:
    """The proof reads no file that `vaultd start` would refuse."""
    (home.state / "audit.jsonl").chmod(0o644)
    ran, text = proof(home), home.run("vaultd", "check", "--audit")
    (home.state / "audit.jsonl").chmod(0o600)

    path = home.state / "audit.jsonl"
    said = f"{path} is refused because it may be read by others"
    assert (ran.status, ran.err, ran.json()["audit"]) == (78, "", None)
    assert ran.json()["checks"] == [
        {"name": "audit", "ok": False, "message": said, "remedy": f"run `chmod 600 {path}`"}
    ]
    assert (text.status, text.err) == (78, f"vaultd: {said}: run `chmod 600 {path}`.\n")


def test_a_log_that_is_gone_is_not_whole(home: Home) -> None:
    """A home with keys has had lines: without a daemon, too, an empty or missing log is told; control: it is there."""
    path = home.state / "audit.jsonl"
    home.stop()
    whole = home.run("vaultd", "check", "--audit")
    path.write_bytes(b"")
    empty = home.run("vaultd", "check", "--audit")
    path.unlink()
    gone = home.run("vaultd", "check", "--audit")

    assert (whole.status, " lines in 1 file, 1 to " in whole.out) == (0, True)
    remedy = "restore it from a copy, or have another begun with `vaultd start`"
    for ran, said in ((empty, f"the audit log {path} is empty"), (gone, f"there is no audit log at {path}")):
        assert (ran.status, ran.out) == (1, f"BAD  audit        {said}\n                  → {remedy}\n")
