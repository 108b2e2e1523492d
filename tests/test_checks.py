"""Every diagnosis, well and not: the whole message and the remedy (interface.md §2, §3)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from vaultd import checks
from vaultd.checks import Check, Live
from vaultd.engine.audit_chain import line_of
from vaultd.engine.seams import Head, Residence
from vaultd.errors import FileRefused
from vaultd.files import Files
from vaultd.host.peers import Peers, PeerSocket
from vaultd.layout import Layout
from vaultd.lifecycle.holding import Hold
from vaultd.model.credentials import Identity
from vaultd.model.profiles import parse
from vaultd.store.identities import IdentityIndex, IndexEntry

WELL = Live(port=9169, skew_seconds=0.4, locked_reason="", trouble=(), lost_audit_lines=0)
NAMES = ["settings", "permissions", "profiles", "store", "keys", "daemon", "port", "peers", "clock", "audit", "user"]


class Home:
    """A home, its files, and what `vaultd check` says of it."""

    def __init__(self, root: Path) -> None:
        root.chmod(0o700)
        self.root = root
        self.files = Files()
        self.layout = Layout.find({"VAULTD_HOME": str(root / "v")})
        self.files.make_dirs(self.layout)
        self.aws_config = root / "aws-config"
        self.environ = {"AWS_CONFIG_FILE": str(self.aws_config), "HOME": str(root), "VAULTD_STORE": "file"}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.settings(f"[listen]\nport = {self.port}\n")
        self.write(self.aws_config, "[profile a]\nregion = eu-west-1\n")

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)

    def settings(self, text: str) -> None:
        self.write(self.layout.config_toml, text)

    def identity(self, backend: str, *, days: int = 0) -> None:
        then = datetime.now(UTC) - timedelta(days=days)
        identity = Identity("identity", "123456789012", "arn:aws:iam::123456789012:user/franklin", None, "0001", then)
        IdentityIndex(self.files, self.layout.identities_json).save(
            (IndexEntry(identity, str(uuid4()), backend, generation=1),)
        )

    def check(self, name: str, live: Live | None = None) -> Check:
        found = checks.run(self.layout, self.files, self.environ, live=live)
        assert list(dict.fromkeys(each.name for each in found)) == NAMES
        return next(each for each in found if each.name == name)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_old_key_is_a_reminder_and_no_fault(home: Home) -> None:
    """Issue 6: told from 90 days on, with what to type; nothing fails for it, so it is well all the same."""
    home.identity("file", days=89)
    young = home.check("keys")
    home.identity("file", days=90)
    old = home.check("keys")
    home.write(home.layout.identities_json, "[]")
    unread = home.check("keys")

    assert (young.ok, young.remedy) == (True, "")
    assert (old.ok, old.message) == (True, "the key …0001 of identity is at least 90 days old")
    assert old.remedy == "type `vault-client rotate identity`"
    assert (unread.ok, unread.message) == (True, "their age is not known while identities.json cannot be read")


def test_a_home_in_order_is_well(home: Home) -> None:
    """Every check is ok, says what it looked at, and has no remedy; the control of all the tests below."""
    found = checks.run(home.layout, home.files, home.environ, live=replace(WELL, port=home.port))

    assert [(each.name, each.ok, each.remedy) for each in found] == [(name, True, "") for name in NAMES]
    told = {each.name: each.message for each in found}
    assert told["settings"] == f"{home.layout.config_toml} is in order"
    assert told["permissions"] == "files and directories are yours alone"
    assert told["profiles"] == f"{home.aws_config} has 1 profile"
    assert told["store"] == f"the encrypted file {home.layout.secrets_sealed}, 0 identities"
    assert told["daemon"] == "unlocked"
    assert told["port"] == f"127.0.0.1:{home.port} is vaultd's own"
    assert told["clock"] == "within 60 s of AWS"
    assert told["audit"] == "the chain is whole"


def test_settings(home: Home) -> None:
    """An unknown key is named with its line; without a file every default holds; another file is the one looked at."""
    home.settings("[listen]\nprot = 1\n")
    bad = home.check("settings")
    assert not bad.ok
    assert bad.message.startswith(f"{home.layout.config_toml}:2: ")
    assert "prot" in bad.message
    assert bad.remedy == f"edit {home.layout.config_toml}, then type `vaultd check`"

    home.settings('[prompt]\ndrivers = ["desktop"]\n')
    idle = home.check("settings")  # taken, and told that it does nothing yet
    assert idle.ok
    assert idle.message.endswith("; [prompt] drivers is not there yet and changes nothing: remove the line")

    was = "x was changed after vaultd started, which goes by what it said then"
    edited = home.check("settings", replace(WELL, edited=f"{was}: type `vaultd restart`"))
    assert (edited.ok, edited.message, edited.remedy) == (False, was, "type `vaultd restart`")

    other = home.root / "other.toml"
    home.write(other, "")
    assert home.check("settings", replace(WELL, settings_path=other)).message == f"{other} is in order"
    home.layout.config_toml.unlink()
    assert home.check("settings").message == f"no {home.layout.config_toml}: every default holds"


@pytest.mark.parametrize("name", ["grants.json", "audit.jsonl", "vaultd.log", "secrets.seen", "locked"])
def test_permissions_of_files(home: Home, name: str) -> None:
    """A file of ours that others may write to is named, with the command that mends it."""
    path = home.layout.state / name
    home.write(path, "")
    path.chmod(0o666)
    bad = home.check("permissions")

    assert not bad.ok
    assert str(path) in bad.message
    assert bad.remedy == f"run `chmod 600 {path}`"


def test_permissions_of_the_passphrase(home: Home) -> None:
    """One that others may read is named; control: one that they may not."""
    path = home.root / "passphrase"
    home.write(path, "x")
    home.environ["VAULTD_PASSPHRASE_FILE"] = str(path)
    assert home.check("permissions").ok
    path.chmod(0o644)
    bad = home.check("permissions")

    assert (bad.ok, bad.message) == (False, f"{path} is refused because it may be read by others")
    assert bad.remedy == f"run `chmod 600 {path}`"


def test_permissions_of_directories(home: Home) -> None:
    """A directory that others may write to is named."""
    home.layout.state.chmod(0o770)
    bad = home.check("permissions")

    assert (bad.ok, bad.message) == (False, f"{home.layout.state} may be written to by others")
    assert bad.remedy == f"type `chmod 700 {home.layout.state}`"


def test_profiles(home: Home) -> None:
    """No file, no text, a loop: each is said, and where to write."""
    home.write(home.aws_config, f"[profile a]\nsource_profile = b\nrole_arn = {'arn:aws:iam::1:role/x'}\n"
                                "[profile b]\nsource_profile = a\nrole_arn = arn:aws:iam::1:role/x\n")  # fmt: skip
    looped = home.check("profiles")
    assert not looped.ok
    assert looped.message.startswith("~/aws-config:")
    assert looped.remedy == f"edit {home.aws_config}, then type `vaultd check`"
    home.aws_config.unlink()
    missing = home.check("profiles")
    assert (missing.ok, missing.message) == (False, f"there is no {home.aws_config}")
    assert missing.remedy == f"write `[profile NAME]` with role_arn into {home.aws_config}"
    home.aws_config.write_bytes(b"[profile a]\nregion = \xff\n")
    assert home.check("profiles").message.startswith("~/aws-config:2: this is not UTF-8 text")


def test_an_allowed_program_that_is_not_there(home: Home) -> None:
    """It lets nobody in: told with and without a daemon; control: one that is there."""
    home.settings('[profiles.a]\nallow_executables = ["/no/such", "/nor/this"]\n')
    for live in (None, WELL):
        bad = home.check("settings", live)
        said = "[profiles.a] allow_executables lets nobody in by '/no/such', which is not there, and 1 more"
        assert (bad.ok, bad.message) == (False, f"{home.layout.config_toml}: {said}")
        assert bad.remedy == "correct that path, then type `vaultd restart`"
    home.settings('[profiles.a]\nallow_executables = ["/bin/sh"]\n')
    assert home.check("settings").ok


def test_a_table_for_no_profile_protects_nothing(home: Home) -> None:
    """With and without a daemon, with the name that was meant; control: the right name."""
    home.write(home.aws_config, "[profile web-admin]\nregion = eu-west-1\n")
    for live in (None, WELL):
        home.settings("[profiles.web-admn]\nprotected = true\n[profiles.x]\n")
        bad = home.check("profiles", live)
        said = (
            f"{home.layout.config_toml} [profiles.web-admn] names no profile of ~/aws-config, so nothing is done by it"
        )
        assert bad.message == f"{said}, and 1 more"
        assert (bad.ok, bad.remedy) == (
            False,
            "write `[profiles.web-admin]` or remove the table, then type `vaultd restart`",
        )
        home.settings("[profiles.web-admin]\nprotected = true\n")
        assert home.check("profiles", live).ok
    home.write(home.aws_config, "[web-admin]\nregion = eu-west-1\n[profile b]\n")
    home.settings("")
    overlooked = home.check("profiles")
    assert overlooked.message == "~/aws-config:1 [web-admin] is overlooked by the AWS CLI and by vaultd"
    assert overlooked.remedy == "for a profile, write `[profile web-admin]`"


@pytest.mark.parametrize("name", ["profiles", "settings"])
def test_what_others_may_write_to_is_mended_by_its_mode(home: Home, name: str) -> None:
    """The remedy of a refused file is the command that mends it: to edit it would change nothing."""
    path = home.aws_config if name == "profiles" else home.layout.config_toml
    path.chmod(0o666)
    bad = home.check(name)

    assert bad.wire() == {
        "name": name,
        "ok": False,
        "message": f"{path} is refused because it may be written to by others",
        "remedy": f"run `chmod go-w {path}`",
    }


def test_one_is_one(home: Home) -> None:
    """Two are told as two, and one as one."""
    home.write(home.aws_config, "[profile a]\n[profile b]\n")
    assert home.check("profiles").message.endswith(" has 2 profiles")
    home.identity("file")
    home.write(home.layout.secrets_sealed, "")
    assert home.check("store").message.endswith(", 1 identity")
    for number, said in ((1, "1 time"), (2, "2 times")):
        live = replace(WELL, residence=Residence(7, apart=True, dumpable=False, restarts=number))
        keeper = next(
            each for each in checks.run(home.layout, home.files, home.environ, live=live) if each.name == "keeper"
        )
        assert keeper.message.endswith(f", started again {said}")
    assert home.check("audit", replace(WELL, lost_audit_lines=1)).message == "1 line could not be written"


def test_the_store(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that would be used; a missing one that holds keys, and a chosen keyring that is not there, are faults."""
    home.identity("file")
    gone = home.check("store")
    assert (gone.ok, gone.message) == (False, f"{home.layout.secrets_sealed} is missing, and 1 identity is in it")
    assert gone.remedy.startswith("restore it from a backup")
    home.layout.identities_json.unlink()

    monkeypatch.setattr(checks, "first_of", lambda candidates: None)
    home.environ["VAULTD_STORE"] = "keyring"
    none = home.check("store")
    assert (none.ok, none.message, none.remedy) == (
        False, "no OS keyring is reachable here", "type `VAULTD_STORE=file vaultd start`",
    )  # fmt: skip
    del home.environ["VAULTD_STORE"]
    assert home.check("store").message == (
        f"no OS keyring here, so the encrypted file {home.layout.secrets_sealed}, 0 identities"
    )
    monkeypatch.setattr(checks, "first_of", lambda candidates: ("kwallet", object()))
    assert home.check("store").message == "the OS keyring (kwallet), 0 identities"
    home.files.replace(home.layout.identities_json, b"{")
    assert not home.check("store").ok


