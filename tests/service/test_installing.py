"""`vaultd service` without a service manager that answers: what is written, shown, refused; and both supervisors."""

from __future__ import annotations

import argparse
import errno
import os
import plistlib
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vaultd.command import by_unit, installing, own_unit, service
from vaultd.command.installing import Wanted
from vaultd.errors import FileRefused, Misconfigured, Unwritable, VaultdError
from vaultd.host.clock import SystemClock
from vaultd.host.supervisors import Launchd, Ran, Systemd, command

Capture = pytest.CaptureFixture[str]


@dataclass
class Manager:
    """systemctl or launchctl: answers by the words, 1 where nothing was agreed."""

    answers: dict[str, Ran] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, words: tuple[str, ...]) -> Ran:
        line = " ".join(words)
        self.asked.append(line)
        found = (answer for start, answer in self.answers.items() if line.startswith(start))
        return next(found, Ran(1, "", "Failed to connect to bus: No such file or directory"))


@dataclass
class Place:
    """A home of a user, for `install`."""

    path: Path
    manager: Manager = field(default_factory=Manager)
    platform: str = "linux"
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.path / "home"), "XDG_RUNTIME_DIR": str(self.path / "run"), **self.extra}

    @property
    def units(self) -> Path:
        return own_unit.folder(self.environ, platform=self.platform)

    def wanted(self, **more: Any) -> Wanted:
        machine = service.Machine(environ=self.environ, platform=self.platform, python="/usr/bin/python3")
        return Wanted(machine=machine, run=self.manager, **more)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """No daemon answers, whatever runs here."""
    made = Place(tmp_path)
    for name in ("home", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    for name in [name for name in os.environ if name.startswith(("VAULTD_", "XDG_"))]:
        monkeypatch.delenv(name)
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    return made


def test_what_is_written_is_shown(place: Place, capsys: Capture) -> None:
    """Both units, 0600, for this home and port; without a systemd that answers the commands are printed."""
    assert installing.install(place.wanted()) == 0
    said = capsys.readouterr().out

    for name in ("vaultd.socket", "vaultd.service"):
        path = place.units / name
        assert f"# ---- {path}\n{path.read_text()}" in said
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = (place.units / "vaultd.socket").read_text()
    assert f"\nListenStream=127.0.0.1:9169\nListenStream={place.path}/run/vaultd/control.sock\n" in text
    assert (
        "\nExecStart=:/usr/bin/python3 -I -m vaultd start --foreground\n"
        in (place.units / "vaultd.service").read_text()
    )
    assert "@" not in text.replace("@…@", "")
    assert said.endswith("systemctl --user enable --now vaultd.socket\n")


def test_an_install_again_changes_nothing(place: Place, capsys: Capture) -> None:
    """Idempotent: not a file is touched; other settings replace what nobody has changed."""
    installing.install(place.wanted(strict=True))
    before = {path: path.stat().st_mtime_ns for path in place.units.rglob("*") if path.is_file()}
    installing.install(place.wanted(strict=True))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) == 3
    assert "warning: with --strict vaultd cannot see which program a client is" in capsys.readouterr().out

    (place.path / "home/.config/vaultd/config.toml").write_text("[listen]\nport = 9170\n")
    installing.install(place.wanted())
    assert "127.0.0.1:9170" in (place.units / "vaultd.socket").read_text()
    assert "strict.conf, which nobody asked for this time" in capsys.readouterr().out
    assert not (place.units / "vaultd.service.d/strict.conf").exists()


@pytest.mark.parametrize("act", [installing.install, installing.uninstall])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text + "Nice=5\n", "was changed since"),
        (lambda _: "[Unit]\nDescription=mine\n", "is not vaultd's"),
    ],
)
def test_what_is_somebodys_is_named_and_left_alone(
    place: Place, act: Callable[[Wanted], int], spoil: Callable[[str], str], why: str, capsys: Capture
) -> None:
    """A unit that was edited, or that came from elsewhere: neither replaced nor removed, and nothing else is."""
    installing.install(place.wanted())
    path = place.units / "vaultd.service"
    path.write_text(mine := spoil(path.read_text()))
    socket = (place.units / "vaultd.socket").read_text()
    capsys.readouterr()
    (place.path / "home/.config/vaultd/config.toml").write_text("[listen]\nport = 9170\n")

    with pytest.raises(FileRefused, match=why) as refused:
        act(place.wanted())
    assert str(path) in refused.value.message
    assert refused.value.message.endswith("then type the same again")
    assert path.read_text() == mine
    assert (place.units / "vaultd.socket").read_text() == socket
    installing.status(place.wanted())
    assert (
        f"{path}: {'changed since it was' if 'changed' in why else 'not written by vaultd'}" in capsys.readouterr().out
    )


