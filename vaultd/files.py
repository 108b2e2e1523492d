"""The only way to open, replace, append or lock a file.

Rules (interface.md §1, security.md §2.2 items 24 and 25)
- A file of ours is a regular file of this user with one name and mode 0600; anything else is refused by name, never
  followed and never touched. interface.md names what is writable by others; one that others may only read is refused
  as well (item 24: mode & 077 == 0), because every file here holds secrets, hashes or habits. `chmod 600` mends it.
- What our directories are in, up to the root, is ours or root's and nobody else's to write to, unless sticky: who may
  rename there puts files of his in the place of ours. That is looked at before anything is made, so that root with
  another user's HOME (sudo) leaves nothing behind that its owner cannot write to.
- A directory of ours is 0700: one that others may write to is refused, one that they may only read is tightened,
  since `mkdir` under a usual umask makes those.
- A replace leaves the old or the new content, an append the old or the longer one, whenever the process dies.
- `fault(operation, path)` is called before each system call of a kind: tests raise ENOSPC or EIO there, or die.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from vaultd import flock, ownership
from vaultd.errors import Misconfigured
from vaultd.layout import Layout

#: Called as fault("write", path) before the system call.
Fault = Callable[[str, Path], None]

_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_PAGE = 4096
_NEW = ".new"


class Files:
    """Reads, replaces, appends and locks; `chunk` is the most that one write call carries (tests make it small)."""

    def __init__(self, *, fault: Fault | None = None, chunk: int = 1 << 20) -> None:
        self._fault = fault or _no_fault
        self._chunk = chunk

    def make_dirs(self, layout: Layout) -> None:
        """Create every directory 0700, or refuse it by name; a full or read-only home is told before all else."""
        for path in layout.directories:
            self._make_dir(path, may_be_link=path == layout.config)
        self._try_out(layout.sessions_sealed)  # interface.md §2: a start in a full or read-only home says so, exit 1

    def make_dir(self, path: Path) -> None:
        """One more directory of ours, 0700, or refuse it by name."""
        self._make_dir(path, may_be_link=False)

    def _try_out(self, path: Path) -> None:
        """Raise Unwritable for `path` when its directory takes no page."""
        new = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_NEW}")
        with self._writing(path):
            try:
                self._write_new(new, bytes(_PAGE))
            finally:
                with suppress(OSError):
                    os.unlink(new)  # noqa: PTH108

    def clear_leftovers(self, layout: Layout) -> None:
        """Remove what a killed `replace` left behind; only for the holder of the lock, others may be at work."""
        for directory in layout.directories:
            for leftover in directory.glob(f".*{_NEW}"):
                self.remove(leftover)

    def read(self, path: Path, *, last: int | None = None) -> bytes | None:
        """The content (or its `last` bytes) of a file of ours; None when it is absent."""
        with self._reading(path):
            descriptor = self._open(path, os.O_RDONLY | ownership.SAFE)
            if descriptor is None:
                return None
            with _closing(descriptor):
                size = ownership.ours(descriptor, path).st_size
                return self._read_from(descriptor, path, max(0, size - last) if last is not None else 0)

    def read_config(self, path: Path) -> bytes | None:
        """The user's own file, which may be a link of his to a file of his; others must not be able to write to it."""
        if path == Path(os.devnull):  # the usual way to switch AWS_CONFIG_FILE off
            return b""
        return self._read_linked(path, ownership.check_target)

    def read_secret(self, path: Path, *, delivered: bool = False) -> bytes | None:
        """The user's own file that nobody else may so much as read; a link as in `read_config`.

        `delivered`: the service manager's, which may be root's, and is then readable by a group without members of
        ours (systemd gives a unit's user access by an ACL, which shows as 0440).
        """
        return self._read_linked(path, partial(ownership.check_secret, delivered=delivered))

    def _read_linked(self, path: Path, check: Callable[[os.stat_result, Path], None]) -> bytes | None:
        with self._reading(path):
            ownership.check_links(path)
            descriptor = self._open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if descriptor is None:
                return None
            with _closing(descriptor):
                check(os.fstat(descriptor), path)
                return self._read_from(descriptor, path, 0)

    def names(self, directory: Path, *, most: int) -> tuple[bytes, ...] | None:
        """So many names, at most, in a directory of the user's own; None when it is absent.

        It may be a link as in `read_config`. Who else may write to it could put files of his among the user's.
        """
        with self._reading(directory):
            ownership.check_links(directory)
            descriptor = self._open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if descriptor is None:
                return None
            with _closing(descriptor):
                self._own_dir(descriptor, directory, tighten=False)
                with os.scandir(descriptor) as found:
                    return tuple(os.fsencode(each.name) for each in itertools.islice(found, most))

    def replace(self, path: Path, content: bytes) -> None:
        """Make `content` the file, whole or not at all, and durable before this returns.

        Where the directory's sync fails the old file is put back: a caller who is told that nothing was written undoes
        what belonged to it, and a new index over a key that was dropped again would be a key lost.
        """
        with self._writing(path), self._held(path) as old:
            self._refuse_foreign(path)
            self._put(path, content)
            try:
                self._sync_dir(path.parent)
            except BaseException:
                with suppress(OSError):
                    self._put_back(path, old)
                raise

    def append(self, path: Path, content: bytes, *, sync: bool) -> None:
        """Add `content` at the end; what was written in part is cut back. `sync`: durable before this returns."""
        with self._writing(path):
            self._fault("open", path)
            descriptor, created = _open_append(path)
            with _closing(descriptor):
                before = ownership.ours(descriptor, path).st_size
                try:
                    self._write(descriptor, path, content)
                    if sync:
                        self._fault("fsync", path)
                        os.fsync(descriptor)
                except BaseException:
                    os.ftruncate(descriptor, before)
                    raise
            if sync and created:
                self._sync_dir(path.parent)

    def cut(self, path: Path, size: int) -> None:
        """Keep the first `size` bytes: how a log drops the record that a kill tore."""
        with self._writing(path):
            self._fault("truncate", path)
            descriptor = os.open(path, os.O_WRONLY | ownership.SAFE)
            with _closing(descriptor):
                ownership.ours(descriptor, path)
                os.ftruncate(descriptor, size)
                self._fault("fsync", path)
                os.fsync(descriptor)

    def remove(self, path: Path) -> None:
        """Unlink the name; absent is fine. A link is removed itself, never what it names."""
        with self._writing(path), suppress(FileNotFoundError):
            self._fault("unlink", path)
            os.unlink(path)  # noqa: PTH108

    def rename(self, source: Path, target: Path) -> None:
        """Give a file of ours another name in the same directory, over what was there."""
        with self._writing(source):
            self._refuse_foreign(source)
            self._fault("rename", source)
            os.rename(source, target)  # noqa: PTH104
            self._sync_dir(target.parent)

    def lock(self, path: Path) -> flock.Lock | None:
        """The exclusive lock, or None when another process holds it."""
        with self._writing(path):
            return flock.take(path, fault=self._fault)

    def stat_key(self, path: Path) -> tuple[int, ...] | None:
        """(dev, ino, mtime_ns, size, ctime_ns), links followed: differs when the content or a refused mode changed."""
        try:
            found = path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns)

    # ---- one system call a line ----

    def _put(self, path: Path, content: bytes) -> None:
        new = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_NEW}")
        try:
            self._write_new(new, content)
            self._fault("rename", path)
            os.rename(new, path)  # noqa: PTH104 - os throughout this module: one system call a line
        except BaseException:
            with suppress(OSError):
                os.unlink(new)  # noqa: PTH108
            raise

    def _put_back(self, path: Path, old: int | None) -> None:
        if old is None:
            os.unlink(path)  # noqa: PTH108
        else:
            self._put(path, self._read_from(old, path, 0))

    @contextmanager
    def _held(self, path: Path) -> Iterator[int | None]:
        """The file as it is, kept open while another takes its name; None when there is none that opens."""
        descriptor = None
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | ownership.SAFE)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _open(self, path: Path, flags: int) -> int | None:
        self._fault("open", path)
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            return None

    def _read_from(self, descriptor: int, path: Path, offset: int) -> bytes:
        self._fault("read", path)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            stream.seek(offset)
            return stream.read()

    def _write_new(self, path: Path, content: bytes) -> None:
        self._fault("open", path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | ownership.SAFE, 0o600)
        with _closing(descriptor):
            self._write(descriptor, path, content)
            self._fault("fsync", path)
            os.fsync(descriptor)

    def _write(self, descriptor: int, path: Path, content: bytes) -> None:
        left = memoryview(content)
        while left:
            self._fault("write", path)
            left = left[os.write(descriptor, left[: self._chunk]) :]

    def _sync_dir(self, path: Path) -> None:
        self._fault("fsync_dir", path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with _closing(descriptor):
            os.fsync(descriptor)

    def _make_dir(self, path: Path, *, may_be_link: bool) -> None:
        with self._writing(path):
            ownership.check_ancestors(path)
            for each in reversed((path, *path.parents)):
                if not os.path.lexists(each):
                    self._fault("mkdir", each)
                    with suppress(FileExistsError):
                        os.mkdir(each, 0o700)  # noqa: PTH102
            is_link = may_be_link and path.is_symlink()
            follow = 0 if is_link else os.O_NOFOLLOW
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
            with _closing(descriptor):
                self._own_dir(descriptor, path, tighten=not is_link)

    def _own_dir(self, descriptor: int, path: Path, *, tighten: bool) -> None:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise ownership.refusal(
                path, "belongs to another user", f"mv {ownership.quoted(path)} {ownership.quoted(path)}.foreign"
            )
        if found.st_mode & _OTHERS_WRITE:
            raise ownership.refusal(path, "may be written to by others", f"chmod 700 {ownership.quoted(path)}")
        if tighten and found.st_mode & _OTHERS:
            self._fault("chmod", path)
            os.fchmod(descriptor, 0o700)

    def _refuse_foreign(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            ownership.check_ours(os.lstat(path), path)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ownership.told(exc, path) or ownership.unwritable(exc, path) from exc

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ownership.told(exc, path) or Misconfigured(
                f"{path} cannot be read ({ownership.reason_of(exc)}): run `ls -l {ownership.quoted(path)}` and mend it."
            ) from exc


def _no_fault(operation: str, path: Path) -> None:
    """The product's fault hook: nothing happens."""


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _open_append(path: Path) -> tuple[int, bool]:
    flags = os.O_WRONLY | os.O_APPEND | ownership.SAFE
    try:
        return os.open(path, flags), False
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o600), True