def test_the_daemon(home: Home) -> None:
    """Locked or in trouble: the reason as it is, and what to type."""
    assert home.check("daemon").message == "not asked: this looked at the files only"
    locked = home.check("daemon", replace(WELL, locked_reason="the keyring is shut: type `vault-client unlock`"))
    assert (locked.ok, locked.message, locked.remedy) == (
        False, "the keyring is shut: type `vault-client unlock`", "type `vault-client unlock`",
    )  # fmt: skip
    trouble = home.check("daemon", replace(WELL, trouble=("the log was cut", "more")))
    assert (trouble.ok, trouble.message, trouble.remedy) == (False, "the log was cut", "type `vaultd logs`")
    own = home.check("daemon", replace(WELL, trouble=("a is wrong: edit b, then type `vaultd restart`.",)))
    assert (own.message, own.remedy) == ("a is wrong", "edit b, then type `vaultd restart`")
    circular = home.check("daemon", replace(WELL, trouble=("a is wrong: see where with `vaultd check`.",)))
    assert (circular.message, circular.remedy) == ("a is wrong", "type `vaultd logs`")


def test_each_trouble_is_a_row(home: Home) -> None:
    """Two sections without their quotes: both are named, each with how to write it; nothing is told as a log's."""
    problems = parse("[profile team prod]\n[profile a b c]\n").problems
    found = checks.run(home.layout, home.files, home.environ, live=replace(WELL, trouble=problems))

    assert [(each.message, each.remedy) for each in found if each.name == "daemon"] == [
        ("config:1 [profile team prod] is overlooked by the AWS CLI and by vaultd",
         'write it with quotes, `[profile "team prod"]`'),
        ("config:2 [profile a b c] is overlooked by the AWS CLI and by vaultd",
         'write it with quotes, `[profile "a b c"]`'),
    ]  # fmt: skip