def test_a_link_in_the_place_of_a_unit_is_not_written_through(place: Place) -> None:
    """interface.md §1: a file of ours that is another's is refused by name; the target stays as it was."""
    target = place.path / "target"
    target.write_text("[Unit]\n")
    target.chmod(0o600)
    place.units.mkdir(parents=True)
    (place.units / "vaultd.service").symlink_to(target)

    with pytest.raises(FileRefused, match=r"vaultd\.service"):
        installing.install(place.wanted())
    assert target.read_text() == "[Unit]\n"


def test_the_units_of_another_home_are_not_taken_over(place: Place, capsys: Capture) -> None:
    """A user has the units once; start and stop of another home do not see them."""
    installing.install(place.wanted())
    assert own_unit.find(place.environ, platform="linux", run=place.manager) is not None
    place.extra["VAULTD_HOME"] = str(place.path / "other")

    assert own_unit.find(place.environ, platform="linux", run=place.manager) is None
    with pytest.raises(Unwritable, match=r"^the units in .* are for another home of vaultd"):
        installing.install(place.wanted())
    assert installing.status(place.wanted()) == 0
    assert "for another home of vaultd" in capsys.readouterr().out


def test_what_the_daemon_would_have_read_of_the_shell_is_in_the_unit(place: Place, capsys: Capture) -> None:
    """The contract's variables, quoted; no key, no password; a passphrase file as a credential, never as text."""
    passphrase = place.path / "pass 100%"
    passphrase.write_text("s3cret\n")
    passphrase.chmod(0o600)
    place.extra |= {
        "AWS_CONFIG_FILE": "/a b/config",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
        "AWS_SECRET_ACCESS_KEY": "canary-key",
        "HTTPS_PROXY": "http://me:canary-password@proxy:1",
        "AWS_ENDPOINT_URL": "http://canary-token@127.0.0.1:1",
        "NO_PROXY": "localhost",
        "VAULTD_PASSPHRASE_FILE": str(passphrase),
        "PYTHONPATH": "/canary-path",
    }
    installing.install(place.wanted())
    text = (place.units / "vaultd.service").read_text()
    said = capsys.readouterr().out

    assert '\nEnvironment="AWS_CONFIG_FILE=/a b/config"\n' in text
    assert "\nEnvironment=AWS_ENDPOINT_URL_STS=http://127.0.0.1:1\n" in text
    assert "\nEnvironment=NO_PROXY=localhost\n" in text
    assert f"\nLoadCredential=vaultd-passphrase:{place.path}/pass 100%%\n" in text
    assert "canary" not in text + said
    assert "s3cret" not in text + said
    assert "warning: HTTPS_PROXY holds a password and was not written into a unit" in said


def test_nothing_is_made_where_others_may_write(place: Place) -> None:
    """A home whose ~/.config another user may change is refused before a directory is made in it; a umask of 0 opens
    none of those that are.
    """
    config = place.path / "home/.config"
    place.extra["VAULTD_HOME"] = str(place.path / "own")
    config.mkdir()
    config.chmod(0o777)
    with pytest.raises(FileRefused, match="may be written to by others"):
        installing.install(place.wanted())
    assert list(config.iterdir()) == []

    config.chmod(0o755)
    before = os.umask(0)
    try:
        assert installing.install(place.wanted()) == 0
    finally:
        os.umask(before)
    assert {stat.S_IMODE(each.stat().st_mode) for each in config.rglob("*") if each.is_dir()} == {0o700}


