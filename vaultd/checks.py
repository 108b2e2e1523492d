"""Every diagnosis of the daemon's side, once: `vaultd check` without a daemon, GET /v1/checks with one.

Rule: a check says what it looked at, whether it is well, and what to type when it is not. It starts nothing, writes
nothing, and asks no person; what cannot be known from here is said to be unknown, not called well. A sentence
that would send its reader to `vaultd check` loses that part here, where he already is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultd import catalog, ownership
from vaultd.command import own_unit
from vaultd.config import Settings, load_for
from vaultd.engine import audit_proof
from vaultd.engine.seams import Head, Residence
from vaultd.errors import FileRefused, VaultdError
from vaultd.files import Files
from vaultd.host import sockets
from vaultd.host.clock import SystemClock
from vaultd.host.peers import Peers
from vaultd.layout import Layout, check_runtime_dir
from vaultd.lifecycle.holding import Holder, holder_of, running_json, state_lock
from vaultd.lifecycle.passphrase import PassphraseFile
from vaultd.model.reminders import reminders
from vaultd.model.text import counted, shown
from vaultd.store.identities import IdentityIndex
from vaultd.store.os_keyring import allowed, first_of

#: AWS refuses a signature that is older than this (aws-facts §1.5 row 12); we speak up well before.
SKEW_SECONDS = 60
_REMEDY = re.compile(r"(.+)[:;] (.*`.*)", re.DOTALL)
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


@dataclass(frozen=True, slots=True)
class Check:
    """One diagnosis; `remedy` ends in what to type, and is empty when all is well."""

    name: str
    ok: bool
    message: str
    remedy: str = ""

    def wire(self) -> dict[str, Any]:
        """{name, ok, message, remedy} as interface.md §2 has it."""
        return {"name": self.name, "ok": self.ok, "message": self.message, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class Live:
    """What only a running daemon knows. `audit`: what was wrong with the audit log when it was opened; `head`: where it
    ends now. `residence`: where its keeper lives, which looks for the OS `keyring`. `edited`: that it goes by other
    settings than the file's, and what to type.
    """

    port: int
    skew_seconds: float | None
    locked_reason: str
    trouble: tuple[str, ...]
    lost_audit_lines: int
    settings_path: Path | None = None
    edited: str = ""
    audit: tuple[str, ...] = ()
    head: Head | None = None
    residence: Residence | None = None
    keyring: Callable[[], str | None] | None = None


def run(layout: Layout, files: Files, environ: Mapping[str, str], *, live: Live | None = None) -> list[Check]:
    """All of them, in the order in which one would mend. Blocks: keyring and /proc."""
    if (refused := _outside(layout)) and _foreign(refused):
        return _of_another_user(refused)
    path = layout.config_toml if live is None or live.settings_path is None else live.settings_path
    settings, found = _settings(path, files, environ, edited="" if live is None else live.edited)
    holder = holder_of(layout.state) if live is None else None
    return [
        found,
        _permissions(layout, files, environ),
        _profiles(files, settings, path, environ),
        _store(layout, files, settings, _keyring if live is None or live.keyring is None else live.keyring),
        _keys(layout, files),
        *_daemon(layout, live, holder),
        *_keeper(live),
        _port(settings, live, holder),
        attestation(Peers()),
        _clock(live),
        _audit(layout, files, live),
        _user(),
    ]


def _split(sentence: str) -> tuple[str, str]:
    """What is wrong, and what to type; empty where it names nothing but the command that was just typed."""
    found = _REMEDY.fullmatch(sentence)
    if found is None:
        return sentence, ""
    remedy = found[2].removesuffix(".")
    return found[1], "" if re.fullmatch(r"[^`]*`vaultd check`[^`]*", remedy) else remedy


def _and_more(told: Sequence[str]) -> str:
    return f", and {len(told) - 1} more" if len(told) > 1 else ""


def _mended(name: str, exc: VaultdError, otherwise: str) -> Check:
    """Not well, as `exc` says it. A file that is refused says itself what mends it, and to edit it would not."""
    said, remedy = _split(exc.message) if isinstance(exc, FileRefused) else (exc.message, "")
    return Check(name, False, said, remedy) if remedy else Check(name, False, exc.message, otherwise)


def _outside(layout: Layout) -> FileRefused | None:
    """What `vaultd start` refuses before it looks into our directories: whoever may move them away."""
    try:
        for path in layout.directories:
            ownership.check_ancestors(path)
    except FileRefused as exc:
        return exc
    return None


def _foreign(refused: FileRefused) -> bool:
    return Path(refused.details["path"]).lstat().st_uid not in {0, os.geteuid()}


def _of_another_user(refused: FileRefused) -> list[Check]:
    """Root with another user's HOME: nothing of his is looked into, and nobody is told to mend it."""
    said = "not looked at: this home is another user's"
    hidden = ("settings", "profiles", "store", "keys", "daemon", "port", "audit")
    unseen = {name: Check(name, True, said) for name in hidden}
    permissions = Check("permissions", False, *_split(refused.message))
    return [
        unseen["settings"],
        permissions,
        *(unseen[name] for name in ("profiles", "store", "keys", "daemon", "port")),
        attestation(Peers()),
        _clock(None),
        unseen["audit"],
        _user(),
    ]