def test_a_daemon_that_another_run_directory_hides(home: Home, tmp_path: Path) -> None:
    """Named with its pid and the right variable, and its port is not a stranger's; control: none holds the home."""
    there = tmp_path / "r1" / "vaultd"
    there.mkdir(parents=True)
    (there / "control.sock").touch()
    hold = Hold(home.files, replace(home.layout, run=there))
    (there / "endpoint.json").write_text(json.dumps({"port": home.port, "pid": os.getpid()}))
    with socket.create_server(("127.0.0.1", home.port)):
        hidden, port = home.check("daemon"), home.check("port")
    hold.release()
    assert (hidden.ok, hidden.message) == (
        False, f"your vaultd (pid {os.getpid()}) runs with another XDG_RUNTIME_DIR, {tmp_path}/r1",
    )  # fmt: skip
    assert hidden.remedy == f"type `export XDG_RUNTIME_DIR={tmp_path}/r1`, then the same again"
    assert port == Check("port", True, f"127.0.0.1:{home.port} is your vaultd's own (pid {os.getpid()})")
    (home.layout.state / "running.json").unlink()
    assert home.check("daemon").message == "not asked: this looked at the files only"


def test_a_daemon_that_does_not_answer(home: Home) -> None:
    """It holds this very home; `stop` says how to end it."""
    hold = Hold(home.files, home.layout)
    bad = home.check("daemon")
    hold.release()
    assert (bad.ok, bad.message) == (False, f"vaultd (pid {os.getpid()}) runs but does not answer")
    assert bad.remedy == "type `vaultd stop`"