def test_a_directory_that_cannot_be_made_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.config closed to its owner (as the kernel says it to anybody but root), a link to nothing, a file."""
    place.extra["VAULTD_HOME"] = str(place.path / "own")
    config, real = place.path / "home/.config", os.mkdir
    config.mkdir(mode=0o700)

    def mkdir(path: str, *args: Any, **more: Any) -> None:
        if Path(path).name == "systemd":
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path, *args, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    said = f"{place.units} cannot be made (permission denied): type `chmod u+rwx {config}`, then the same again"
    with pytest.raises(Unwritable) as closed:
        installing.install(place.wanted())
    assert closed.value.message == said
    monkeypatch.undo()

    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    config.rmdir()
    config.symlink_to("nothing")
    with pytest.raises(Unwritable) as dangling:
        installing.install(place.wanted())
    assert dangling.value.message == (
        f"{place.units} cannot be made ({config} is a link to nothing): run `ls -l {config}`, make what that link "
        "names, then type the same again"
    )
    config.unlink()
    config.touch()
    with pytest.raises(VaultdError, match=str(config)):
        installing.install(place.wanted())
    config.unlink()
    assert installing.install(place.wanted()) == 0, "control"


@pytest.mark.parametrize("home", ["", "rel", "./rel"])
@pytest.mark.parametrize("action", ["install", "uninstall", "status"])
def test_a_home_that_is_no_full_path_is_refused(place: Place, home: str, action: str) -> None:
    """VAULTD_HOME does not say where units are looked for; control: XDG_CONFIG_HOME does, and so does no HOME."""
    place.extra |= {"VAULTD_HOME": str(place.path / "own"), "HOME": home}
    with pytest.raises(Misconfigured, match=r"^HOME is no full path \('.*'\), .* type `export HOME=/.*`, then"):
        installing.run(action, place.wanted())
    place.extra["XDG_CONFIG_HOME"] = str(place.path / "config")
    assert installing.run(action, place.wanted()) == (1 if action == "status" else 0)


def test_an_uninstall_without_a_service_manager(place: Place, capsys: Capture) -> None:
    """No socket was closed by it, so none is said to be; control: one that answers."""
    for answers in ({}, {"systemctl": Ran(0, "ActiveState=active\n", "")}):
        place.manager.answers = {}
        installing.install(place.wanted())
        place.manager.answers = answers
        capsys.readouterr()
        assert installing.uninstall(place.wanted()) == 0
        said = capsys.readouterr().out.splitlines()[-1]
        assert said.startswith("its sockets are closed: " if answers else "systemd does not run for you here, so none ")
        assert said.endswith(": type `vaultd start` to run vaultd without units")


def test_what_would_keep_the_daemon_from_starting_is_told_before_anything_is_written(place: Place) -> None:
    """Settings, passphrase file, login."""
    place.extra["VAULTD_PASSPHRASE_FILE"] = str(place.path / "none")
    with pytest.raises(Misconfigured, match="is not there"):
        installing.install(place.wanted())
    del place.extra["VAULTD_PASSPHRASE_FILE"]
    place.extra["XDG_RUNTIME_DIR"] = ""
    with pytest.raises(Misconfigured, match="XDG_RUNTIME_DIR is not set"):
        installing.install(place.wanted())
    del place.extra["XDG_RUNTIME_DIR"]
    (place.path / "home/.config/vaultd").mkdir(parents=True, exist_ok=True)
    (place.path / "home/.config/vaultd/config.toml").write_text("[listen]\nprt = 1\n")
    with pytest.raises(Misconfigured, match="prt"):
        installing.install(place.wanted())
    assert not place.units.exists()


def test_nothing_installed(place: Place, capsys: Capture) -> None:
    """Status 1, uninstall 0, and no service manager is asked."""
    assert (installing.status(place.wanted()), installing.uninstall(place.wanted())) == (1, 0)
    assert capsys.readouterr().out == (
        "no units of vaultd are installed: type `vaultd service install`\nno units of vaultd are installed\n"
    )
    assert place.manager.asked == []


def test_the_agent_of_a_mac(place: Place, capsys: Capture) -> None:
    """The plist for both sockets; bootstrapped where launchd answers, else said what to type. Not run on a Mac."""
    place.platform = "darwin"
    place.manager.answers = {
        "launchctl print gui/501/vaultd": Ran(113, "", "Could not find service"),
        "launchctl": Ran(0, "", ""),
    }
    assert installing.install(place.wanted()) == 0
    path = place.path / "home/Library/LaunchAgents/vaultd.plist"
    found = plistlib.loads(path.read_bytes())
    control = place.path / "home/Library/Caches/vaultd/control.sock"

    assert found["Sockets"]["control"]["SockPathName"] == str(control)
    assert own_unit.bound(place.environ, platform="darwin") == (9169, str(control))
    assert place.manager.asked[0].startswith("launchctl print gui/")
    assert any(f" {path}" in each and " bootstrap " in each for each in place.manager.asked)
    assert "launchd listens for vaultd now" in capsys.readouterr().out
    with pytest.raises(Misconfigured, match="leave it out"):
        installing.install(place.wanted(strict=True))
    assert installing.uninstall(place.wanted()) == 0
    assert not path.exists()


# ---- the supervisors ----


def test_systemd_tells_the_daemons_own_reason() -> None:
    """STATUS= of a daemon that did not start is the sentence, and its exit status the command's."""
    manager = Manager({
        "systemctl --user start": Ran(1, "", "Job for vaultd.service failed."),
        "systemctl --user show vaultd.service": Ran(0, "StatusText=config.toml:3 is wrong\nExecMainStatus=78\n", ""),
        "systemctl --user show vaultd.socket": Ran(0, "ActiveState=active\n", ""),
    })  # fmt: skip
    with pytest.raises(Unwritable) as failed:
        Systemd(manager).start()
    assert (failed.value.message, failed.value.details["exit"]) == ("config.toml:3 is wrong", 78)
    manager.answers["systemctl --user show vaultd.service"] = Ran(0, "Result=exit-code\n", "")
    with pytest.raises(Unwritable, match=r"journalctl --user -n 20 -u vaultd.service`$"):
        Systemd(manager).start()
    manager.answers["systemctl --user show vaultd.socket"] = Ran(0, "ActiveState=failed\nResult=resources\n", "")
    with pytest.raises(Unwritable, match="cannot open the sockets"):
        Systemd(manager).start()