def _settings(path: Path, files: Files, environ: Mapping[str, str], *, edited: str) -> tuple[Settings, Check]:
    try:
        content = files.read_config(path)
        settings = load_for((content or b"").decode(errors="replace"), environ, path=str(path))
    except VaultdError as exc:
        what = f"edit {path}" if exc.message.startswith(str(path)) else "correct that variable"
        return Settings(), _mended("settings", exc, f"{what}, then type `vaultd check`")
    if edited:
        return settings, Check("settings", False, *_split(edited))
    if content is None:
        return settings, Check("settings", True, f"no {path}: every default holds")
    if misses := settings.misses():
        said, remedy = _split(misses[0])
        return settings, Check("settings", False, f"{path}: {said}{_and_more(misses)}", remedy)
    return settings, Check("settings", True, "; ".join((f"{path} is in order", *settings.notices)))


def _permissions(layout: Layout, files: Files, environ: Mapping[str, str]) -> Check:
    """Every file and directory of ours that exists (interface.md §1), and the passphrase's."""
    ours = (
        layout.identities_json,
        layout.grants_json,
        layout.sessions_sealed,
        layout.secrets_sealed,
        layout.secrets_seen,
        layout.locked_marker,
        layout.audit_jsonl,
        layout.log_file,
        layout.endpoint_json,
        layout.lock_file,
        state_lock(layout),
        running_json(layout.state),
    )
    try:
        check_runtime_dir(environ)
        for path in ours:
            files.read(path, last=1)
        PassphraseFile(files, environ).read()
    except VaultdError as exc:
        return _mended("permissions", exc, "mend that file, then type `vaultd check`")
    if refused := _outside(layout):
        return Check("permissions", False, *_split(refused.message))
    for path in layout.directories:
        if path.exists() and path.stat().st_uid != os.geteuid():
            return Check("permissions", False, f"{path} belongs to another user", f"type `mv {path} {path}.foreign`")
        if (why := _closed_to_us(path)) or (why := _open_to_others(path)):
            return Check("permissions", False, f"{path} {why}", f"type `chmod 700 {path}`")
    return Check("permissions", True, "files and directories are yours alone")


def _closed_to_us(path: Path) -> str:
    return "cannot be written" if path.exists() and not os.access(path, os.W_OK) else ""


