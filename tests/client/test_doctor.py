"""`doctor`: this shell and the daemon's checks in one list, and where SDKs would go (interface.md §3)."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Run
from tests.client.stub import CHECK, GRANT_ROW, KEYS, STATUS, TOKEN, Answer, Stub, error
from tests.client.test_shell import ALL, evaluate, use
from tests.client.test_start import FORBIDDEN, loaded
from vault_client import families
from vault_client.scene import Scene

CANARY = "canary-secret-of-the-file"


@pytest.fixture
def used(stub: Stub, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell as `use` left it, its token file in place, its grant alive."""
    file = stub.run / "grants" / "g1.token"
    file.parent.mkdir(0o700)
    file.write_text(TOKEN)
    file.chmod(0o600)
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": stub.port})
    return {**stub.grant()["set"], "VAULTD_SHELL": "1", "HOME": str(tmp_path), "SHELL": "/bin/bash"}


@pytest.fixture
def metadata(stub: Stub, used: dict[str, str]) -> dict[str, str]:
    """The same by `use --imds`."""
    stub.answers["GET", "/v1/grants"] = (200, {"grants": [door_row(stub)]})
    kept = {name: used[name] for name in ("HOME", "SHELL", "VAULTD_SHELL")}
    return {**kept, **stub.imds_grant()["set"]}


def door_row(stub: Stub, *, address: str = "127.0.0.1", port: int | None = None) -> dict[str, Any]:
    """The grant g1 of `use --imds`, as the control API lists it."""
    return {**GRANT_ROW, "imds": True, "door": {"address": address, "port": stub.port if port is None else port}}


def rows(process: Run, environ: dict[str, str], *, status: int = 0) -> list[dict[str, Any]]:
    """The checks of `doctor --json`, whose exit status is part of the answer."""
    ended = process("doctor", "--json", **environ)
    assert ended.status == status, ended
    found: list[dict[str, Any]] = json.loads(ended.out)["checks"]
    for each in found:
        assert list(each) == ["name", "ok", "message", "remedy"]
        assert each["ok"] or each["remedy"], each
    return found


def bad(process: Run, environ: dict[str, str]) -> dict[str, str]:
    """The one row that is not well, as {name, message, remedy}; the exit status is 1."""
    (found,) = [each for each in rows(process, environ, status=1) if not each["ok"]]
    return {name: found[name] for name in ("name", "message", "remedy")}


def test_all_is_well(process: Run, used: dict[str, str], metadata: dict[str, str]) -> None:
    """Control: a shell as `use` left it has no row to mend, in either dialect; the daemon's rows are among them."""
    (_, *found) = rows(process, metadata)
    assert CHECK in found
    assert {each["name"] for each in found} == {"grant", "endpoint", "shadows", "clock"}
    plain = process("doctor", **metadata)
    assert (plain.status, plain.err) == (0, "")
    assert plain.out.startswith("ok   shell            web-admin by the metadata endpoint\n")


def test_all_is_well_by_the_container(process: Run, used: dict[str, str]) -> None:
    """The same, with the token's two forms and the word about JavaScript's two lines."""
    found = {each["name"]: each["message"] for each in rows(process, used)}

    assert set(found) == {"shell", "grant", "endpoint", "token", "javascript", "shadows", "clock"}
    assert "two warning lines because both forms of the token are set" in found["javascript"]


def test_a_shell_that_is_not_used(process: Run, tmp_path: Path) -> None:
    """No fault, and how to."""
    (first, *_) = rows(process, {"HOME": str(tmp_path), "SHELL": "/usr/bin/fish"})

    assert first["ok"]
    assert first["message"].endswith("type vault-client use PROFILE | source")


