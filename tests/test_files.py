"""vaultd/files.py, layout.py and flock.py: every path, hostile layouts, atomic writes, full disks, locks."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.dying import every_death
from vaultd.errors import FileRefused, Misconfigured, Unwritable, VaultdError
from vaultd.files import Fault, Files
from vaultd.layout import Layout, check_runtime_dir, check_socket_path

NOBODY = 65534
as_root = pytest.mark.needs("root")


def failing(operation: str, code: int) -> Fault:
    def fault(called: str, path: Path) -> None:
        if called == operation:
            raise OSError(code, os.strerror(code), str(path))

    return fault


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout.find({"VAULTD_HOME": str(tmp_path / "vaultd")})
    Files().make_dirs(found)
    return found


# ---- paths ----


def test_linux_paths_follow_xdg() -> None:
    """interface.md §1, column Linux."""
    layout = Layout.find(
        {
            "HOME": "/home/ada",
            "XDG_CONFIG_HOME": "/c",
            "XDG_STATE_HOME": "/s",
            "XDG_DATA_HOME": "/d",
            "XDG_RUNTIME_DIR": "/r",
        },
        platform="linux",
    )

    assert layout.config_toml == Path("/c/vaultd/config.toml")
    assert layout.control_sock == Path("/r/vaultd/control.sock")
    assert layout.lock_file == Path("/r/vaultd/vaultd.lock")
    assert layout.endpoint_json == Path("/r/vaultd/endpoint.json")
    assert layout.grant_tokens == Path("/r/vaultd/grants")
    assert layout.identities_json == Path("/s/vaultd/identities.json")
    assert layout.grants_json == Path("/s/vaultd/grants.json")
    assert layout.sessions_sealed == Path("/s/vaultd/sessions.sealed")
    assert layout.audit_jsonl == Path("/s/vaultd/audit.jsonl")
    assert layout.log_file == Path("/s/vaultd/vaultd.log")
    assert layout.secrets_sealed == Path("/d/vaultd/secrets.sealed")


def test_linux_paths_without_xdg() -> None:
    """The run directory is below state where there is no XDG_RUNTIME_DIR; relative XDG paths count as unset."""
    layout = Layout.find({"HOME": "/home/ada", "XDG_CONFIG_HOME": "elsewhere"}, platform="linux")

    assert layout.config == Path("/home/ada/.config/vaultd")
    assert layout.state == Path("/home/ada/.local/state/vaultd")
    assert layout.data == Path("/home/ada/.local/share/vaultd")
    assert layout.run == Path("/home/ada/.local/state/vaultd/run")


def test_mac_paths() -> None:
    """interface.md §1, column macOS."""
    layout = Layout.find({"HOME": "/Users/ada", "XDG_STATE_HOME": "/s"}, platform="darwin")

    support = Path("/Users/ada/Library/Application Support/vaultd")
    assert layout.config_toml == Path("/Users/ada/.config/vaultd/config.toml")
    assert layout.control_sock == Path("/Users/ada/Library/Caches/vaultd/control.sock")
    assert layout.state == support
    assert layout.data == support


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_vaultd_home_holds_everything(platform: str) -> None:
    """VAULTD_HOME=DIR puts everything under DIR/{config,run,state,data}, whatever else is set."""
    layout = Layout.find({"VAULTD_HOME": "/x", "XDG_RUNTIME_DIR": "/r", "HOME": "/h"}, platform=platform)

    assert (layout.config, layout.run, layout.state, layout.data) == tuple(
        Path("/x", each) for each in ("config", "run", "state", "data")
    )


def test_a_relative_vaultd_home_is_made_absolute() -> None:
    """The daemon changes directory; its paths must not."""
    assert Layout.find({"VAULTD_HOME": "here"}).state == Path.cwd() / "here/state"


def test_aws_files_follow_their_variables() -> None:
    """`$AWS_CONFIG_FILE` or `~/.aws/config`, with the tilde as the SDKs expand it."""
    assert Layout.aws_config({"HOME": "/h"}) == Path("/h/.aws/config")
    assert Layout.aws_config({"HOME": "/h", "AWS_CONFIG_FILE": "~/c"}) == Path("/h/c")
    assert Layout.aws_credentials({"HOME": "/h"}) == Path("/h/.aws/credentials")


@pytest.mark.parametrize(("platform", "limit"), [("linux", 107), ("darwin", 103)])
def test_socket_path_length(platform: str, limit: int) -> None:
    """security.md §2.1 item 4: checked before bind, with a clear error."""
    check_socket_path(Path("/" + "a" * (limit - 1)), platform=platform)
    with pytest.raises(Misconfigured, match="VAULTD_HOME"):
        check_socket_path(Path("/" + "a" * limit), platform=platform)


@pytest.mark.needs("linux")
def test_a_runtime_directory_that_is_not_there(tmp_path: Path) -> None:
    """Named with its variable and what to type; where it is not used, or is there, nothing is said."""
    gone = {"XDG_RUNTIME_DIR": str(tmp_path / "gone")}
    with pytest.raises(Misconfigured) as refused:
        check_runtime_dir(gone, platform="linux")
    assert refused.value.exit == 78
    assert refused.value.message == (
        f"XDG_RUNTIME_DIR names {tmp_path}/gone, which is no directory: type `unset XDG_RUNTIME_DIR` in each shell "
        "that is to use vaultd, or log in again, and then `vaultd start`."
    )
    for environ in {"XDG_RUNTIME_DIR": str(tmp_path)}, {"XDG_RUNTIME_DIR": "x"}, {}, {**gone, "VAULTD_HOME": "/v"}:
        check_runtime_dir(environ, platform="linux")
    check_runtime_dir(gone, platform="darwin")


def test_socket_path_limit_is_the_kernels(tmp_path: Path) -> None:
    """Positive control for 107: the kernel takes one of 107 bytes and refuses 108."""
    base = str(tmp_path / "s")
    for length, fits in ((107, True), (108, False)):
        with socket.socket(socket.AF_UNIX) as sock:
            path = base.ljust(length, "s")
            if fits:
                sock.bind(path)
            else:
                with pytest.raises(OSError, match="too long"):
                    sock.bind(path)


# ---- directories ----


def test_make_dirs_creates_private_directories(tmp_path: Path) -> None:
    """All directories 0700, whatever the umask; missing parents too."""
    layout = Layout.find({"HOME": str(tmp_path / "home")}, platform="linux")
    before = os.umask(0)
    try:
        Files().make_dirs(layout)
    finally:
        os.umask(before)

    for each in (*layout.directories, tmp_path / "home/.local/share"):
        assert each.stat().st_mode & 0o777 == 0o700, each


def test_make_dirs_tightens_a_readable_directory(layout: Layout) -> None:
    """`mkdir` under a usual umask makes 0755: mended, since nobody else could have written there."""
    layout.state.chmod(0o755)
    Files().make_dirs(layout)

    assert layout.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_directory_that_others_write_to_is_refused(layout: Layout, mode: int) -> None:
    """Someone may have put files there already: refused by name, mode untouched."""
    layout.state.chmod(mode)
    with pytest.raises(FileRefused, match=r"state.*chmod 700"):
        Files().make_dirs(layout)

    assert layout.state.stat().st_mode & 0o7777 == mode


def test_a_link_in_a_directorys_place_is_refused(layout: Layout, tmp_path: Path) -> None:
    """security.md §2.1 item 1: never followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    layout.grant_tokens.rmdir()
    layout.grant_tokens.symlink_to(elsewhere)

    with pytest.raises(FileRefused, match="grants is refused because it is a link"):
        Files().make_dirs(layout)