@pytest.mark.needs("root")
def test_root_with_another_users_home(home: Home) -> None:
    """What `vaultd start` says, and nothing of that user's is looked into; control: an own home."""
    home.write(home.layout.identities_json, "{")
    for each in (home.root, *home.root.rglob("*")):
        os.chown(each, 12345, 12345)
    found = checks.run(home.layout, home.files, home.environ)
    assert [each.name for each in found] == NAMES
    assert [each.name for each in found if not each.ok] == ["permissions"]
    bad = found[1]
    with pytest.raises(FileRefused) as refused:
        home.files.make_dirs(home.layout)
    assert refused.value.message == f"{bad.message}: {bad.remedy}."
    assert bad.remedy == "run `vaultd start` as the user with id 12345, without sudo, or with `HOME=/root`"
    assert not [each for each in found if "rm -i" in each.message + each.remedy]


def test_the_port(home: Home) -> None:
    """Free, or taken by whom; without a daemon that answers it is nobody's of ours."""
    assert home.check("port") == Check("port", True, f"127.0.0.1:{home.port} is free")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", home.port))
        taken.listen()
        bad = home.check("port")
    assert not bad.ok
    exe = os.path.realpath(sys.executable)
    assert bad.message == f"127.0.0.1:{home.port} is taken by {exe} (pid {os.getpid()})"
    assert bad.remedy == (
        "write another `[listen] port` into config.toml or end that process, then type `vaultd start`"
    )