def _open_to_others(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return "may be written to by others" if found.st_mode & 0o022 else ""


def _profiles(files: Files, settings: Settings, written: Path, environ: Mapping[str, str]) -> Check:
    """Also what is overlooked in them, and the tables of `written` (config.toml) that are for none of them."""
    configured = settings.aws.config_file
    path = Path(configured).expanduser() if configured else Layout.aws_config(environ)
    try:
        content = files.read_config(path)
        if content is None:
            return Check("profiles", False, f"there is no {path}", f"write `[profile NAME]` with role_arn into {path}")
        found = catalog.profiles_in(content, catalog.said(path, environ.get("HOME")))
        for name in found.names():
            found.chain(name)
    except VaultdError as exc:
        return _mended("profiles", exc, f"edit {path}, then type `vaultd check`")
    if overlooked := (*found.problems, *catalog.unlisted(settings.profiles, found, str(written))):
        said, remedy = _split(overlooked[0])
        said = said.removesuffix(".") + _and_more(overlooked)
        return Check("profiles", False, said, remedy or f"edit {path}, then type `vaultd check`")
    return Check("profiles", True, f"{path} has {counted(len(found.names()), 'profile')}")


def _store(layout: Layout, files: Files, settings: Settings, keyring: Callable[[], str | None]) -> Check:
    """Which store would be used; the keyring is looked for, and not asked for anything."""
    try:
        entries = IdentityIndex(files, layout.identities_json).load()
    except VaultdError as exc:
        return _mended("store", exc, "restore that file, then type `vaultd check`")
    count = sum(entry.state == "active" for entry in entries)
    held, are = ("1 identity", "is") if count == 1 else (f"{count} identities", "are")
    file = layout.secrets_sealed
    if settings.store.backend == "file" or any(entry.backend == "file" for entry in entries):
        missing = any(entry.backend == "file" for entry in entries) and not file.exists()
        if missing:
            return Check("store", False, f"{file} is missing, and {held} {are} in it", "restore it from a backup")
        return Check("store", True, f"the encrypted file {file}, {held}")
    chosen = keyring()
    if chosen is not None:
        return Check("store", True, f"the OS keyring ({chosen}), {held}")
    if settings.store.backend == "auto":
        return Check("store", True, f"no OS keyring here, so the encrypted file {file}, {held}")
    return Check("store", False, "no OS keyring is reachable here", "type `VAULTD_STORE=file vaultd start`")


def _keys(layout: Layout, files: Files) -> Check:
    """What a person is reminded of about his keys. It is well all the same: nobody's credentials fail for it."""
    try:
        entries = IdentityIndex(files, layout.identities_json).load()
    except VaultdError:  # the store's check says why
        return Check("keys", True, "their age is not known while identities.json cannot be read")
    said = reminders((each.identity for each in entries if each.state == "active"), SystemClock().now())
    if not said:
        return Check("keys", True, "none is older than 90 days, and no rotation is unfinished")
    told, remedy = _split(said[0])
    more = f"; and {len(said) - 1} more: see `vault-client identities`" if len(said) > 1 else ""
    return Check("keys", True, told + more, remedy)


def _keyring() -> str | None:
    found = first_of(allowed())
    return None if found is None else found[0]


def _daemon(layout: Layout, live: Live | None, holder: Holder | None) -> list[Check]:
    """A row for each trouble: whoever mends one is not to learn of the next by asking again."""
    if live is None:
        return [_silent(layout, holder)]
    if live.locked_reason:
        return [Check("daemon", False, live.locked_reason, "type `vault-client unlock`")]
    rows = [Check("daemon", False, said, way or "type `vaultd logs`") for said, way in map(_split, live.trouble)]
    return rows or [Check("daemon", True, "unlocked")]


def _keeper(live: Live | None) -> list[Check]:
    """Which process holds the keys, and whether others may read it."""
    if live is None or live.residence is None:
        return []
    keeper, own = live.residence, os.getpid()
    if keeper.dumpable:
        said = f"other processes of this user may read the keys in the memory of pid {keeper.pid}"
        return [Check("keeper", False, said, "type `vaultd restart`")]
    if not keeper.apart:
        return [Check("keeper", True, f"keys are held in vaultd's one process, pid {own}")]
    again = f", started again {counted(keeper.restarts, 'time')}" if keeper.restarts else ""
    return [Check("keeper", True, f"vaultd is pid {own}; keys are held by its keeper, pid {keeper.pid}{again}")]


def _silent(layout: Layout, holder: Holder | None) -> Check:
    """None answered; one may run all the same, with a run directory that is not ours."""
    if holder is None:
        return Check("daemon", True, "not asked: this looked at the files only")
    if holder.run != layout.run or not holder.run.exists():
        return Check("daemon", False, *_split(holder.told(layout.run)))
    return Check("daemon", False, *_split(holder.silent()))


def _port(settings: Settings, live: Live | None, holder: Holder | None) -> Check:
    """Ours, free, or taken by whom."""
    port = settings.listen.port if live is None else live.port
    if live is not None:
        return Check("port", True, f"127.0.0.1:{port} is vaultd's own")
    if holder is not None and _announced(holder) == port:
        return Check("port", True, f"127.0.0.1:{port} is your vaultd's own (pid {holder.pid})")
    owner = sockets.port_owner(port)
    if owner is None:
        return Check("port", True, f"127.0.0.1:{port} is free")
    if (unit := own_unit.find()) is not None and unit.port == port and unit.supervisor.listens():
        return Check("port", True, f"127.0.0.1:{port} is held by {unit.name}, and the first use starts vaultd")
    who = "another process" if owner.pid is None else f"{owner.exe or owner.argv0 or 'a process'} (pid {owner.pid})"
    whose = "" if owner.uid == os.geteuid() else f" of uid {owner.uid}"
    remedy = "write another `[listen] port` into config.toml or end that process, then type `vaultd start`"
    return Check("port", False, f"127.0.0.1:{port} is taken by {shown(who)}{whose}", remedy)


def _announced(holder: Holder) -> int | None:
    """The port that it serves on."""
    try:
        found = json.loads((holder.run / "endpoint.json").read_bytes())
        return int(found["port"]) if found["pid"] == holder.pid else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clock(live: Live | None) -> Check:
    """Against AWS's own Date where a call was made, else by what the kernel knows."""
    skew = None if live is None else live.skew_seconds
    if skew is not None:
        if abs(skew) > SKEW_SECONDS:
            side = "ahead of" if skew > 0 else "behind"
            message = f"clock is {round(abs(skew) / 60)} minutes {side} AWS"
            return Check("clock", False, message, "set the clock, or type `timedatectl set-ntp true`")
        return Check("clock", True, f"within {SKEW_SECONDS} s of AWS")
    known = {True: "the kernel calls it synchronised", False: "the kernel does not call it synchronised"}
    synchronised = _synchronised()
    said = "nothing is known of it" if synchronised is None else known[synchronised]
    return Check("clock", True, f"not compared with AWS yet; {said}")


def _synchronised() -> bool | None:
    adjtimex: Callable[[Any], int] | None = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return None
    return adjtimex(ctypes.create_string_buffer(512)) != _TIME_ERROR


def _audit(layout: Layout, files: Files, live: Live | None) -> Check:
    path = layout.audit_jsonl
    seen = () if live is None else tuple(_split(each)[0] for each in live.audit)
    if live is not None and live.lost_audit_lines:
        said = "; ".join((f"{counted(live.lost_audit_lines, 'line')} could not be written", *seen))
        return Check("audit", False, said, f"free space for {path}")
    try:
        broken = _broken(path, files, live)
    except VaultdError as exc:
        return Check("audit", False, exc.message, f"look at {path}")
    if broken:
        remedy = f"keep a copy of {path}, then see what is left with `vault-client log`"
        return Check("audit", False, "; ".join((_split(broken[0])[0], *seen)), remedy)
    if seen:
        remedy = "see what is left with `vault-client log`; to accept it, type `vaultd restart`: its line `start` stays"
        return Check("audit", False, "; ".join(seen), remedy)
    return _whole(layout, files, live)


def _whole(layout: Layout, files: Files, live: Live | None) -> Check:
    """No line is broken; whether any is there only a running daemon need not be asked."""
    path = layout.audit_jsonl
    if live is None and (said := audit_proof.examine(files, path).missing(path, used=layout.identities_json.exists())):
        return Check("audit", False, said, audit_proof.BEGUN_ANEW)
    if live is None or live.locked_reason:
        said = "the chain is whole as far as it goes; where it should end is known once vaultd runs unlocked"
        return Check("audit", True, said)
    return Check("audit", True, "the chain is whole")


def _broken(path: Path, files: Files, live: Live | None) -> tuple[str, ...]:
    """Looked at twice: a running daemon may rotate the files under the first look."""
    head = None if live is None else live.head
    return audit_proof.verify(files, path, head=head) and audit_proof.verify(files, path, head=head)


def attestation(peers: Peers) -> Check:
    """A connection of our own must be told to be ours: where the kernel does not say whose a socket is (macOS, a Linux
    without inet_diag), the endpoint refuses everybody (security.md §0.1).
    """
    with contextlib.closing(peers), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname(), timeout=1) as client:
            if peers.allowed(listener.getsockname(), client.getsockname()):
                return Check("peers", True, "the kernel says whose a connection is")
    message = "the kernel does not say whose a connection is, so the endpoint refuses every client"
    return Check("peers", False, message, "load the module with `sudo modprobe tcp_diag`, or use Linux")


def _user() -> Check:
    if os.geteuid() == 0:
        return Check("user", True, "run as root: every root process is then the same user; use your own account")
    return Check("user", True, f"run as uid {os.geteuid()} on {shown(socket.gethostname())}")
