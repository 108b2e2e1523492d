"""`credential-process` as a line of ~/.aws/config, run by each SDK that reads one, by Terraform's own library and by
Terraform; `export --format ini` by the same, and `--format dotenv` by Node and docker.

The play is done once; every test here reads what was seen in it. Each SDK has a profile of its own, whose name has
whatever a shell would take apart, and is believed when the emulator verified a signature made with keys that AssumeRole
issued for that profile (play.py's rule).
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.process.harness import BIN, Emulator, Home, short_directory, until
from tests.sdk.build import outdir
from tests.sdk.programs import BATCH, CARRIED, Answer, Program, asked
from tests.sdk.stage import BUCKET, ROLE, S3_ONLY
from vault_client.link import quoted

pytestmark = [pytest.mark.sdk, pytest.mark.process]

#: Their user reads nothing of what a failed credential_process wrote to stderr (measured); all others show it, in their
#: error or on the terminal.
SILENT = ("js-v3", "js-v2", "java-v2", "awscrt", "pyarrow")
#: A program each of the Python, the Go and the JavaScript world, and Terraform's.
WAITING = ("boto3", "cli-v2", "go-v2", "go-base", "js-v3")
#: Whoever waited is told by the question's end, who came later by the daemon.
TOLD = re.compile(
    r"question for identity was cancelled(?: elsewhere)?: wait \d+ s, then type `vault-client mfa identity"
)
#: Long enough for a person of this test on a busy machine, short enough to be waited for.
PATIENCE = 20
SETTINGS = f'[sessions]\nmfa_duration = "36h"\n[prompt]\ntimeout = "{PATIENCE}s"\n'
#: The section that `ini` is for: of what all of them take in a name.
SECTION = "team-prod+1@eu"
OTHERS = ("terraform", SECTION)


def named(client: str) -> str:
    """A profile's name that only quoting brings through: to a shell it is two commands, to shlex an open quote."""
    return client if client == SECTION else f'it\'s "{client}" $(touch PWNED); `touch PWNED` & *'


def profiles() -> str:
    """One of LongOps for each client, known by its role session name."""
    return "".join(
        f"[profile {shlex.quote(named(client))}]\nsource_profile = identity\nrole_arn = {ROLE}\n"
        f"mfa_serial = arn:aws:iam::123456789012:mfa/franklin\nrole_session_name = {client}\n"
        for client in (*CARRIED, *OTHERS)
    )


def lines() -> str:
    """The config file of the tools: no key in it, one line a profile."""
    return "".join(
        f"[profile {client}]\nregion = us-east-1\n"
        f"credential_process = {BIN}/vault-client credential-process {shlex.quote(named(client))}\n"
        for client in (*CARRIED, "terraform")
    )


@dataclass
class Seen:
    """What each client answered, and which of the keys it signed with were its own."""

    first: dict[str, Answer] = field(default_factory=dict)
    signed: dict[str, set[str]] = field(default_factory=dict)
    waited: dict[str, Answer] = field(default_factory=dict)
    questions: int = 0
    expired: dict[str, Answer] = field(default_factory=dict)
    cancelled: dict[str, Answer] = field(default_factory=dict)
    ini: dict[str, Answer] = field(default_factory=dict)
    section: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    terraform: subprocess.CompletedProcess[str] | None = None
    #: What `export --format dotenv` wrote, and the same session by `--format json`.
    file: str = ""
    keys: dict[str, str] = field(default_factory=dict)


