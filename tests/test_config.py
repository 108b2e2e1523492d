"""Rules of config.py."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from vaultd import config_refusal
from vaultd.config import Aws, ProfileSettings, Prompt, Settings, load_for, load_settings
from vaultd.errors import Misconfigured

# interface.md §7, with every key that it names
WHOLE = """\
[listen]
port = 9170
[aws]
config_file = "~/.aws/other"
sts_region_fallback = "eu-west-1"
endpoint_allow = ["STS.corp.example", "localhost:5000", "[::1]:80"]
https_proxy = "http://proxy:3128"
no_proxy = "x"
ca_bundle = "/x.pem"
[sessions]
mfa_duration = "36h"
persist = false
role_session_name = "{iam_user}@{profile}"
[store]
backend = "file"
lock_after_idle = "never"
lock_on_suspend = false
lock_on_screen_lock = false
[prompt]
drivers = ["terminal"]
timeout = "60s"
cancel_cooldown = "5m"
hold = "off"
hold_max = "10s"
[grants]
max_age = "1d"
idle_timeout = "1h"
[audit]
max_bytes = 1000000
keep = 2
[identities."team prod"]
mfa_serial = "arn:aws:iam::123456789012:mfa/franklin"
mfa_process = "/bin/x"
region = "us-gov-west-1"
[profiles.web-admin]
protected = false
mfa_max_age = "1h"
run_executables = ["/usr/bin/x"]
relays = []
"""


def message(text: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        load_settings(text, path="config.toml")
    assert caught.value.exit == 78
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_absent_file_means_the_contracts_defaults() -> None:
    """interface.md §7; and keys are in a process of their own, as long as its price is what issue 5 allows."""
    found = load_settings("", path="config.toml")
    assert found == Settings()
    assert found.keeper.process
    assert found.listen.port == 9169
    assert found.aws.endpoint_allow == ()
    assert found.sessions.mfa_duration == timedelta(hours=12)
    assert (found.sessions.persist, found.sessions.role_session_name) == (True, "{iam_user}")
    assert (found.store.backend, found.store.lock_after_idle) == ("auto", None)
    assert (found.store.lock_on_suspend, found.store.lock_on_screen_lock) == (False, False)
    assert (found.prompt.drivers, found.prompt.hold) == (("auto",), "auto")
    assert (found.prompt.timeout, found.prompt.cancel_cooldown) == (timedelta(seconds=120), timedelta(seconds=120))
    assert found.prompt.hold_max == timedelta(seconds=100)
    assert (found.grants.max_age, found.grants.idle_timeout) == (timedelta(days=7), timedelta(hours=24))


def test_every_key_of_the_contract_parses() -> None:
    """Those of later issues too, where they ask for nothing that is not there."""
    found = load_settings(WHOLE, path="config.toml")
    assert found.aws.endpoint_allow == ("sts.corp.example", "localhost:5000", "[::1]:80")
    assert found.sessions.mfa_duration == timedelta(hours=36)
    assert found.store.lock_after_idle is None
    assert found.grants.max_age == timedelta(days=1)
    assert found.identities["team prod"].region == "us-gov-west-1"
    assert found.profiles["web-admin"].mfa_max_age == timedelta(hours=1)
    assert found.profiles["web-admin"].run_executables == ("/usr/bin/x",)


def test_what_locks_is_taken() -> None:
    """[store] lock_after_idle, lock_on_suspend and lock_on_screen_lock do what they say: none is a notice."""
    text = '[store]\nlock_after_idle = "30m"\nlock_on_suspend = true\nlock_on_screen_lock = true\n'
    found = load_settings(text, path="config.toml")
    assert (found.store.lock_after_idle, found.notices) == (timedelta(minutes=30), ())
    assert (found.store.lock_on_suspend, found.store.lock_on_screen_lock) == (True, True)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ('[prompt]\ndrivers = ["desktop"]', "[prompt] drivers"),
        ('[identities.a]\nmfa_process = "/bin/x"', "[identities.a] mfa_process"),
        ('[profiles.p]\nrun_executables = ["/bin/x"]', "[profiles.p] run_executables"),
    ],
)
def test_what_is_harmless_and_not_there_is_a_notice(text: str, spelled: str) -> None:
    """Taken, and told; what holds anyway (a terminal asks) is neither."""
    found = load_settings(text, path="config.toml")
    assert found.notices == (f"{spelled} is not there yet and changes nothing: remove the line",)
    assert load_settings('[prompt]\nhold = "off"\nhold_max = "9s"\ndrivers = ["terminal"]', path="c").notices == ()
    assert Settings().notices == ()


def test_settings_are_frozen() -> None:
    """Shared by every room: nobody changes them."""
    with pytest.raises(ValidationError):
        Settings().listen.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[listn]\nport = 1\n", "config.toml:1: [listn] is not a known key; write listen"),
        ("[listen]\n\n# x\nprot = 1\n", "config.toml:4: [listen] prot is not a known key; write port"),
        ("listen.prot = 1\n", "config.toml:1: [listen] prot is not a known key; write port"),
        (
            "[sessions]\nzzz = 1\n",
            "config.toml:2: [sessions] zzz is not a known key; write one of mfa_duration, persist, role_session_name",
        ),
        (
            '[profiles.a]\n[profiles."b c"]\nprotectd = true\n',
            "config.toml:3: [profiles.b c] protectd is not a known key; write protected",
        ),
        (
            "[identities]\nx = { mfa_serail = 'y' }\n",
            "config.toml:2: [identities.x] mfa_serail is not a known key; write mfa_serial",
        ),
        ('[listen]\nport = "9169"\n', "config.toml:2: [listen] port is refused: write a whole number"),
        ("[listen]\nport = 65536\n", "config.toml:2: [listen] port is refused: write less than or equal to 65535"),
        ("[sessions]\npersist = 1\n", "config.toml:2: [sessions] persist is refused: write true or false"),
        ("[aws]\nca_bundle = 1\n", "config.toml:2: [aws] ca_bundle is refused: write text in quotes"),
        ('[prompt]\ndrivers = "auto"\n', 'config.toml:2: [prompt] drivers is refused: write a list such as ["auto"]'),
        (
            '[store]\nbackend = "kering"\n',
            "config.toml:2: [store] backend is refused: write 'auto', 'keyring' or 'file'",
        ),
        ("port = 1\n", "config.toml:1: port is not a known key outside a table; did you mean `[listen] port`?"),
        ("[aws]\nport = 1\n", "config.toml:2: [aws] port is not a known key; did you mean `[listen] port`?"),
        (
            "[profiles.a]\nregion = 'eu-west-1'\n",
            "config.toml:2: [profiles.a] region is not a known key; did you mean `[identities.NAME] region`?",
        ),
        ("[port]\nx = 1\n", "config.toml:1: [port] is not a known key; write "),
        ("listen = 3\n", "config.toml:1: [listen] is refused: write it as a table of its own"),
        (
            '[grants]\nmax_age = "7d"\nidle_timeout = 86400\n',
            'config.toml:3: [grants] idle_timeout is refused: a duration is a number and its unit; write "90s", "30m"',
        ),
        (
            "[store]\nlock_after_idle = 30\n",
            'a duration is a number and its unit; write "90s", "30m", "12h" or "7d", or "never"',
        ),
        ('[prompt]\ntimeout = "0s"\n', 'refused: write a duration above zero, such as "30s"'),
        ('[prompt]\ntimeout = "never"\n', "refused: a duration is a number and its unit"),
        ('[sessions]\nmfa_duration = "5m"\n', 'GetSessionToken takes 15 minutes to 36 hours; write "15m" to "36h"'),
        (
            '[sessions]\nrole_session_name = "{user}"\n',
            'it knows {iam_user}, {identity} and {profile}; write "{iam_user}"',
        ),
        ('[aws]\nsts_region_fallback = "Ireland"\n', 'it is not a region; write one such as "eu-west-1"'),
        ('[aws]\nendpoint_allow = ["https://x"]\n', "it takes hosts without scheme or path; write"),
        ("[listen]\nport = = 3\n", "config.toml:2: this is not TOML (Invalid value); write lines such as"),
        ("[listen]\nport = 1\nport = 2\n", "config.toml:3: this is not TOML (Cannot overwrite a value); write lines"),
        ("[listen", "config.toml:1: this is not TOML"),
    ],
)
def test_bad_settings_are_named(text: str, expected: str) -> None:
    """78 with file:line, the key, and what to write; for an unknown key the nearest known one."""
    assert expected in message(text)


@pytest.mark.parametrize("length", ["3651d", "87601h", "99999999d", "999999999d", "9999999999999999999d"])
@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("prompt", "timeout"),
        ("prompt", "cancel_cooldown"),
        ("grants", "max_age"),
        ("grants", "idle_timeout"),
        ("profiles.a", "mfa_max_age"),
        ("store", "lock_after_idle"),
    ],
)
def test_no_duration_is_longer_than_ten_years(table: str, key: str, length: str) -> None:
    """At its line, where a date would overflow later; control: ten years are taken, and so are leading zeros."""
    said = f'config.toml:3: [{table}] {key} is refused: it is longer than 3650 days; write "3650d" or less'
    assert message(f'\n[{table}]\n{key} = "{length}"\n').startswith(said)
    if table != "store":  # a lock that is not there yet is refused for that
        load_settings(f'[{table}]\n{key} = "3650d"\n', path="c")
        load_settings(f'[{table}]\n{key} = "0000000000003650d"\n', path="c")


@pytest.mark.parametrize("length", ["999ms", "0s", "121s", "3m", "1h", "9999999999999999999d"])
def test_a_hold_is_one_to_120_seconds(length: str) -> None:
    """No client was seen to bear more (sdk-facts §10.8), and less is no hold: 78 at its line, naming the key."""
    said = message(f'\n[prompt]\nhold_max = "{length}"\n')
    assert said.startswith("config.toml:3: [prompt] hold_max is refused: ")
    for good, seconds in (("1s", 1), ("2m", 120), ("120s", 120)):
        found = load_settings(f'[prompt]\nhold_max = "{good}"\n', path="c")
        assert found.prompt.hold_max == timedelta(seconds=seconds)


@pytest.mark.parametrize("hold", ["auto", "off", "always"])
def test_hold_is_one_of_three(hold: str) -> None:
    """Taken as it is said, without a notice; another word is 78 and hears the three."""
    found = load_settings(f'[prompt]\nhold = "{hold}"\n', path="c")
    assert (found.prompt.hold, found.notices) == (hold, ())
    assert message('[prompt]\nhold = "on"\n').startswith("config.toml:2: [prompt] hold is refused: write 'auto', 'off'")


def test_an_mfa_duration_of_any_size_is_one_sentence() -> None:
    """Its own limit is far below."""
    assert 'write "15m" to "36h"' in message('[sessions]\nmfa_duration = "99999999999d"\n')


PROXY = 'it takes http://HOST[:PORT] or https://HOST[:PORT]; write "http://proxy.example:3128"'


@pytest.mark.parametrize(
    "url",
    [
        "proxy:3128", "proxy", "ftp://proxy:1", "socks5://proxy:1", "http://", "http://:3128", "http://proxy:0",
        "http://proxy:65536", "http://proxy:x", "http://proxy:1/path", "http://proxy:1?q", "http://pro xy:1",
    ],
)  # fmt: skip
def test_a_proxy_is_a_url_of_a_host(url: str) -> None:
    """Named at its line, or with the variable of the environment; what may hold a password is not repeated."""
    assert message(f'[aws]\nhttps_proxy = "{url}"\n') == f"config.toml:2: [aws] https_proxy is refused: {PROXY}"
    for name in ("HTTPS_PROXY", "https_proxy"):
        with pytest.raises(Misconfigured) as caught:
            Settings().with_environment({name: url})
        assert caught.value.message == f"{name} in the environment is refused: {PROXY}, or type `unset {name}`"
        assert Settings(aws=Aws(https_proxy="http://p")).with_environment({name: url}).aws.https_proxy == "http://p"


@pytest.mark.parametrize(
    "url", ["http://p", "https://p:1", "http://p:65535/", "http://u:pw@[::1]:3128", "http://1.2.3.4"]
)
def test_proxies_that_are_taken(url: str) -> None:
    """Control."""
    assert load_settings(f'[aws]\nhttps_proxy = "{url}"\n', path="c").aws.https_proxy == url


def test_a_ca_bundle_is_read_at_the_start(tmp_path: Path) -> None:
    """One that gives nothing is named with its line or its variable; the file goes before the variable."""
    there, gone = tmp_path / "ca.pem", tmp_path / "gone.pem"
    there.write_text("x")
    text = f'[aws]\n\nca_bundle = "{gone}"\n'
    end = f" is refused: {str(gone)!r} is not there; write the full path of a PEM file"
    for content, environ, where in (
        (text, {"AWS_CA_BUNDLE": str(there)}, "config.toml:3: [aws] ca_bundle"),
        ("", {"AWS_CA_BUNDLE": str(gone)}, "AWS_CA_BUNDLE in the environment"),
    ):
        with pytest.raises(Misconfigured) as caught:
            load_for(content, environ, path="config.toml")
        assert (caught.value.message, caught.value.exit) == (where + end, 78)
    with pytest.raises(Misconfigured, match="is not a file; write the full path"):
        load_for("", {"AWS_CA_BUNDLE": str(tmp_path)}, path="config.toml")
    assert load_for("", {"AWS_CA_BUNDLE": str(there)}, path="config.toml").aws.ca_bundle == str(there)
    assert load_for("", {}, path="config.toml") == Settings()


@given(st.integers(1, 3650), st.sampled_from("smhd"))
def test_durations(number: int, unit: str) -> None:
    """`Ns|Nm|Nh|Nd`; a bare number is 78 whatever its size."""
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    found = load_settings(f'[grants]\nmax_age = "{number}{unit}"\n', path="c")
    assert found.grants.max_age == timedelta(seconds=seconds)
    for bad in (str(number), f'"{number}"', f'"{number} {unit}"', f'"-{number}{unit}"', f'"{number}{unit.upper()}"'):
        with pytest.raises(Misconfigured, match="a duration is a number and its unit"):
            load_settings(f"[grants]\nmax_age = {bad}\n", path="c")


@given(st.text(max_size=60))
def test_any_text_is_settings_or_one_sentence(text: str) -> None:
    """No other error, whatever the file holds."""
    try:
        load_settings(text, path="config.toml")
    except Misconfigured as exc:
        said = exc.message
    else:
        return
    assert said.startswith("config.toml:")


def test_the_environment_of_the_start() -> None:
    """Proxy and CA from the environment where the file says none; VAULTD_STORE over the file."""
    environ = {"https_proxy": "http://p:1", "NO_PROXY": "n", "AWS_CA_BUNDLE": "/env.pem", "VAULTD_STORE": "keyring"}
    plain = Settings().with_environment(environ)
    assert (plain.aws.https_proxy, plain.aws.no_proxy, plain.aws.ca_bundle) == ("http://p:1", "n", "/env.pem")
    whole = load_settings(WHOLE, path="c").with_environment(environ)
    assert (whole.aws.https_proxy, whole.aws.ca_bundle, whole.store.backend) == (
        "http://proxy:3128",
        "/x.pem",
        "keyring",
    )
    assert Settings().with_environment({}) == Settings()
    with pytest.raises(Misconfigured, match=r"VAULTD_STORE='vault' is no store: set VAULTD_STORE=file"):
        Settings().with_environment({"VAULTD_STORE": "vault"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('relays = ["ssh", "vm"]', "entry 2, is refused: 'vm' is no relay that vaultd knows; write one of ssh, sshd, "),
        (
            'allow_executables = ["/a", "terraform"]',
            "entry 2, is refused: 'terraform' is no full path; write one such as \"/usr/bin/terraform\"",
        ),
        ('allow_executables = ["/usr/bin/\\u0000"]', "entry 1, is refused: '/usr/bin/"),
        ('allow_executables = ["/a", 1]', "allow_executables, entry 2, is refused: write text in quotes"),
        ('allow_executables = "/usr/bin/aws"', 'is refused: write a list such as ["/usr/bin/terraform"]'),
        ('relays = "ssh"', 'is refused: write a list such as ["ssh"]'),
        ("protected = 1", "[profiles.p] protected"),
    ],
)
def test_policies_that_would_mean_nothing_are_refused(line: str, expected: str) -> None:
    """A relay that is none and a program without its path would shut or open nothing."""
    assert expected in message(f"[profiles.p]\n{line}\n")


def test_policies() -> None:
    """None given: everybody of this user but relays."""
    found = load_settings(
        '[profiles.p]\nprotected = true\nrelays = ["socat"]\nallow_executables = ["/usr/bin/x", "~/y"]', path="c"
    )
    one = found.profiles["p"]
    assert (one.protected, one.relays, one.allow_executables) == (True, ("socat",), ("/usr/bin/x", "~/y"))
    assert load_settings("[profiles.p]", path="c").profiles["p"].allow_executables is None
    assert found.notices == ()


_TABLES: dict[str, type[BaseModel]] = {"profiles.p": ProfileSettings, "aws": Aws, "prompt": Prompt}


def test_a_list_that_is_told_is_taken() -> None:
    """What a refusal tells to write is not refused."""
    for key, said in config_refusal._LISTS.items():
        table = next(each for each, model in _TABLES.items() if key in model.model_fields)
        load_settings(f"[{table}]\n{key} = {said}\n", path="c")


def test_programs_that_are_none_are_told(tmp_path: Path) -> None:
    """Missing, a directory, not executable: each by name; a script that an interpreter is given is well without."""
    for name, mode in (("run", 0o700), ("text", 0o600), ("deploy.py", 0o600)):
        (tmp_path / name).touch(mode=mode)
    wanted = {
        "gone": "is not there",
        "": "is not a file",
        "text": "is not executable",
        "run": None,
        "deploy.py": None,
    }
    for name, why in wanted.items():
        path = f"{tmp_path}/{name}"
        found = load_settings(f'[profiles.p]\nallow_executables = ["{path}"]', path="c").misses()
        said = f"[profiles.p] allow_executables lets nobody in by '{path}', which {why}: correct that path, then type "
        assert found == (() if why is None else (f"{said}`vaultd restart`",)), name
