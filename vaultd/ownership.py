"""Whose a file or directory must be, and the sentence that refuses it.

Rule: a refusal names the path, what is wrong with it and the command that mends it; nothing is followed and nothing is
touched (interface.md §1, security.md §2.2 item 24).
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from vaultd.errors import FileRefused, Unwritable, VaultdError

#: How a file of ours is opened. O_NONBLOCK: a FIFO in its place must not hang the daemon before fstat unmasks it.
SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_OURS = 0o600
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_LINK_DEPTH = 16


def unwritable(exc: OSError, path: Path) -> Unwritable:
    """The one sentence for a disk that takes nothing: names the path, ends in what to do."""
    place = quoted(path.parent)
    remedies = {
        errno.ENOSPC: f"make room, see `df -h {place}`, and try again",
        errno.EDQUOT: f"make room in your quota, see `df -h {place}`, and try again",
        errno.EROFS: "set VAULTD_HOME to a writable directory and run `vaultd start` again",
        errno.EACCES: f"run `ls -ld {place}` and give yourself access with `chmod u+rwx {place}`",
        errno.EPERM: f"run `ls -ld {place}` and give yourself access with `chmod u+rwx {place}`",
        errno.EIO: "the disk reports an error, see `dmesg`, then run `vaultd check`",
    }
    remedy = remedies.get(exc.errno or 0, "run `vaultd check`")
    return Unwritable(f"{path} cannot be written ({reason_of(exc)}): {remedy}.")


def ours(descriptor: int, path: Path) -> os.stat_result:
    """What fstat says of an open file of ours; raises FileRefused."""
    found = os.fstat(descriptor)
    check_ours(found, path)
    return found


def check_ours(found: os.stat_result, path: Path) -> None:
    """A regular file of this user's, with one name, that nobody else may read or write."""
    if not stat.S_ISREG(found.st_mode):
        away = f"mv {quoted(path)} {quoted(path)}.old" if stat.S_ISDIR(found.st_mode) else f"rm -i {quoted(path)}"
        raise refusal(path, f"is a {_kind(found.st_mode)}, not a file", away)
    if found.st_uid != os.geteuid():
        raise refusal(path, "belongs to another user", f"rm -i {quoted(path)}")
    if found.st_nlink > 1:  # 0: removed since it was opened, which is nobody's second name
        raise refusal(path, "has a second name (a hard link)", f"rm -i {quoted(path)}")
    if found.st_mode & _OTHERS:
        what = "written to" if found.st_mode & _OTHERS_WRITE else "read"
        raise refusal(path, f"may be {what} by others", f"chmod 600 {quoted(path)}")


def check_target(found: os.stat_result, path: Path) -> None:
    """What a config's link may lead to: a regular file of this user's that nobody else may write to."""
    if not stat.S_ISREG(found.st_mode):
        raise refusal(path, f"is a {_kind(found.st_mode)}, not a file", f"ls -l {quoted(path)}")
    if found.st_uid != os.geteuid():
        raise refusal(path, "belongs to another user", f"ls -lL {quoted(path)}")
    if found.st_mode & _OTHERS_WRITE:
        raise refusal(path, "may be written to by others", f"chmod go-w {quoted(path)}")


def check_secret(found: os.stat_result, path: Path, *, delivered: bool) -> None:
    """A passphrase's file; `delivered` by the service manager it may be root's."""
    if not (delivered and found.st_uid == 0 and stat.S_ISREG(found.st_mode)):
        check_target(found, path)
    if found.st_mode & (_OTHERS & ~stat.S_IRGRP if delivered else _OTHERS):
        raise refusal(path, "may be read by others", f"chmod 600 {quoted(path)}")


def check_links(path: Path) -> None:
    """Each link on the way is the user's: a foreign one could point at another of his files."""
    for _ in range(_LINK_DEPTH):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(found.st_mode):
            return
        if found.st_uid != os.geteuid():
            raise refusal(path, "is another user's link", f"ls -l {quoted(path)}")
        path = path.parent / os.readlink(path)  # noqa: PTH115


def check_ancestors(path: Path) -> None:
    """Nobody else can move our directory away: security.md §2.2 item 24. Links on the way are held to the same."""
    trusted = _trusted()
    for each in dict.fromkeys((*path.resolve().parents, *path.parents)):
        try:
            found = os.lstat(each)
        except FileNotFoundError:
            continue  # it is made by us
        if found.st_uid not in trusted:
            raise _foreign(each, found.st_uid)
        mode = 0 if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX else found.st_mode
        if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _private_group(found)):
            raise refusal(each, "may be written to by others", f"chmod go-w {quoted(each)}")


def _trusted() -> frozenset[int]:
    """Us and root; in a user namespace that does not map root, root's files are shown as the overflow uid's."""
    known = {0, os.geteuid()}
    with suppress(OSError, ValueError):
        ranges = [[int(part) for part in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(outside == 0 for _, outside, _ in ranges):
            known.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(known)


def _private_group(found: os.stat_result) -> bool:
    """Root's own group, or one of the owner's alone: where every user has such a group, umask 002 is the usual one."""
    if found.st_gid == 0:
        return True
    try:
        group, owner = grp.getgrgid(found.st_gid), pwd.getpwuid(found.st_uid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}


def _foreign(path: Path, uid: int) -> FileRefused:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"the user with id {uid}"
    remedy = (
        f"run `vaultd start` as {name}, without sudo, or with `HOME=/root`"
        if os.geteuid() == 0
        else "set VAULTD_HOME to a directory of yours and run `vaultd start` again"
    )
    return FileRefused(f"{path} is refused because it belongs to {name}: {remedy}.", path=str(path))


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFDIR: "directory",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFREG: "file",
    }
    return kinds.get(stat.S_IFMT(mode), "stranger")


def told(exc: OSError, path: Path) -> VaultdError | None:
    """FileRefused for what open() itself turned away: a link, a socket or FIFO, a directory, a foreign file."""
    if exc.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.EACCES}:
        with suppress(OSError):
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                return refusal(path, f"is a {_kind(found.st_mode)}", f"ls -l {quoted(path)}")
            if found.st_uid != os.geteuid():
                return refusal(path, "belongs to another user", f"ls -l {quoted(path)}")
            if exc.errno == errno.EISDIR:
                return refusal(path, "is a directory, not a file", f"mv {quoted(path)} {quoted(path)}.old")
            if exc.errno == errno.ENOTDIR:
                return refusal(path, f"is a {_kind(found.st_mode)}", f"ls -ld {quoted(path)}")
            if exc.errno == errno.EACCES and stat.S_ISREG(found.st_mode) and found.st_mode & _OURS != _OURS:
                what = "written to" if found.st_mode & stat.S_IRUSR else "read"
                return refusal(path, f"may not be {what} by you", f"chmod 600 {quoted(path)}")
    return None


def refusal(path: Path, why: str, command: str) -> FileRefused:
    """The one sentence of every refusal."""
    return FileRefused(f"{path} is refused because it {why}: run `{command}`.", path=str(path))


def reason_of(exc: OSError) -> str:
    """The errno in words."""
    return os.strerror(exc.errno).lower() if exc.errno else type(exc).__name__


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))