@pytest.mark.parametrize(
    ("skew", "message"),
    [(61.0, "clock is 1 minutes ahead of AWS"), (-420.0, "clock is 7 minutes behind AWS")],
)
def test_the_clock(home: Home, skew: float, message: str) -> None:
    """interface.md §6: `clock is N minutes behind|ahead of AWS`, positive when this machine is ahead."""
    bad = home.check("clock", replace(WELL, skew_seconds=skew))

    assert (bad.ok, bad.message) == (False, message)
    assert bad.remedy == "set the clock, or type `timedatectl set-ntp true`"
    assert home.check("clock").message.startswith("not compared with AWS yet; ")


def test_an_audit_log_that_is_gone(home: Home) -> None:
    """Where a key is listed there was a log; control: a new home has none yet."""
    assert home.check("audit").ok
    home.identity("file")
    bad = home.check("audit")
    assert bad.message == f"there is no audit log at {home.layout.audit_jsonl}"
    assert (bad.ok, bad.remedy) == (False, "restore it from a copy, or have another begun with `vaultd start`")
    assert home.check("audit", WELL).ok, "a daemon that runs knows where it ends"


def test_the_audit_log(home: Home) -> None:
    """A line that was changed breaks the chain; lines that were lost are counted."""
    first = line_of({"event": "start"}, after=Head(0, "0" * 64))
    home.files.append(home.layout.audit_jsonl, first + b"\n" + first + b"\n", sync=False)
    bad = home.check("audit")
    assert not bad.ok
    assert bad.remedy == f"keep a copy of {home.layout.audit_jsonl}, then see what is left with `vault-client log`"
    lost = home.check("audit", replace(WELL, lost_audit_lines=3))
    assert (lost.ok, lost.message) == (False, "3 lines could not be written")
    home.layout.audit_jsonl.write_bytes(first + b"\n")
    assert home.check("audit").message.startswith("the chain is whole as far as it goes; ")
    assert home.check("audit", WELL) == Check("audit", True, "the chain is whole")
    seen = home.check(
        "audit", replace(WELL, audit=("The log was rewritten at line 3: see where with `vaultd check`.",))
    )
    assert (seen.ok, seen.message) == (False, "The log was rewritten at line 3")
    cut = home.check("audit", replace(WELL, head=Head(2, "1" * 64)))
    assert (cut.ok, "was cut: it ends with line 1" in cut.message) == (False, True)
    assert lost.remedy == f"free space for {home.layout.audit_jsonl}"


def test_root_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of root would be the same user."""
    said = "run as root: every root process is then the same user; use your own account"
    assert (home.check("user").message == said) == (os.geteuid() == 0)


@pytest.mark.process
def test_check_without_a_daemon_makes_nothing(tmp_path: Path) -> None:
    """`vaultd check --json` on an empty home: every check, exit 1 as there is no profile, and not one file."""
    env = {"HOME": str(tmp_path), "VAULTD_HOME": str(tmp_path / "v"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-I", "-m", "vaultd", "check"]
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)["checks"]
    assert [each["name"] for each in found] == NAMES
    assert {frozenset(each) for each in found} == {frozenset({"name", "ok", "message", "remedy"})}
    # Port 9169 is the machine's, and may be another test's just now.
    assert {each["name"] for each in found if not each["ok"]} - {"port"} == {"profiles"}
    assert list(tmp_path.iterdir()) == []

    people = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert f"BAD  profiles     there is no {tmp_path}/.aws/config\n" in people.stdout
    assert "→ write `[profile NAME]`" in people.stdout


def test_a_kernel_that_does_not_say_whose_a_socket_is() -> None:
    """Everybody would be refused, and nobody knew why; control: this kernel tells."""

    class Silent(Peers):
        def uid_of(self, local: tuple[str, int], remote: tuple[str, int]) -> PeerSocket | None:
            return None

    assert checks.attestation(Peers()) == Check("peers", True, "the kernel says whose a connection is")
    assert checks.attestation(Silent()) == Check(
        "peers",
        False,
        "the kernel does not say whose a connection is, so the endpoint refuses every client",
        "load the module with `sudo modprobe tcp_diag`, or use Linux",
    )