def test_the_config_directory_may_be_a_link(layout: Layout, tmp_path: Path) -> None:
    """Dotfile repositories link whole directories; it is only read, so its mode is left alone."""
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir(0o755)
    layout.config.rmdir()
    layout.config.symlink_to(dotfiles)

    Files().make_dirs(layout)

    assert dotfiles.stat().st_mode & 0o777 == 0o755


def test_a_file_in_a_directorys_place_is_refused(layout: Layout) -> None:
    """Named, not replaced."""
    layout.grant_tokens.rmdir()
    layout.grant_tokens.write_text("x")

    with pytest.raises(FileRefused, match="grants is refused because it is a file"):
        Files().make_dirs(layout)


@as_root
def test_a_foreign_directory_is_refused(layout: Layout) -> None:
    """Another user's directory is his, also when it is 0700."""
    os.chown(layout.state, NOBODY, NOBODY)
    with pytest.raises(FileRefused, match="another user"):
        Files().make_dirs(layout)


def test_an_ancestor_that_others_write_to_is_refused(tmp_path: Path) -> None:
    """Others could move our directory away; with the sticky bit, as in /tmp, they cannot."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    layout = Layout.find({"VAULTD_HOME": str(shared / "v")})
    with pytest.raises(FileRefused, match="shared"):
        Files().make_dirs(layout)

    shared.chmod(0o1777)
    Files().make_dirs(layout)


STRANGER, OTHER = 12345, 23456


def in_a_child(act: Callable[[], None], *, uid: int = 0) -> str:
    """What `act` raised in a forked process of `uid`, or nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            act()
        except BaseException as exc:  # noqa: BLE001 - told to the parent
            os.write(writing, str(exc).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(pid, 0)
    return said


@pytest.fixture
def homes() -> Iterator[Path]:
    """A directory under /tmp that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def owned(path: Path, uid: int, mode: int = 0o755) -> Path:
    path.mkdir()
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path


@as_root
def test_root_makes_nothing_in_another_users_home(homes: Path) -> None:
    """`sudo vaultd start` with the caller's HOME: refused by name before a directory of root's is there, which its
    owner could not write to. Control: the owner himself.
    """
    home = owned(homes / "ada", STRANGER)
    layout = Layout.find({"HOME": str(home)}, platform="linux")
    with pytest.raises(FileRefused) as refused:
        Files().make_dirs(layout)

    assert refused.value.exit == 78
    assert refused.value.message == (
        f"{home} is refused because it belongs to the user with id {STRANGER}: run `vaultd start` as the user with id "
        f"{STRANGER}, without sudo, or with `HOME=/root`."
    )
    assert list(home.iterdir()) == []
    assert in_a_child(lambda: Files().make_dirs(layout), uid=STRANGER) == ""
    assert {each.stat().st_uid for each in home.rglob("*")} == {STRANGER}


@as_root
def test_a_home_below_another_users_directory_is_refused(homes: Path) -> None:
    """He could rename it and put one of his in its place. Control: below root, in a sticky directory or not."""
    below = {
        "theirs": owned(homes / "theirs", OTHER),
        "roots": owned(homes / "roots", 0),
        "sticky": owned(homes / "sticky", 0, 0o1777),
    }
    said = {}
    for name, parent in below.items():
        home = owned(parent / "home", STRANGER)
        layout = Layout.find({"VAULTD_HOME": str(home)})
        said[name] = in_a_child(lambda layout=layout: Files().make_dirs(layout), uid=STRANGER)  # type: ignore[misc]

    assert said == {
        "theirs": f"{below['theirs']} is refused because it belongs to the user with id {OTHER}: set VAULTD_HOME to a "
        "directory of yours and run `vaultd start` again.",
        "roots": "",
        "sticky": "",
    }


@as_root
def test_a_link_of_another_user_on_the_way_is_refused(homes: Path) -> None:
    """Where it leads is his to change, though it leads to a directory of ours now."""
    home = owned(homes / "home", 0)
    (homes / "way").symlink_to(home)
    layout = Layout.find({"VAULTD_HOME": str(homes / "way/v")})
    Files().make_dirs(layout)  # control: root's own link
    os.lchown(homes / "way", OTHER, OTHER)
    with pytest.raises(FileRefused, match="way is refused because it belongs to the user with id"):
        Files().make_dirs(layout)


@as_root
def test_a_group_that_may_write_is_refused(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the owner's private group, which umask 002 lets write on many systems."""
    home = owned(homes / "ada", STRANGER, 0o775)
    layout = Layout.find({"VAULTD_HOME": str(home / "v")})
    refused = in_a_child(lambda: Files().make_dirs(layout), uid=STRANGER)
    assert refused == f"{home} is refused because it may be written to by others: run `chmod go-w {home}`."

    ada = pwd.struct_passwd(("ada", "x", STRANGER, STRANGER, "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: ada)
    for members, group, passes in ([], "ada", True), (["ada"], "ada", True), (["bob"], "ada", False), ([], "g", False):
        found = grp.struct_group((group, "x", STRANGER, members))
        monkeypatch.setattr(grp, "getgrgid", lambda _, found=found: found)
        assert (in_a_child(lambda: Files().make_dirs(layout), uid=STRANGER) == "") == passes, (group, members)


@as_root
def test_where_root_has_no_number_its_directories_are_still_roots(homes: Path) -> None:
    """A sandbox of one's own (user namespace) shows root's `/` as the overflow uid's."""
    home = owned(homes / "ada", STRANGER)
    layout = Layout.find({"VAULTD_HOME": str(home / "v")})

    def sandboxed() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(4, 1, 0, 0, 0)  # dumpable again: setuid took it, and with it /proc/self/uid_map
        if libc.unshare(0x10000000):  # CLONE_NEWUSER
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/self/uid_map").write_text(f"{STRANGER} {STRANGER} 1")
        assert Path("/").stat().st_uid == NOBODY
        Files().make_dirs(layout)

    assert in_a_child(sandboxed, uid=STRANGER) == ""


# ---- hostile files ----


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("not-there"))


def _hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def _fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o600)


def _socket(path: Path, victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    path.chmod(0o600)


def _directory(path: Path, victim: Path) -> None:
    path.mkdir(0o700)


def _device(path: Path, victim: Path) -> None:
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


def _foreign(path: Path, victim: Path) -> None:
    path.write_bytes(b"theirs")
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)


def _moded(mode: int) -> Callable[[Path, Path], None]:
    def make(path: Path, victim: Path) -> None:
        path.write_bytes(b"loose")
        path.chmod(mode)

    return make


HOSTILE = [
    pytest.param(_link, "link", id="link"),
    pytest.param(_dangling, "link", id="dangling-link"),
    pytest.param(_hard_link, "hard link", id="hard-link"),
    pytest.param(_fifo, "FIFO", id="fifo"),
    pytest.param(_socket, "socket", id="socket"),
    pytest.param(_directory, "directory", id="directory"),
    pytest.param(_device, "device", id="device", marks=as_root),
    pytest.param(_foreign, "another user", id="foreign", marks=as_root),
    pytest.param(_moded(0o644), "read by others", id="0644"),
    pytest.param(_moded(0o640), "read by others", id="0640"),
    pytest.param(_moded(0o620), "written to by others", id="0620"),
    pytest.param(_moded(0o602), "written to by others", id="0602"),
    pytest.param(_moded(0o666), "written to by others", id="0666"),
]

USES = [
    pytest.param(lambda files, path: files.read(path), id="read"),
    pytest.param(lambda files, path: files.replace(path, b"new"), id="replace"),
    pytest.param(lambda files, path: files.append(path, b"new", sync=True), id="append"),
    pytest.param(lambda files, path: files.cut(path, 0), id="cut"),
    pytest.param(lambda files, path: files.lock(path), id="lock"),
    pytest.param(lambda files, path: files.rename(path, path.with_name("aside")), id="rename"),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("make", "why"), HOSTILE)
def test_hostile_files_are_refused_and_untouched(
    tmp_path: Path, make: Callable[[Path, Path], None], why: str, use: Callable[[Files, Path], object]
) -> None:
    """security.md §2.2 item 24: refused by name with exit 78, never followed, never changed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    path = tmp_path / "grants.json"
    make(path, victim)
    before = os.lstat(path)

    with pytest.raises(FileRefused) as caught:
        use(Files(), path)

    assert str(path) in caught.value.message
    assert why in caught.value.message
    assert caught.value.exit == 78
    after = os.lstat(path)
    assert (after.st_mode, after.st_size, after.st_mtime_ns) == (before.st_mode, before.st_size, before.st_mtime_ns)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "not-there").exists()


@pytest.mark.parametrize("use", USES)
def test_a_directory_is_moved_away(tmp_path: Path, use: Callable[[Files, Path], object]) -> None:
    """`rm` removes none."""
    path = tmp_path / "audit.jsonl"
    path.mkdir()
    with pytest.raises(FileRefused) as caught:
        use(Files(), path)
    assert caught.value.message.endswith(f"is a directory, not a file: run `mv {path} {path}.old`.")


@pytest.mark.parametrize("mode", [0o000, 0o200, 0o400, 0o600])
def test_a_file_that_its_owner_may_not_use(tmp_path: Path, mode: int) -> None:
    """As the kernel says it to anybody but root: the mode is what mends it; control: one that is refused for else."""
    path = tmp_path / "audit.jsonl"
    path.touch()
    path.chmod(mode)

    def fault(operation: str, at: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    files = Files(fault=fault)
    uses: list[Callable[[], object]] = [lambda: files.read(path), lambda: files.append(path, b"x", sync=False)]
    for use in uses:
        with pytest.raises(VaultdError) as caught:
            use()
        what = "written to" if mode & 0o400 else "read"
        mended = caught.value.message.endswith(f"may not be {what} by you: run `chmod 600 {path}`.")
        assert mended is (mode != 0o600)


@pytest.mark.parametrize("use", USES)
def test_a_file_of_ours_is_taken(tmp_path: Path, use: Callable[[Files, Path], object]) -> None:
    """Positive control for the table above: 0600, ours, one name."""
    path = tmp_path / "grants.json"
    path.write_bytes(b"ours")
    path.chmod(0o600)

    use(Files(), path)


# ---- the user's own files ----


def test_config_may_be_a_link_to_a_readable_file(tmp_path: Path) -> None:
    """interface.md §1: dotfile repositories link ~/.aws/config, usually 0644, also through two links."""
    target = tmp_path / "dotfiles"
    target.write_bytes(b"[default]\n")
    target.chmod(0o644)
    (tmp_path / "middle").symlink_to("dotfiles")
    (tmp_path / "config").symlink_to(tmp_path / "middle")

    assert Files().read_config(tmp_path / "config") == b"[default]\n"
    assert Files().read_config(tmp_path / "absent") is None


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_config_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """security.md T11: whoever can write it could have us run programs; also behind a link."""
    target = tmp_path / "target"
    target.write_bytes(b"x")
    target.chmod(mode)
    (tmp_path / "config").symlink_to(target)

    for path in (target, tmp_path / "config"):
        with pytest.raises(FileRefused, match="chmod go-w"):
            Files().read_config(path)


@as_root
def test_config_of_another_user_is_refused(tmp_path: Path) -> None:
    """Link and target are both the user's."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for each in (mine, theirs):
        each.write_bytes(b"x")
        each.chmod(0o644)
    os.chown(theirs, NOBODY, NOBODY)
    (tmp_path / "link").symlink_to(mine)
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(FileRefused, match="another user"):
        Files().read_config(theirs)
    with pytest.raises(FileRefused, match="another user's link"):
        Files().read_config(tmp_path / "link")


@pytest.mark.parametrize(
    ("mode", "delivered", "passes"),
    [
        (0o600, False, True),
        (0o400, False, True),
        (0o640, False, False),
        (0o604, False, False),
        (0o644, False, False),
        (0o620, False, False),
        (0o400, True, True),
        (0o440, True, True),
        (0o444, True, False),
        (0o460, True, False),
        (0o640, True, True),
    ],
)
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int, delivered: bool, passes: bool) -> None:
    """It is one no more; the remedy is named. systemd shows the ACL of a delivered one as 0440."""
    path = tmp_path / "passphrase"
    path.write_text("canary")
    path.chmod(mode)
    if passes:
        assert Files().read_secret(path, delivered=delivered) == b"canary"
        return
    with pytest.raises(FileRefused, match=r"may be (read|written to) by others: run `chmod (600|go-w) \S+passphrase`"):
        Files().read_secret(path, delivered=delivered)


