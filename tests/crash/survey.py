"""What a clean reopening finds, held against what was acknowledged before the fault.

`Findings` has a sentence for each breach, by kind: torn (a file that is neither old nor new), lost (a key, a grant, a
session or an audit line that was acknowledged), undone (a lock, a revoke or a removal that was), reset (damage taken
for an empty home), resent (a code that AWS had seen and that is taken again).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.house import PASSPHRASE, House, bare, with_code
from tests.fakes import FakeClock
from vaultd.engine.audit import verify
from vaultd.engine.seams import Opened
from vaultd.errors import CodeSpent, IdentityBroken, VaultdError
from vaultd.files import Files

KINDS = ("torn", "lost", "undone", "reset", "resent")


@dataclass
class Findings:
    """Breaches by kind; `told`: the fault cost something, and that was said."""

    found: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    told: int = 0

    def say(self, kind: str, sentence: str) -> None:
        self.found[kind].append(sentence)

    def add(self, other: Findings) -> None:
        for kind, sentences in other.found.items():
            self.found[kind] += sentences
        self.told += other.told

    @property
    def well(self) -> bool:
        return not any(self.found.values())


@dataclass
class Acknowledged:
    """What was told, the last word on each thing. "…ing" says what was about to change: both states are in order."""

    keys: dict[str, set[str]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    grants: dict[str, str] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    lines: dict[int, str] = field(default_factory=dict)
    sent: set[tuple[str, str]] = field(default_factory=set)
    said: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, told: Iterable[str]) -> Acknowledged:
        found = cls()
        for line in told:
            found._take(*line.split())
        return found

    def _take(self, word: str, *rest: str) -> None:
        if (thing := getattr(self, f"_{word}", None)) is not None:
            thing(*rest)
        else:
            self.said.add(word)

    def _key(self, name: str, key_id: str) -> None:
        self.keys[name] = {key_id}
        self.removed.discard(name)
        self.leaving.discard(name)

    def _replacing(self, name: str, key_id: str) -> None:
        self.keys[name].add(key_id)

    def _removing(self, name: str) -> None:
        self.keys.pop(name)
        self.leaving.add(name)

    def _removed(self, name: str) -> None:
        self.removed.add(name)

    def _granted(self, grant_id: str, token: str) -> None:
        self.grants[grant_id] = token

    def _revoking(self, grant_id: str) -> None:
        self.grants.pop(grant_id)

    def _revoked(self, grant_id: str) -> None:
        self.revoked.add(grant_id)

    def _line(self, seq: str, digest: str) -> None:
        self.lines[int(seq)] = digest

    def _sent(self, serial: str, code: str) -> None:
        self.sent.add((serial.rpartition("/")[2], code))

    def _locking(self) -> None:
        self.said.discard("opened")

    def _unlocking(self) -> None:
        self.said.discard("locked")


async def survey(path: Path, *, told: Iterable[str], warned: bool, clock: FakeClock | None = None) -> Findings:
    """Open what lies in `path` with a sound disk. `warned`: the user was told that something was not written."""
    acknowledged, findings = Acknowledged.of(told), Findings(told=int(warned))
    house = House(path, Files(), tell=lambda _: None, clock=clock)
    try:
        house.begin()
        opened = await _opened(house, acknowledged, findings, warned=warned)
        if opened is None:
            return findings
    except VaultdError as exc:
        findings.say("torn", f"{exc.kind}: {exc.message}")
        return findings
    _warnings(house, opened, acknowledged, findings, warned=warned)
    await _codes(house, acknowledged, findings, warned=warned)
    await _keys(house, acknowledged, findings)
    await _gone(house, acknowledged, findings)
    _grants(house, acknowledged, findings, warned=warned)
    _lines(house, acknowledged, findings)
    if "session" in acknowledged.said and not any(note.cell == "f" * 64 for note in opened.notes):
        findings.say("lost", "the session that was saved is not there")
    return findings


async def _opened(house: House, acknowledged: Acknowledged, findings: Findings, *, warned: bool) -> Opened | None:
    """With the consent again where the first one was not acknowledged: that file is as old as it was."""
    again = "accepting" in acknowledged.said and "accepted" not in acknowledged.said
    if not house.store.exists() and "creating" in acknowledged.said:
        if "opened" in acknowledged.said:
            findings.say("lost", "a store was acknowledged and is not there")
        return None
    opened = await house.keeper.open(passphrase=PASSPHRASE, accept_rollback=again)
    if "locked" in acknowledged.said and not opened.locked:
        findings.say("undone", "it was locked, and a restart opened the store")
    if "opened" in acknowledged.said and opened.locked and not warned:
        findings.say("undone", "it was unlocked, and a restart is locked")
    if opened.locked:
        opened = await house.keeper.open(passphrase=PASSPHRASE, unlock=True, accept_rollback=again)
    return opened


def _warnings(house: House, opened: Opened, acknowledged: Acknowledged, findings: Findings, *, warned: bool) -> None:
    """Nothing was damaged, only torn; a chain that was sealed is there up to its seal."""
    for each in opened.warnings:
        # A key was added and the first record of the log was not written: no code is taken for 30 s, which is safe.
        # Or it was stored and not yet listed; who adds it again is rid of the warning.
        early = "was missing though keys are stored" in each or "identities.json lists none" in each
        if not early or not (warned or "creating" in acknowledged.said):
            findings.say("torn", f"warning at open: {each}")
    if opened.head is not None:
        for each in house.audit.confirm(opened.head):
            findings.say("lost", each)


async def _codes(house: House, acknowledged: Acknowledged, findings: Findings, *, warned: bool) -> None:
    for name, code in acknowledged.sent:
        if name not in {each.name for each in house.keeper.list()}:
            continue
        try:
            await house.keeper.mint(with_code(name, code))
        except (CodeSpent, IdentityBroken):  # a key that is not there is `_keys`' finding
            continue
        if not warned:
            findings.say("resent", f"the code {code} of {name} went to AWS twice")


async def _keys(house: House, acknowledged: Acknowledged, findings: Findings) -> None:
    there = {each.name for each in house.keeper.list()}
    if acknowledged.keys and not there:
        findings.say("reset", "keys were stored, and the home is an empty one")
    for name in there | acknowledged.keys.keys():
        found = await _key_id(house, name) if name in there else None
        if name in acknowledged.keys and found not in acknowledged.keys[name]:
            findings.say("lost", f"{name} was added, and its key is {found}")
        if name not in acknowledged.keys and name not in acknowledged.leaving and found is None:
            findings.say("lost", f"{name} is listed, and its key was never stored")


async def _key_id(house: House, name: str) -> str | None:
    """The id of the key with which AWS would be called."""
    try:
        await house.keeper.mint(bare(name))
    except IdentityBroken:
        return None
    return house.sts.calls[-1].key_id


async def _gone(house: House, acknowledged: Acknowledged, findings: Findings) -> None:
    """A removed key is in no item of the store, nor is one that is about to be and that no line names any more."""
    listed = {entry.uuid for entry in house.index.load()}
    for name in acknowledged.removed & {each.name for each in house.keeper.list()}:
        findings.say("undone", f"{name} was removed and is there")
    for item, value in house.store._contents().items():
        if item.removeprefix("identity:") not in listed:
            for name in acknowledged.removed | acknowledged.leaving:
                if f"canary-{name}-".encode() in value:
                    findings.say("undone", f"{name} was removed and its key is in the store")


def _grants(house: House, acknowledged: Acknowledged, findings: Findings, *, warned: bool) -> None:
    for grant_id, token in acknowledged.grants.items():
        found = house.grants.find(token.encode())
        if found is None or found.id != grant_id:
            findings.say("lost", f"the token of grant {grant_id} opens nothing")
        elif not house.grants.token_path(grant_id).exists():
            findings.say("lost", f"the token file of grant {grant_id} is not there")
    for grant_id in acknowledged.revoked & {grant.id for grant in house.grants.list()}:
        if not warned:
            findings.say("undone", f"grant {grant_id} was revoked and is there")


def _lines(house: House, acknowledged: Acknowledged, findings: Findings) -> None:
    for each in verify(Files(), house.layout.audit_jsonl):
        findings.say("torn", each)
    if not acknowledged.lines:
        return
    last = max(acknowledged.lines)
    if house.audit.head.seq < last:
        findings.say("lost", f"line {last} of the audit log was written, it ends with {house.audit.head.seq}")
    if house.audit.head.seq == last and house.audit.head.digest != acknowledged.lines[last]:
        findings.say("lost", f"line {last} of the audit log is another one")