def test_options_of_one_start_are_taken_back() -> None:
    """They are in the manager's environment for that start alone, also when it fails."""
    manager = Manager({"systemctl --user set-environment": Ran(0, "", ""), "systemctl --user show": Ran(0, "", "")})
    with pytest.raises(Unwritable):
        Systemd(manager).start(["debug", "accept-rollback"])

    said, _, until = manager.asked[0].partition("@")
    assert said == "systemctl --user set-environment VAULTD_ONCE=debug,accept-rollback"
    assert manager.asked[2] == "systemctl --user unset-environment VAULTD_ONCE"
    assert by_unit.given_once(f"debug,accept-rollback@{until}") == {"debug", "accept-rollback"}
    assert by_unit.given_once(f"port=1,,foreground@{until}") == set()


@pytest.mark.parametrize("until", ["", "@", "@x", "@-1", "@0", "@99999999999999", "@{past}"])
def test_a_consent_that_was_left_behind_is_none(until: str) -> None:
    """A terminal that is closed under `vaultd restart --accept-rollback` takes nothing back: later starts of that login
    do not take an older store for it.
    """
    past = int(SystemClock().boottime()) - 2
    assert by_unit.given_once(f"accept-rollback{until.format(past=past)}") == set()
    assert by_unit.given_once(f"accept-rollback@{past + 60}") == {"accept-rollback"}, "positive control"


def test_launchd_is_asked_in_its_own_words() -> None:
    """The sequence of launchctl(1): bootstrap before kickstart, bootout to close the sockets."""
    loaded = Manager({"launchctl": Ran(0, "state = running\n\tpid = 4711\n", "")})
    agent = Launchd(loaded, Path("/h/vaultd.plist"), uid=501)
    assert (agent.answers(), agent.listens(), agent.pid()) == (True, True, 4711)
    agent.restart(sockets=False)
    agent.stop()
    assert loaded.asked[-3:] == [
        "launchctl kickstart -k gui/501/vaultd", "launchctl print gui/501/vaultd", "launchctl bootout gui/501/vaultd",
    ]  # fmt: skip
    away = Manager({"launchctl print": Ran(113, "", ""), "launchctl": Ran(0, "", "")})
    agent = Launchd(away, Path("/h/vaultd.plist"), uid=501)
    assert (agent.answers(), agent.listens(), agent.pid()) == (False, False, None)
    agent.start()
    assert away.asked[-2:] == ["launchctl bootstrap gui/501 /h/vaultd.plist", "launchctl kickstart gui/501/vaultd"]
    with pytest.raises(Unwritable, match="no options for one start"):
        agent.start(["debug"])


def test_a_command_that_is_not_there_is_told() -> None:
    """127, as a shell has it; a machine without systemd is no reason for a traceback."""
    assert command({"PATH": "/usr/bin:/bin"})(("/nowhere/systemctl", "x")).status == 127
    assert command({"PATH": "/usr/bin:/bin"})(("sh", "-c", "echo out; exit 3")) == Ran(3, "out\n", "")


def test_a_port_of_one_start_is_refused() -> None:
    """The unit listens already: the sentence says where the port is written."""
    unit = own_unit.OwnUnit("vaultd.socket", 9169, "/run/c", Systemd(Manager()))
    options = argparse.Namespace(port=9170, config=None, debug=False, accept_rollback=False)
    with pytest.raises(Misconfigured, match=r"listens on port 9169: write `port = 9170`"):
        by_unit.once(unit, options)
    options.port, options.config = 9169, Path("/x.toml")
    with pytest.raises(Misconfigured, match=r"install --config /x\.toml`"):
        by_unit.once(unit, options)
    options.config, options.debug = None, True
    assert by_unit.once(unit, options) == ["debug"]