@as_root
def test_a_delivered_secret_may_be_roots(homes: Path) -> None:
    """The service manager's, for a unit with User=; a third user's is nobody's, and root's own is not the user's."""
    path = homes / "vaultd-passphrase"
    path.write_text("x")
    path.chmod(0o440)

    def read(*, delivered: bool) -> Callable[[], None]:
        def act() -> None:
            raise AssertionError(Files().read_secret(path, delivered=delivered))

        return act

    os.chown(path, 0, STRANGER)  # readable by the group: the ACL's work, done without one
    assert in_a_child(read(delivered=True), uid=STRANGER) == "b'x'"
    assert "belongs to another user" in in_a_child(read(delivered=False), uid=STRANGER)
    os.chown(path, OTHER, STRANGER)
    assert "belongs to another user" in in_a_child(read(delivered=True), uid=STRANGER)


def test_config_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A FIFO must not hang the daemon; /dev/null is the usual way to switch the file off."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileRefused, match="FIFO"):
        Files().read_config(tmp_path / "fifo")
    with pytest.raises(FileRefused, match="directory"):
        Files().read_config(tmp_path)

    assert Files().read_config(Path(os.devnull)) == b""


# ---- writing ----


def test_replace_then_read(tmp_path: Path) -> None:
    """A replaced file is 0600 whatever the umask, alone in its directory, and reads back."""
    before = os.umask(0)
    try:
        Files().replace(tmp_path / "f", b"one")
        Files().replace(tmp_path / "f", b"two")
        Files().append(tmp_path / "g", b"three", sync=False)
        lock = Files().lock(tmp_path / "h")
    finally:
        os.umask(before)

    assert lock is not None
    lock.release()
    assert Files().read(tmp_path / "f") == b"two"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f", "g", "h"]
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}


