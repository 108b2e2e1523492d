"""Every path of ours, and the only way to open, replace, append or lock a file.

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

import errno
import fcntl
import itertools
import os
import pwd
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vaultd import ownership
from vaultd.errors import Misconfigured

#: Called as fault("write", path) before the system call.
Fault = Callable[[str, Path], None]

#: sun_path less its closing zero byte (security.md §2.1 item 4).
SOCKET_PATH_LIMIT = {"darwin": 103}

# O_NONBLOCK: a FIFO put in a file's place must not hang the daemon before fstat unmasks it.
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_PAGE = 4096
_NEW = ".new"


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path of interface.md §1, computed without I/O from the environment of `vaultd start`."""

    config: Path
    run: Path
    state: Path
    data: Path

    @classmethod
    def find(cls, environ: Mapping[str, str], *, platform: str = sys.platform) -> Layout:
        """VAULTD_HOME, else the platform's places; a relative XDG path is ignored, as its specification says."""
        if chosen := environ.get("VAULTD_HOME"):
            root = Path(os.path.abspath(_expand(chosen, environ)))  # noqa: PTH100 - a link in it stays as typed
            return cls(config=root / "config", run=root / "run", state=root / "state", data=root / "data")
        home = _home(environ)
        if platform == "darwin":
            support = home / "Library/Application Support/vaultd"
            return cls(config=home / ".config/vaultd", run=home / "Library/Caches/vaultd", state=support, data=support)
        state = _xdg(environ, "XDG_STATE_HOME", home / ".local/state") / "vaultd"
        runtime = environ.get("XDG_RUNTIME_DIR", "")
        return cls(
            config=_xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "vaultd",
            run=Path(runtime, "vaultd") if runtime.startswith("/") else state / "run",
            state=state,
            data=_xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "vaultd",
        )

    @property
    def config_toml(self) -> Path:
        """The user's settings; may be a link."""
        return self.config / "config.toml"

    @property
    def control_sock(self) -> Path:
        """The control API's socket; see `check_socket_path`."""
        return self.run / "control.sock"

    @property
    def doors_sock(self) -> Path:
        """Where `vaultd link-local` hands listening sockets over."""
        return self.run / "doors.sock"

    @property
    def lock_file(self) -> Path:
        """Held by flock while a daemon lives."""
        return self.run / "vaultd.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by flock while a keeper process lives: the next one opens no store before that is gone."""
        return self.state / "keeper.lock"

    @property
    def endpoint_json(self) -> Path:
        """Port and pid of the daemon that lives."""
        return self.run / "endpoint.json"

    @property
    def grant_tokens(self) -> Path:
        """The directory of `ID.token`."""
        return self.run / "grants"

    @property
    def identities_json(self) -> Path:
        """The index, without secrets."""
        return self.state / "identities.json"

    @property
    def grants_json(self) -> Path:
        """Token hashes and metadata keys."""
        return self.state / "grants.json"

    @property
    def sessions_sealed(self) -> Path:
        """Sessions, codes, limits and heads under the data key."""
        return self.state / "sessions.sealed"

    @property
    def audit_jsonl(self) -> Path:
        """The audit log (interface.md §8)."""
        return self.state / "audit.jsonl"

    @property
    def log_file(self) -> Path:
        """The daemon's own log."""
        return self.state / "vaultd.log"

    @property
    def locked_marker(self) -> Path:
        """There while the daemon is locked (architecture.md §7)."""
        return self.state / "locked"

    @property
    def secrets_seen(self) -> Path:
        """The highest generation of `secrets.sealed` that was seen here (security.md §2.2 item 26)."""
        return self.state / "secrets.seen"

    @property
    def secrets_sealed(self) -> Path:
        """The encrypted-file store."""
        return self.data / "secrets.sealed"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Every directory of ours, outer ones first."""
        return (self.config, self.state, self.data, self.run, self.grant_tokens)

    @staticmethod
    def aws_config(environ: Mapping[str, str]) -> Path:
        """The profiles, read only."""
        return _expand(environ.get("AWS_CONFIG_FILE") or "~/.aws/config", environ)

    @staticmethod
    def aws_credentials(environ: Mapping[str, str]) -> Path:
        """The SDKs' plain-text file: looked at for a `[default]` that an SDK would prefer."""
        return _expand(environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials", environ)


def check_socket_path(path: Path, *, platform: str = sys.platform) -> None:
    """Raise Misconfigured when the kernel would refuse the path for a unix socket."""
    limit = SOCKET_PATH_LIMIT.get(platform, 107)
    if (length := len(os.fsencode(path))) > limit:
        raise Misconfigured(
            f"The socket path {path} has {length} bytes, {limit} are allowed: "
            "set VAULTD_HOME to a shorter directory and run `vaultd start` again."
        )


def check_runtime_dir(environ: Mapping[str, str], *, platform: str = sys.platform) -> None:
    """Raise Misconfigured when XDG_RUNTIME_DIR names no directory: of a session that has ended, or another user's.

    It is never made (only the login may, on a file system of its own), and nothing else is taken instead in silence:
    client and daemon would look for each other in two places as soon as it is there.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    used = runtime.startswith("/") and not environ.get("VAULTD_HOME") and platform != "darwin"
    if used and not os.path.isdir(runtime):  # noqa: PTH112
        raise Misconfigured(
            f"XDG_RUNTIME_DIR names {runtime}, which is no directory: type `unset XDG_RUNTIME_DIR` in each shell "
            "that is to use vaultd, or log in again, and then `vaultd start`."
        )


class Lock:
    """A held flock; it ends with `release` or with the last process that inherited its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next daemon in; the file stays, since removing it would let two in at once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


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
            descriptor = self._open(path, os.O_RDONLY | _SAFE)
            if descriptor is None:
                return None
            with _closing(descriptor):
                size = ownership.ours(descriptor, path).st_size
                return self._read_from(descriptor, path, max(0, size - last) if last is not None else 0)

    def read_config(self, path: Path) -> bytes | None:
        """The user's own file, which may be a link of his to a file of his; others must not be able to write to it."""
        with self._reading(path):
            if path == Path(os.devnull):  # the usual way to switch AWS_CONFIG_FILE off
                return b""
            ownership.check_links(path)
            descriptor = self._open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if descriptor is None:
                return None
            with _closing(descriptor):
                ownership.check_target(os.fstat(descriptor), path)
                return self._read_from(descriptor, path, 0)

    def read_secret(self, path: Path, *, delivered: bool = False) -> bytes | None:
        """The user's own file that nobody else may so much as read; a link as in `read_config`.

        `delivered`: the service manager's, which may be root's, and is then readable by a group without members of
        ours (systemd gives a unit's user access by an ACL, which shows as 0440).
        """
        with self._reading(path):
            ownership.check_links(path)
            descriptor = self._open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if descriptor is None:
                return None
            with _closing(descriptor):
                ownership.check_secret(os.fstat(descriptor), path, delivered=delivered)
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
            descriptor = os.open(path, os.O_WRONLY | _SAFE)
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

    def lock(self, path: Path) -> Lock | None:
        """The exclusive lock, or None when another process holds it."""
        with self._writing(path):
            while True:
                self._fault("open", path)
                # Not for writing: a file that is open for that keeps its disk from being made read-only.
                descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | _SAFE, 0o600)
                if not self._try_flock(descriptor, path):
                    return None
                if _still_named(descriptor, path):
                    return Lock(descriptor)
                os.close(descriptor)  # removed between open and flock: a lock on a nameless file excludes nobody

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
            descriptor = os.open(path, os.O_RDONLY | _SAFE)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _try_flock(self, descriptor: int, path: Path) -> bool:
        try:
            self._fault("flock", path)
            ownership.ours(descriptor, path)
            _flock(descriptor, path)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        return True

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
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)
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


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    value = environ.get(name, "")
    return Path(value) if value.startswith("/") else default


def _expand(text: str, environ: Mapping[str, str]) -> Path:
    if text == "~" or text.startswith("~/"):
        return _home(environ) / text[2:]
    return Path(text)


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _open_append(path: Path) -> tuple[int, bool]:
    flags = os.O_WRONLY | os.O_APPEND | _SAFE
    try:
        return os.open(path, flags), False
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o600), True


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno != errno.EBADF:
            raise
        # NFS has no flock and makes it a lock of bytes, which wants the file open for writing (flock(2)).
        writable = os.open(path, os.O_RDWR | _SAFE)
        os.dup2(writable, descriptor, inheritable=False)
        os.close(writable)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _still_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