VARIABLES: list[tuple[dict[str, str], str, str]] = [
    ({"AWS_ACCESS_KEY_ID": "A" + CANARY, "AWS_SECRET_ACCESS_KEY": CANARY}, "AWS_ACCESS_KEY_ID is set, and every SDK",
     "type unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"),
    ({"AWS_ACCESS_KEY_ID": "A" + CANARY, "AWS_SESSION_TOKEN": CANARY}, "AWS_ACCESS_KEY_ID is set without its other",
     "type unset AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN"),
    ({"AWS_PROFILE": "x\x1b[2J\u202e"}, "AWS_PROFILE=x?[2J? is set", "type unset AWS_PROFILE"),
    ({"AWS_DEFAULT_PROFILE": ""}, "AWS_DEFAULT_PROFILE= is set", "type unset AWS_DEFAULT_PROFILE"),
    ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "r"}, "AWS_WEB_IDENTITY_TOKEN_FILE is set",
     "type unset AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN"),
    ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"}, "most SDKs ask 169.254.170.2",
     "type unset AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    ({"AWS_METADATA_SERVICE_TIMEOUT": "x"}, "AWS_METADATA_SERVICE_TIMEOUT is no whole number", "set it to 1"),
    ({"HTTP_PROXY": f"http://u:{CANARY}@p", "NO_PROXY": "corp"}, "HTTP_PROXY is set and NO_PROXY does not except",
     "add 127.0.0.1,localhost to NO_PROXY and no_proxy"),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"}, "are both set, and SDKs choose differently",
     'type eval "$(vault-client use web-admin)"'),
    ({"VAULTD_GRANT": "g2"}, "the grant g2 was revoked or has expired", 'type eval "$(vault-client use web-admin)"'),
    ({"VAULTD_GRANT": ""}, "VAULTD_GRANT is not set", 'type eval "$(vault-client use web-admin)"'),
    ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": ""}, "AWS_CONTAINER_AUTHORIZATION_TOKEN is not set", "type eval"),
    ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": ""}, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not set", "type eval"),
    ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": CANARY}, "holds another token than", "type eval"),
    ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/dev/null"}, "is no file", "type eval"),
    ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nonexistent"}, "is missing", "type eval"),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://u:{CANARY}@example.com/"}, "is not an address of vaultd", "type"),
    ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:x/"}, "is not an address of vaultd", "type eval"),
    ({"VAULTD_SHELL": "", "VAULTD_GRANT": "g2"}, "was revoked", "type eval"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said", "remedy"), VARIABLES, ids=range(len(VARIABLES)))
def test_one_thing_wrong_is_one_row(
    process: Run, used: dict[str, str], change: dict[str, str], said: str, remedy: str
) -> None:
    """Each alone in a shell that is otherwise well: named, with what to type, without the value of a secret."""
    ended = process("doctor", "--sdk", **{**used, **change})
    found = bad(process, {**used, **change})

    assert said in found["message"]
    assert remedy in found["remedy"]
    assert CANARY not in ended.out + ended.err + json.dumps(found)
    assert TOKEN not in ended.out + ended.err
    assert "\x1b" not in ended.out
    assert ended.status == 1


METADATA: list[tuple[dict[str, str], str, str]] = [
    (
        {"AWS_EC2_METADATA_DISABLED": "false"},
        "AWS_EC2_METADATA_DISABLED is set",
        "type unset AWS_EC2_METADATA_DISABLED",
    ),
    ({"AWS_METADATA_SERVICE_NUM_ATTEMPTS": "0"}, "is 0, so that botocore never asks", "set it to 1"),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}, "no closing slash", "use web-admin --imds"),
    ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://169.254.169.254/"}, "is not an address of vaultd", "--imds"),
    (
        {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"},
        "this shell asks port 1, and the grant g1 is on",
        'type eval "$(vault-client use web-admin --imds)"',
    ),
    ({"AWS_METADATA_ENDPOINT": ""}, "AWS_METADATA_ENDPOINT is not set, and some SDKs", "use web-admin --imds"),
    (
        {"AWS_EC2_METADATA_SERVICE_ENDPOINT": ""},
        "AWS_EC2_METADATA_SERVICE_ENDPOINT is not set any more",
        'type eval "$(vault-client use web-admin --imds)"',
    ),
    ({"VAULTD_GRANT": "g2"}, "the grant g2 was revoked or has expired", "use web-admin --imds"),
    (
        {"VAULTD_GRANT": "g2", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"},
        "g2 was revoked",
        "use web-admin --imds",
    ),
    (
        {"VAULTD_GRANT": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1/"},
        "VAULTD_GRANT is not set",
        "use web-admin --imds",
    ),
]


@pytest.mark.parametrize(("change", "said", "remedy"), METADATA, ids=range(len(METADATA)))
def test_the_metadata_endpoint(
    process: Run, metadata: dict[str, str], change: dict[str, str], said: str, remedy: str
) -> None:
    """What is wrong with that dialect alone, and how to take it again."""
    found = bad(process, {**metadata, **change})

    assert said in found["message"]
    assert remedy in found["remedy"]


def test_keys_of_the_config_file_that_change_nothing(process: Run, metadata: dict[str, str]) -> None:
    """This shell's variables go before them: told, and well."""
    (Path(metadata["HOME"]) / ".aws").mkdir()
    path = Path(metadata["HOME"]) / ".aws/config"
    path.write_text("[default]\nec2_metadata_service_endpoint = http://x\nec2_metadata_v1_disabled = false\n")
    said = [each["message"] for each in rows(process, metadata) if each["name"] == "metadata"]

    assert [each.partition(" changes nothing here")[0] for each in said] == [
        f"ec2_metadata_service_endpoint in {path}:2",
        f"ec2_metadata_v1_disabled in {path}:3",
    ]


def test_a_grant_of_the_other_endpoint(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """Old variables beside a new grant."""
    stub.answers["GET", "/v1/grants"] = (200, {"grants": [{**GRANT_ROW, "imds": True}]})

    assert "is for the other endpoint" in bad(process, used)["message"]


MEANT = "Profile web-admin means another role than when this token was made"


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        ("ProfileMismatch", f"{MEANT}; type `vault-client use web-admin`.", 'type eval "$(vault-client use web'),
        ("UnknownProfile", "There is no profile web-admin in ~/.aws/config. Run `vault-client list`.",
         'see `vault-client list`, then type eval "$(vault-client use PROFILE)"'),
        ("BadProfile", "~/.aws/config:3: role_arn is no ARN", "type `vault-client explain web-admin`"),
    ],
)  # fmt: skip
def test_a_grant_that_lives_and_is_refused(
    process: Run, stub: Stub, used: dict[str, str], code: str, message: str, remedy: str
) -> None:
    """The config file has changed under it: every call of this shell is refused, and no row may call that well."""
    stub.answers["GET", "/v1/grants/g1"] = (200, {**GRANT_ROW, "refused": None})
    assert all(each["ok"] for each in rows(process, used))  # control
    stub.answers["GET", "/v1/grants/g1"] = (200, {**GRANT_ROW, "refused": {"code": code, "message": message}})
    found = bad(process, used)
    reason = message.partition(";")[0].partition(". Run")[0]

    assert (found["name"], found["message"]) == ("grant", f"no call of this shell is answered: {reason}")
    assert found["remedy"].startswith(remedy)


def test_a_daemon_that_moved(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """The shell's variables are those of before."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": 9170})

    assert bad(process, used)["message"] == f"this shell asks port {stub.port}, and vaultd serves on port 9170 now"


def test_a_port_that_nobody_listens_on(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """Whose the port is, from the kernel."""
    stub.endpoint.close()
    found = bad(process, used)

    assert found["message"] == f"nobody listens on 127.0.0.1:{stub.port}, where vaultd says that it serves"
    assert found["remedy"] == "type `vaultd restart`"


@pytest.mark.parametrize(
    ("mode", "content", "said"),
    [
        (0o644, TOKEN, "may be read by others (mode 644)"),
        (0o600, TOKEN + "\n", "ends in a line end, which most SDKs refuse"),
        (0o600, "", "holds another token than"),
    ],
)
def test_the_token_file(process: Run, stub: Stub, used: dict[str, str], mode: int, content: str, said: str) -> None:
    """Its mode and its last byte (sdk-facts §2); nothing of it is shown."""
    path = stub.run / "grants/g1.token"
    path.write_text(content)
    path.chmod(mode)

    assert said in bad(process, used)["message"]
    assert TOKEN not in process("doctor", **used).out


@pytest.mark.needs("root")
def test_a_token_file_of_another_user(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """Not ours: whoever wrote it knows which token is sent."""
    os.chown(stub.run / "grants/g1.token", 65534, 65534)

    assert bad(process, used)["message"].endswith("belongs to another user")


def test_a_token_file_that_is_a_link(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """It is not followed."""
    path = stub.run / "grants/g1.token"
    path.rename(path.with_name("other"))
    path.symlink_to("other")

    assert "cannot be opened" in bad(process, used)["message"]


def test_files_of_the_caller(process: Run, used: dict[str, str]) -> None:
    """The same words as the warning of `use`."""
    (Path(used["HOME"]) / ".aws").mkdir()
    path = Path(used["HOME"]) / ".aws/credentials"
    path.write_text(f"[default]\naws_access_key_id = A{CANARY}\naws_secret_access_key = {CANARY}\n")
    found = bad(process, used)

    assert found["message"] == f"SDKs prefer the aws_access_key_id of [default] in {path}:2 to this shell's endpoint"
    assert found["remedy"] == "rename that section to [NAME], or remove the line"
    assert CANARY not in process("doctor", "--sdk", **used).out


@pytest.mark.parametrize("content", [b"[default\n", b"\xef\xbb\xbf[default]\n", b"\xff\xfe", b"[a]\nb\n", b"[a]\n" * 2])
def test_broken_files_are_a_line(process: Run, used: dict[str, str], content: bytes) -> None:
    """Never a traceback, with --sdk too, whose first row then says that botocore ends there."""
    (Path(used["HOME"]) / ".aws").mkdir()
    path = Path(used["HOME"]) / ".aws/config"
    path.write_bytes(content)
    ended = process("doctor", "--sdk", "--json", **used)
    found = json.loads(ended.out)

    assert (ended.status, ended.err) == (1, "")
    assert next(each["message"] for each in found["checks"] if not each["ok"]).startswith(f"{path}:")
    told = {row["family"]: row["source"] for row in found["sdk"]}
    assert told.pop("botocore") == "error"
    assert {name for name, source in told.items() if source != "unknown"} == {
        "object_store", "minio", "JavaScript v2", "Go v1",  # who does not read that file
    }  # fmt: skip


def test_a_huge_file_is_a_line(process: Run, used: dict[str, str]) -> None:
    """It is not read to its end, and what it says is not guessed."""
    (Path(used["HOME"]) / ".aws").mkdir()
    path = Path(used["HOME"]) / ".aws/credentials"
    with path.open("wb") as file:
        file.truncate(1 << 30)

    assert bad(process, used)["message"] == f"{path} cannot be read (it has more than 1 MiB)"
    assert (
        f"botocore       error             no      {path}: it has more than 1 MiB"
        in process("doctor", "--sdk", **used).out
    )


def test_without_a_daemon_this_shell_is_still_looked_at(process: Run, used: dict[str, str]) -> None:
    """The rows about the shell, then exit 69 with the start command, said once."""
    environ = {**used, "VAULTD_HOME": "/nonexistent", "AWS_PROFILE": "x"}
    ended = process("doctor", **environ)

    assert ended.status == 69
    assert "BAD  variables        AWS_PROFILE=x is set" in ended.out
    assert "BAD  daemon           vaultd is not running (its log is /nonexistent/state/vaultd.log)" in ended.out
    assert (ended.err, ended.out.count("not running"), ended.out.count("→ type `vaultd start`")) == ("", 1, 1)
    assert "grant" not in {each["name"] for each in rows(process, environ, status=69)}


@pytest.mark.parametrize("dialect", ["used", "metadata"])
def test_a_stopped_daemon_is_one_cause(
    process: Run, stub: Stub, dialect: str, used: dict[str, str], metadata: dict[str, str]
) -> None:
    """Nobody listens where it served, because it is stopped: no second row with another remedy."""
    stub.endpoint.close()
    environ = {**(used if dialect == "used" else metadata), "VAULTD_HOME": "/nonexistent"}
    wrong = [each for each in rows(process, environ, status=69) if not each["ok"]]

    assert [(each["name"], each["remedy"]) for each in wrong] == [("daemon", "type `vaultd start`")]
    told = json.loads(process("doctor", "--sdk", "--json", **environ).out)["sdk"]
    assert {row["vaultd"] for row in told} == {False}


def test_what_the_daemon_finds_and_refuses(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """Its rows come as they are, bad ones make exit 1; a refusal is a row too."""
    skewed = {"name": "clock", "ok": False, "message": "clock is 7 minutes behind AWS", "remedy": "set the clock"}
    stub.answers["GET", "/v1/checks"] = (200, {"checks": [skewed]})
    assert bad(process, used) == {name: skewed[name] for name in ("name", "message", "remedy")}

    stub.answers["GET", "/v1/checks"] = error(426, "ProtocolMismatch", "1 is not 2: type `vaultd restart`", 1)
    assert bad(process, used) == {"name": "daemon", "message": "1 is not 2", "remedy": "type `vaultd restart`"}


def test_nothing_is_asked_of_the_endpoint(process: Run, stub: Stub, used: dict[str, str]) -> None:
    """A GET there may open a question."""
    process("doctor", "--sdk", **used)

    assert [path for _, path, _ in stub.requests] == ["/v1/checks", "/v1/grants", "/v1/status", "/v1/grants/g1"]
    stub.endpoint.settimeout(0.01)
    with pytest.raises(TimeoutError):
        stub.endpoint.accept()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["web-admin", "web-admin --imds"])
def test_in_a_real_shell(name: str, form: str, stub: Stub, tmp_path: Path) -> None:
    """What `use` did is what doctor finds well, in each shell; a leftover key is found, in that shell's words."""
    stub.answers["GET", "/v1/status"] = (200, {**STATUS, "port": stub.port})
    stub.answers["GET", "/v1/grants"] = (200, {"grants": [door_row(stub) if "--imds" in form else GRANT_ROW]})
    file = stub.run / "grants" / "g1.token"
    file.parent.mkdir(0o700)
    file.touch(0o600)
    file.write_text(TOKEN)
    late = "set -gx AWS_PROFILE x\n" if name == "fish" else "export AWS_PROFILE=x\n"
    ignored = "vc doctor; or true\n" if name == "fish" else "vc doctor || :\n"
    found = evaluate(name, use(name, form) + f"vc doctor\necho ----\n{late}{ignored}", stub, HOME=str(tmp_path))
    first, second = found.split("----")

    assert "BAD" not in first
    assert f"→ type {'set -e' if name == 'fish' else 'unset'} AWS_PROFILE" in second


def test_its_modules_are_not_anybodys_start(stub: Stub) -> None:
    """Configparser is doctor's alone, when it looks at values."""
    assert "configparser" not in loaded(stub, "doctor")
    assert "configparser" in loaded(stub, "doctor", "--sdk")
    assert not loaded(stub, "doctor") & (FORBIDDEN - {"configparser"})


# ---- --sdk ----


def sdk(environ: dict[str, str], home: Path, *, chosen: str | None = None) -> dict[str, str]:
    """Family → `source where`, with ~ for the home."""
    found = families.rows(Scene({"HOME": str(home), **environ}, chosen=chosen))
    return {row.family: f"{row.source} {row.where}".replace(str(home), "~") for row in found}


CONTAINER = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9169/v1/credentials/p",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def test_everybody_comes_to_vaultd(process: Run, stub: Stub, used: dict[str, str], metadata: dict[str, str]) -> None:
    """A shell as `use` left it: every family's row says so, in both dialects; minio knows its address only in code."""
    for environ, elsewhere, row in ((used, set(), GRANT_ROW), (metadata, {"minio"}, door_row(stub))):
        stub.answers["GET", "/v1/grants"] = (200, {"grants": [row]})
        found = json.loads(process("doctor", "--sdk", "--json", **environ).out)["sdk"]
        assert [list(each) for each in found] == [["family", "source", "where", "vaultd"]] * 15
        assert {each["family"] for each in found if not each["vaultd"]} == elsewhere


def test_the_table(process: Run, used: dict[str, str]) -> None:
    """For people."""
    lines = process("doctor", "--sdk", **used).out.split("\n\n")[1].splitlines()

    assert lines[0].split("  ")[0] == "SDK"
    assert lines[1].split() == [
        "botocore",
        "container",
        "yes",
        used["AWS_CONTAINER_CREDENTIALS_FULL_URI"].split("/")[2],
    ]
    assert len(lines) == 16


def test_where_they_differ(tmp_path: Path) -> None:
    """sdk-facts §1, row by row: FULL before RELATIVE, the token file, ~/.aws, AWS_SDK_LOAD_CONFIG, unknown profiles."""
    (tmp_path / ".aws").mkdir()
    both = {**CONTAINER, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x"}
    assert {name for name, said in sdk(both, tmp_path).items() if "9169" in said} == {"Go v1", "opendal"}

    assert sdk(CONTAINER, tmp_path)["object_store"] == "metadata 169.254.169.254"
    filed = {**CONTAINER, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": os.devnull}
    assert sdk(filed, tmp_path)["object_store"] == "container 127.0.0.1:9169"

    (tmp_path / ".aws/config").write_text("[default]\nrole_arn = r\nsource_profile = s\n[profile s]\n")
    aside = {"object_store", "minio"}
    found = sdk(filed, tmp_path)
    assert {name for name, said in found.items() if said.startswith("container")} == aside | {"Go v1", "JavaScript v2"}
    assert found["Ruby"] == "assume-role role_arn in ~/.aws/config:2"
    found = sdk({**filed, "AWS_SDK_LOAD_CONFIG": "1"}, tmp_path)
    assert {name for name, said in found.items() if said.startswith("container")} == aside

    (tmp_path / ".aws/config").write_text("[default]\nsso_session = s\n")
    found = sdk(filed, tmp_path)
    assert {name for name, said in found.items() if said.startswith("container")} == aside | {
        "C++", "CRT", "Go v1", "JavaScript v2", "botocore",
    }  # fmt: skip

    found = sdk({**filed, "AWS_PROFILE": "nope"}, tmp_path)
    assert {name for name, said in found.items() if said.startswith("error")} == {"botocore", "Go v2", "Rust", ".NET"}


def test_keys_and_who_looks_at_the_profile_first(tmp_path: Path) -> None:
    """Keys go before all but JavaScript v3 with AWS_PROFILE, and minio's own provider."""
    keys = {**CONTAINER, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert {name for name, said in sdk(keys, tmp_path).items() if not said.startswith("env ")} == {"minio"}

    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[p]\naws_access_key_id = a\naws_secret_access_key = b\n")
    found = sdk({**keys, "AWS_PROFILE": "p"}, tmp_path)
    assert found["JavaScript v3"] == "keys aws_access_key_id in ~/.aws/credentials:2"
    assert found["Java v2"] == "env AWS_ACCESS_KEY_ID"
    assert sdk(keys, tmp_path, chosen="p")["botocore"] == "shared-credentials-file ~/.aws/credentials:2"


@pytest.mark.parametrize(
    ("value", "still"),
    [
        ("true", {"object_store", "minio"}),
        ("false", {family.name for family in families.FAMILIES} | {"botocore"} - {"JavaScript v2"}),
        ("1", {family.name for family in families.FAMILIES} | {"botocore"} - {"JavaScript v2"}),
    ],
)
def test_who_is_switched_off_by_what(tmp_path: Path, value: str, still: set[str]) -> None:
    """sdk-facts §6: AWS_EC2_METADATA_DISABLED means something else to each."""
    still = still - {"JavaScript v2"} - ({"JavaScript v3", "CRT"} if value == "1" else set())
    found = sdk({"AWS_EC2_METADATA_DISABLED": value}, tmp_path)

    assert {name for name, said in found.items() if said.startswith("metadata")} == still


def test_a_profile_that_is_asked_for(process: Run, used: dict[str, str]) -> None:
    """`--profile P`: as `aws --profile P` would; it brings the table by itself."""
    (Path(used["HOME"]) / ".aws").mkdir()
    (Path(used["HOME"]) / ".aws/config").write_text("[profile nopes]\nregion = eu-west-1\n[profile other]\n")
    ended = process("doctor", "--profile", "other", **used)

    assert (ended.status, ended.err) == (0, "")
    assert "botocore       container" in ended.out
    assert KEYS["SecretAccessKey"] not in ended.out


def test_a_profile_that_is_not_there(process: Run, used: dict[str, str]) -> None:
    """Exit 1 with the nearest names, as every command that names one; a file that cannot be read says nothing of it."""
    path = Path(used["HOME"]) / ".aws/config"
    path.parent.mkdir()
    path.write_text("[profile nopes]\nregion = eu-west-1\n[profile other]\n")
    ended = process("doctor", "--profile", "nope", **used)

    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        f"vault-client: there is no profile nope in {path} (did you mean nopes?): type `vault-client list`\n"
    )
    path.write_text("[profile nopes\n")
    assert "botocore       error" in process("doctor", "--profile", "nope", **used).out


def test_a_daemon_that_hangs(run: Run, stub: Stub, used: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for longer than a check may take: this shell is looked at all the same, 69."""
    over = threading.Event()

    def hang(_: object) -> Answer:
        over.wait(30)
        return 200, {"checks": [CHECK]}

    stub.answers["GET", "/v1/checks"] = hang
    monkeypatch.setattr("vault_client.doctor._HANGS", 0.1)
    ended = run("doctor", **used, AWS_PROFILE="old")
    answered = not over.is_set()
    over.set()

    assert (ended.status, answered) == (69, True)
    assert "BAD  daemon           vaultd does not answer" in ended.out
    assert "AWS_PROFILE=old is set" in ended.out