def test_read_of_the_end(tmp_path: Path) -> None:
    """`last` is the tail of a log, or all of a shorter one."""
    Files().append(tmp_path / "f", b"0123456789", sync=False)

    assert Files().read(tmp_path / "f", last=3) == b"789"
    assert Files().read(tmp_path / "f", last=99) == b"0123456789"


def test_replace_is_synced_before_and_after_the_rename(tmp_path: Path) -> None:
    """security.md §2.2 item 25: write → fsync → rename → fsync of the directory, in this order."""
    seen: list[str] = []
    Files(fault=lambda operation, _: seen.append(operation)).replace(tmp_path / "f", b"x")

    assert seen == ["open", "write", "fsync", "rename", "fsync_dir"]


DURABLE = [
    pytest.param(lambda files, path: files.replace(path, b"new"), ["file", "directory"], id="replace"),
    pytest.param(lambda files, path: files.append(path, b"new", sync=True), ["file"], id="append"),
    pytest.param(
        lambda files, path: files.append(path.with_name("g"), b"new", sync=True), ["file", "directory"], id="create"
    ),
    pytest.param(lambda files, path: files.cut(path, 1), ["file"], id="cut"),
    pytest.param(lambda files, path: files.rename(path, path.with_name("g")), ["directory"], id="rename"),
    pytest.param(lambda files, path: files.append(path, b"new", sync=False), [], id="control-unsynced"),
]