@dataclass
class Carrying:
    """A daemon, the programs that know it by that line alone, and what is seen of them."""

    home: Home
    emulator: Emulator
    programs: dict[str, Program] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    def environment(self, client: str) -> dict[str, str]:
        aims = dict.fromkeys(("SDK_STS_URL", "SDK_S3_URL"), self.emulator.url)
        chosen = {
            "AWS_PROFILE": client,
            "AWS_SDK_LOAD_CONFIG": "1",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        places = {"AWS_CONFIG_FILE": str(self.home.directory / "tools.config"), "AWS_EC2_METADATA_DISABLED": "true"}
        return {**self.home.env, **aims, **chosen, **places}

    def answer(self) -> None:
        """A person somewhere else types the code."""
        done = self.home.client("mfa", "--token-code", self.emulator.code())
        assert done.status == 0, done

    def open_s3(self, client: str) -> None:
        """LongOps may use S3, and there is a bucket: some know no STS."""
        anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        self.emulator.ctl("mutate", {"policy": {"principal": ROLE, "name": "s3", "document": anything}})
        keys = self.home.link("GET", f"/v1/profiles/{quoted(named(client))}/credentials")
        s3: Any = boto3.client(
            "s3",
            endpoint_url=self.emulator.url,
            region_name="us-east-1",
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["Token"],
        )
        s3.create_bucket(Bucket=BUCKET)

    def own(self, client: str) -> set[str]:
        """Issued for that profile, and seen in a verified signature that is not ours."""
        calls = self.emulator.calls()
        issued = {
            str(each["issued"]) for each in calls if each["op"] == "AssumeRole" and each["session_name"] == client
        }
        answered = [
            each for each in calls if each["status"] == 200 and each["op"] not in {"AssumeRole", "CreateBucket"}
        ]
        return issued & {str(each["akid"]) for each in answered}

    def ask(self, clients: Sequence[str], line: str) -> dict[str, Answer]:
        answers = asked([self.programs[client] for client in clients], line, at_once=len(clients))
        return dict(zip(clients, answers, strict=True))

    def prompts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.home.link("GET", "/v1/prompts")["prompts"]
        return found

    def waiting(self, clients: Sequence[str]) -> dict[str, Answer]:
        """Without a session: all of them ask at once, and one code that is typed elsewhere serves them all."""
        assert self.home.client("clear").status == 0
        before = self.home.asked()
        with ThreadPoolExecutor(max_workers=1) as pool:
            answers = pool.submit(self.ask, clients, "fresh")
            until(lambda: bool(self.prompts()), "a question is open")
            done = self.home.client("mfa", "--token-code", self.emulator.code(step=1))
            assert done.status == 0, done
            found = answers.result()
        self.seen.questions = self.home.asked() - before
        return found

    def expired(self, clients: Sequence[str]) -> dict[str, Answer]:
        """The same, and nobody comes."""
        assert self.home.client("clear").status == 0
        return self.ask(clients, "fresh")

    def ini(self, client: str) -> Answer:
        """A program that knows the keys by a section of its credentials file alone."""
        file = self.home.directory / "exported"
        places = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_CONFIG_FILE": os.devnull}
        environment = {**self.environment(client), **places, "AWS_PROFILE": SECTION}
        with Program.running(client, environment) as program:
            return program.call()

    def cancelled(self, clients: Sequence[str]) -> dict[str, Answer]:
        """The same, and somebody says no."""
        assert self.home.client("clear").status == 0
        with ThreadPoolExecutor(max_workers=1) as pool:
            answers = pool.submit(self.ask, clients, "fresh")
            until(lambda: bool(self.prompts()), "a question is open")
            self.home.link("DELETE", f"/v1/prompts/{self.prompts()[0]['id']}")
            return answers.result()

    def terraform(self) -> subprocess.CompletedProcess[str]:
        """`terraform init` with an S3 backend: it reads the state, so it must sign."""
        room = self.home.directory / "terraform"
        room.mkdir()
        (room / "main.tf").write_text(
            f'terraform {{\n  backend "s3" {{\n    bucket = "{BUCKET}"\n    key = "state"\n    region = "us-east-1"\n'
            f'    profile = "terraform"\n    use_path_style = true\n    endpoints = {{ s3 = "{self.emulator.url}", '
            f'sts = "{self.emulator.url}", iam = "{self.emulator.url}" }}\n  }}\n}}\n'
        )
        environment = {**self.environment("terraform"), "CHECKPOINT_DISABLE": "1"}
        return subprocess.run(
            [shutil.which("terraform") or "terraform", "init", "-input=false", "-no-color"],
            cwd=room, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """Everything, once."""
    missing = [name for name in CARRIED if not (outdir(name) / "run").exists()]
    if missing:
        pytest.fail(f"not built: {', '.join(missing)}. Run `make sdk`", pytrace=False)
    with short_directory() as directory, Emulator.running(moto=True) as emulator, ExitStack() as stack:
        home = Home.make(directory, emulator, settings=SETTINGS, profiles=profiles())
        (directory / "tools.config").write_text(lines())
        stack.enter_context(home.daemon())
        assert home.add(emulator).status == 0
        carrying = Carrying(home, emulator)
        for client in CARRIED:
            program = Program.running(client, carrying.environment(client))
            carrying.programs[client] = stack.enter_context(program)
        yield play(carrying)


def play(carrying: Carrying) -> Seen:
    """The phases, in an order in which a code is never typed twice."""
    seen = carrying.seen
    carrying.answer()
    for client in ({*S3_ONLY} & {*CARRIED}) | {*OTHERS}:
        carrying.open_s3(client)
    for start in range(0, len(CARRIED), BATCH):
        seen.first |= carrying.ask(CARRIED[start : start + BATCH], "call")
    exported = carrying.home.client("export", SECTION, "--format", "ini")
    (carrying.home.directory / "exported").write_text(exported.out)
    assert exported.status == 0, exported
    seen.section = carrying.home.client("export", SECTION, "--format", "json").json()
    with ThreadPoolExecutor(max_workers=BATCH) as pool:
        seen.ini = dict(zip(CARRIED, pool.map(carrying.ini, CARRIED), strict=True))
    if shutil.which("terraform"):
        seen.terraform = carrying.terraform()
    seen.file = carrying.home.client("export", named("boto3"), "--format", "dotenv").out
    seen.keys = carrying.home.client("export", named("boto3"), "--format", "json").json()
    seen.signed = {client: carrying.own(client) for client in (*CARRIED, "terraform")}
    seen.waited = carrying.waiting(WAITING)
    seen.expired = carrying.expired(WAITING)
    seen.cancelled = carrying.cancelled(CARRIED)
    seen.ran = [str(each) for each in carrying.home.directory.rglob("PWNED")]
    return seen


@pytest.mark.parametrize("client", CARRIED)
def test_a_call(client: str, seen: Seen) -> None:
    """A profile of that one line, with a name full of quotes: a call signed with keys that were issued for it."""
    assert seen.first[client].ok, seen.first[client]
    assert seen.signed[client]


def test_nothing_in_a_name_was_run(seen: Seen) -> None:
    """Quoted as documented, a name is one word, with or without a shell between."""
    assert seen.ran == []


@pytest.mark.parametrize("client", WAITING)
def test_waiting_for_a_code(client: str, seen: Seen) -> None:
    """Nobody is asked on the SDK's terminal; the call goes on when the code was typed elsewhere, once for all."""
    assert seen.waited[client].ok, seen.waited[client]
    assert seen.questions == 1


@pytest.mark.parametrize("client", WAITING)
def test_nobody_comes(client: str, seen: Seen) -> None:
    """The tool waits as long as the question lives, then fails; exit 3 is told as above."""
    answer = seen.expired[client]
    assert not answer.ok
    assert answer.seconds >= PATIENCE - 2
    assert ("nobody answered the question for identity in time" in answer.shown) is (client not in SILENT), answer


@pytest.mark.parametrize("client", CARRIED)
def test_ini(client: str, seen: Seen) -> None:
    """The section as the tool's credentials file: a signed call with the very key that is in it."""
    answer = seen.ini[client]
    assert answer.ok, answer
    assert answer.key in {None, seen.section["AccessKeyId"]}
    assert answer.arn in {None, f"arn:aws:sts::234567890123:assumed-role/LongOps/{SECTION}"}


@pytest.mark.parametrize("client", CARRIED)
def test_a_no_is_told(client: str, seen: Seen) -> None:
    """Exit 3 with a sentence on stderr: the call fails, the program lives, and its user reads what to type, but for
    those SDKs that keep a process's stderr to themselves.
    """
    answer = seen.cancelled[client]
    assert not answer.ok
    assert answer.ended is None, answer
    assert bool(TOLD.search(answer.shown)) is (client not in SILENT), answer


@pytest.mark.needs("terraform")
def test_terraform(seen: Seen) -> None:
    """The program itself: `init` on an S3 backend, signed with keys that were issued for its profile."""
    assert seen.terraform is not None
    assert seen.terraform.returncode == 0, seen.terraform
    assert seen.signed["terraform"]


def test_dotenv_by_node(seen: Seen, tmp_path: Path) -> None:
    """`node --env-file` (20.6 and later) gives a program these very values."""
    (tmp_path / ".env").write_text(seen.file)
    script = "process.stdout.write(JSON.stringify(process.env))"
    done = subprocess.run(
        ["node", "--env-file=.env", "-e", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert_same(json.loads(done.stdout), seen.keys)


class Docker(http.server.BaseHTTPRequestHandler):
    """As much of the Docker Engine's API as `docker create` asks for; what it would run is kept on the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: the client's own error is told."""

    def do_HEAD(self) -> None:
        """`/_ping`: which API there is."""
        self.send_response(200)
        self.send_header("Api-Version", "1.44")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """`/containers/create`."""
        self.server.wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        body = b'{"Id": "created", "Warnings": []}'
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.needs("docker")
def test_dotenv_by_docker(seen: Seen, tmp_path: Path) -> None:
    """`docker create --env-file` asks the engine for a container with these very values: it undoes no quotes, which the
    control shows.
    """
    (tmp_path / ".env").write_text(seen.file + 'QUOTED="a"\n')
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Docker) as engine:
        thread = threading.Thread(target=engine.serve_forever, daemon=True)
        thread.start()
        where = f"tcp://127.0.0.1:{engine.server_port}"
        done = subprocess.run(
            [shutil.which("docker") or "docker", "-H", where, "create", "--env-file", ".env", "image"],
            cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        engine.shutdown()
        thread.join()
        assert done.returncode == 0, done
        found = dict(each.partition("=")[::2] for each in engine.wanted["Env"])  # type: ignore[attr-defined]

    assert_same(found, seen.keys)
    assert found["QUOTED"] == '"a"'


def assert_same(found: dict[str, str], keys: dict[str, str]) -> None:
    """The variables are the session's keys."""
    assert found["AWS_ACCESS_KEY_ID"] == keys["AccessKeyId"]
    assert found["AWS_SECRET_ACCESS_KEY"] == keys["SecretAccessKey"]
    assert found["AWS_SESSION_TOKEN"] == keys["Token"]
    assert found["AWS_CREDENTIAL_EXPIRATION"] == keys["Expiration"]