@pytest.mark.parametrize(("write", "synced"), DURABLE)
def test_what_is_told_as_durable_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Files, Path], object], synced: list[str]
) -> None:
    """security.md §2.2 item 25, by the system call itself: the descriptor is of the file, or of its directory."""
    path = tmp_path / "f"
    Files().replace(path, b"old")
    seen: list[str] = []
    directory = tmp_path.stat().st_ino
    monkeypatch.setattr(
        os, "fsync", lambda each: seen.append("directory" if os.fstat(each).st_ino == directory else "file")
    )
    write(Files(), path)

    assert seen == synced


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_at_any_call_leaves_old_or_new(tmp_path: Path) -> None:
    """security.md §2.2 item 25: never torn, and the next starter clears what was left behind."""
    layout = Layout.find({"VAULTD_HOME": str(tmp_path)})
    Files().make_dirs(layout)
    path, old, new = layout.grants_json, b"old" * 100, b"new" * 700
    Files().replace(path, old)
    found = []
    for _ in every_death(lambda files: files.replace(path, new)):
        found.append(Files().read(path))
        Files().replace(path, old)

    assert len(found) >= 100
    assert set(found) == {old, new}  # both occur: a kill after the rename finds the new one
    assert len(list(layout.state.iterdir())) > 1
    Files().clear_leftovers(layout)
    assert [each.name for each in layout.state.iterdir()] == ["grants.json"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_within_an_append_keeps_what_was_there(tmp_path: Path) -> None:
    """The tail may be torn, which its reader cuts; everything before it is whole."""
    path, line = tmp_path / "log", b"x" * 640
    Files().append(path, b"first\n", sync=True)
    sizes = []
    for _ in every_death(lambda files: files.append(path, line, sync=True)):
        content = Files().read(path) or b""
        assert content.startswith(b"first\n")
        sizes.append(len(content))
        Files().cut(path, 6)

    assert len(sizes) >= 40
    assert min(sizes) == 6
    assert max(sizes) == 646


REPLACING = ["open", "write", "fsync", "rename"]
WRITES: list[tuple[str, Callable[[Files, Path], object], list[str]]] = [
    ("replace", lambda files, path: files.replace(path, b"new" * 100), [*REPLACING, "fsync_dir"]),
    ("append", lambda files, path: files.append(path, b"new" * 100, sync=True), ["open", "write", "fsync"]),
    ("cut", lambda files, path: files.cut(path, 0), ["truncate"]),
    ("remove", lambda files, path: files.remove(path), ["unlink"]),
    ("rename", lambda files, path: files.rename(path, path.with_name("x")), ["rename"]),
    ("lock", lambda files, path: files.lock(path), ["open"]),
]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize(
    ("work", "operation"), [pytest.param(work, op, id=f"{name}-{op}") for name, work, ops in WRITES for op in ops]
)
def test_a_full_or_broken_disk_loses_nothing(
    tmp_path: Path, work: Callable[[Files, Path], object], operation: str, code: int
) -> None:
    """interface.md §1: a typed error that names the path and what to do; the old content stands alone."""
    path = tmp_path / "f"
    Files().replace(path, b"old")

    with pytest.raises(Unwritable) as caught:
        work(Files(fault=failing(operation, code), chunk=16), path)

    assert str(path) in caught.value.message
    assert os.strerror(code).lower() in caught.value.message
    assert caught.value.exit == 1
    assert [each.name for each in tmp_path.iterdir()] == ["f"]
    assert Files().read(path) == b"old"


def test_a_partial_append_is_cut_back(tmp_path: Path) -> None:
    """The disk fills up in the middle of a record: the half that was written goes."""
    left = 3

    def fault(operation: str, path: Path) -> None:
        nonlocal left
        left -= operation == "write"
        if not left:
            raise OSError(errno.ENOSPC, "full")

    Files().append(tmp_path / "f", b"old\n", sync=False)
    with pytest.raises(Unwritable, match="df -h"):
        Files(fault=fault, chunk=4).append(tmp_path / "f", b"0123456789abcdef", sync=False)

    assert (tmp_path / "f").read_bytes() == b"old\n"


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    """Someone removed it under the daemon: an error of the tree, not a traceback."""
    with pytest.raises(Unwritable, match="no such file"):
        Files().replace(tmp_path / "gone/f", b"x")


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_an_unreadable_file_is_an_error_not_an_absent_one(tmp_path: Path, code: int) -> None:
    """Taking EIO for absence would make a new, empty file of it."""
    Files().replace(tmp_path / "f", b"x")
    for call in (Files.read, Files.read_config):
        with pytest.raises(Misconfigured, match="cannot be read"):
            call(Files(fault=failing("open", code)), tmp_path / "f")


def test_remove_is_idempotent_and_follows_nothing(tmp_path: Path) -> None:
    """Absent is fine; a link goes, its target stays."""
    (tmp_path / "victim").write_text("x")
    (tmp_path / "f").symlink_to("victim")
    Files().remove(tmp_path / "f")
    Files().remove(tmp_path / "f")

    assert [each.name for each in tmp_path.iterdir()] == ["victim"]


def test_stat_key_changes_with_the_file(tmp_path: Path) -> None:
    """Content, a new file of the same size, and the chmod that mends a refused one all change it."""
    path = tmp_path / "f"
    keys = [Files().stat_key(path)]
    Files().replace(path, b"one")
    keys.append(Files().stat_key(path))
    Files().replace(path, b"two")
    keys.append(Files().stat_key(path))
    path.chmod(0o644)
    keys.append(Files().stat_key(path))

    assert keys[0] is None
    assert len(set(keys)) == 4
    assert Files().stat_key(path) == keys[-1]


# ---- the lock ----


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    """A second holder gets None, after the release the lock."""
    first = Files().lock(tmp_path / "lock")
    assert first is not None
    assert Files().lock(tmp_path / "lock") is None

    first.release()
    first.release()
    second = Files().lock(tmp_path / "lock")
    assert second is not None
    second.release()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A kill -9 leaves no stale lock."""
    code = (
        "import sys, pathlib, time; from vaultd.files import Files; "
        "lock = Files().lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert Files().lock(tmp_path / "lock") is None
        finally:
            holder.kill()
            holder.wait()

    lock = Files().lock(tmp_path / "lock")
    assert lock is not None
    lock.release()


def test_a_removed_lock_file_is_not_a_lock(tmp_path: Path) -> None:
    """A lock on a nameless file excludes nobody: it is taken again on the file that has the name."""
    path = tmp_path / "lock"
    removals = 2

    def fault(operation: str, _: Path) -> None:
        nonlocal removals
        if operation == "flock" and removals:
            removals -= 1
            path.unlink()

    lock = Files(fault=fault).lock(path)
    assert lock is not None
    assert removals == 0
    assert Files().lock(path) is None
    lock.release()


def test_every_refusal_ends_in_a_command(tmp_path: Path) -> None:
    """architecture.md §9: one sentence that ends in what to type."""
    (tmp_path / "a b").write_text("x")
    (tmp_path / "a b").chmod(0o644)
    with pytest.raises(VaultdError) as caught:
        Files().read(tmp_path / "a b")

    assert caught.value.message.endswith(f"run `chmod 600 '{tmp_path}/a b'`.")
