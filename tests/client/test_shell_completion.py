"""What could come next, and the line for a prompt: silent, short, and nothing that a shell would take apart."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.conftest import CLIENT, Run
from tests.client.shells import NAMES
from tests.client.stub import GRANT_ROW, IDENTITY, PROFILE, STATUS, Stub, environment, error
from tests.client.test_start import FORBIDDEN, loaded
from vault_client import completion, promptline
from vault_client.commands import PAGES
from vault_client.completion import Word, words_of
from vaultd.model import console

QUERY = "/v1/profiles?profile="


def rows(out: str) -> dict[str, str]:
    """Of each candidate its description."""
    return dict(line.partition("\t")[::2] for line in out.splitlines())


def test_commands(run: Run) -> None:
    """Each with its summary; what only our scripts call is not offered."""
    found = rows(run("__complete", "zsh", "").out)

    assert found["use"].startswith("point this shell")
    assert {"exec", "shell-init", "completion", "prompt", "doctor"} <= set(found)
    assert not [name for name in found if name.startswith("_")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("use ", {"web-admin": "234567890123 WebAdmin"}),
        ("use --imds ", {"web-admin": "234567890123 WebAdmin"}),
        ("use --region x ", {"web-admin": "234567890123 WebAdmin"}),
        ("use web-admin ", {}),
        ("exec web-admin ", {"--": "then the command"}),
        ("exec web-admin -- ", {}),
        ("exec web-admin -- aws -", {}),
        ("identities ", {}),
        ("remove ", {"identity": "user/franklin"}),
        ("revoke ", {"g1": "web-admin, exec, terraform (4711)"}),
        ("shell-init ", {"bash": "", "zsh": "", "fish": "", "pwsh": ""}),
        ("log --profile ", {"web-admin": "234567890123 WebAdmin"}),
        ("use --shell ", {"bash": "", "zsh": "", "fish": "", "pwsh": "", "sh": ""}),
        ("use --region ", {}),
        ("nonsense ", {}),
        ("login --service ", dict.fromkeys(PAGES, "")),
        ("login --stdout --service s3 web-admin --service ", dict.fromkeys(PAGES, "")),
        ("login --service s3 ", {"web-admin": "234567890123 WebAdmin"}),
        ("export --format ", dict.fromkeys(completion._VALUES["format"], "")),
    ],
)
def test_what_fits(run: Run, stub: Stub, line: str, expected: dict[str, str]) -> None:
    """By the command's own row: names with account and role, values of options; nothing where nothing fits."""
    stub.answers["GET", "/v1/identities"] = (200, {"identities": [IDENTITY]})
    stub.answers["GET", "/v1/grants"] = (200, {"grants": [GRANT_ROW]})

    assert rows(run("__complete", "zsh", *line.split(" ")).out) == expected


def test_pages_of_the_console(run: Run, stub: Stub) -> None:
    """By the row of `login`, which asks nobody; its help names the first of the same table."""
    word = "vault-client login --service elasticb"

    assert run("__complete", "bash", "vault-client", word).out == "elasticbeanstalk\n"
    assert stub.requests == []
    assert f"the page to open: {', '.join(PAGES[:3])}, …\n" in run("login", "--help").out


def test_the_pages_are_the_daemons() -> None:
    """Each is taken and a page of its own, and whatever has another name there is offered by one that people say."""

    def page(name: str | None) -> str:
        found = console.site(partition="aws", region=None, service=name, logout_first=False, override=None)
        return found.destination

    offered = [page(name) for name in PAGES]

    assert len(set(offered)) == len(offered)
    assert {page(name) for name in console._PAGES} - {page(None)} <= set(offered)


def test_options(run: Run) -> None:
    """With their meaning, as the command has it."""
    assert set(rows(run("__complete", "fish", "use", "-").out)) == {
        "--imds", "--region", "--duration", "--shell", "--token-code",
    }  # fmt: skip
    assert rows(run("__complete", "fish", "doctor", "--p").out)["--profile"].startswith("--sdk for a tool")


def test_a_name_that_cannot_be_typed_is_not_offered(run: Run, stub: Stub) -> None:
    """A line break in it would be two candidates; `cli` refuses it as an operand, too."""
    names = ["good", "a\nb", "a\tb", "\x1b[2J", "a\u2028b"]
    stub.answers["GET", "/v1/profiles"] = (200, {"profiles": [{**PROFILE, "profile": each} for each in names]})

    assert list(rows(run("__complete", "fish", "use", "").out)) == ["good"]


def test_without_a_daemon_the_profiles_of_the_file(run: Run, tmp_path: Path) -> None:
    """Of the caller's own file, and silently; what only the daemon knows is not guessed."""
    config = tmp_path / "config"
    config.write_text("[default]\n[profile a]\n[profile 'team prod']\n[sso-session x]\n")
    away = {"VAULTD_HOME": "/nonexistent", "AWS_CONFIG_FILE": str(config)}
    ended = run("__complete", "zsh", "use", "", **away)

    assert (ended.status, ended.err) == (0, "")
    assert list(rows(ended.out)) == ["default", "a", "team prod"]
    for line in (("remove", ""), ("revoke", "")):
        ended = run("__complete", "zsh", *line, **away)
        assert (ended.status, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize("more", ["", "s3 =\n  max_queue_size = 5\n  [profile none]\n"])
def test_a_large_file(run: Run, tmp_path: Path, more: str) -> None:
    """Above the 1 MiB that doctor reads: names are offered all the same, and none that is part of a value."""
    config = tmp_path / "config"
    config.write_text(f"[profile a]\n{more}# {'x' * 1024 * 1024}\n[default]\n[sso-session y]\n[profile 'b c']\n")
    away = {"VAULTD_HOME": "/nonexistent", "AWS_CONFIG_FILE": str(config)}

    assert list(rows(run("__complete", "zsh", "use", "", **away).out)) == ["a", "default", "b c"]


def test_a_file_that_takes_long_to_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there when the time is over, which leaves the whole of it within 300 ms (issue 6)."""
    config = tmp_path / "config"
    config.write_text("[profile a]\n[profile b]\n[profile c]\n")
    monkeypatch.setattr("vault_client.completion.READING", -1.0)

    assert list(completion._own_profiles({"AWS_CONFIG_FILE": str(config)})) == ["a"]


@pytest.mark.parametrize("arguments", [[], ["zsh"], ["bash"], ["bash", "vault-client"], ["x", "\udcff"]])
def test_never_a_traceback(process: Run, arguments: list[str]) -> None:
    """Whatever a shell sends."""
    ended = process("__complete", *arguments)

    assert (ended.status, ended.err) == (0, "")


@contextmanager
def silent(home: Path, sends: bytes = b"") -> Iterator[None]:
    """A control socket that accepts and says no more than `sends`, again and again."""
    home.joinpath("run").mkdir(parents=True)
    taken: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "run/control.sock"))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return
                taken[-1].sendall(sends)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in taken:
        each.close()


@pytest.mark.parametrize(
    "sends", [b"", b"HTTP/1.1 200 OK\r\n", b"\0" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"]
)
def test_a_daemon_that_hangs(run: Run, tmp_path: Path, sends: bytes) -> None:
    """Given up on, whatever it sent: the profiles of the file, and no prompt; no error of any kind is shown."""
    config = tmp_path / "config"
    config.write_text("[profile a]\n")
    with silent(tmp_path / "hung", sends):
        away = {"VAULTD_HOME": str(tmp_path / "hung"), "AWS_CONFIG_FILE": str(config), "VAULTD_PROFILE": "a"}
        completed, prompted = run("__complete", "zsh", "use", "", **away), run("prompt", **away)

    assert (prompted.status, prompted.out, prompted.err) == (0, "", "")
    assert (completed.status, completed.err) == (0, "")
    assert completed.out == ("" if sends.endswith(b"[]") else "a\t\n")


def test_how_long_it_waits() -> None:
    """At most 300 ms and 150 ms (issue 6), interpreter and file included."""
    assert completion.PATIENCE <= 0.2
    assert completion.PATIENCE + completion.READING <= 0.3
    assert promptline.PATIENCE <= 0.15


@pytest.mark.parametrize("line", ["__complete zsh use ", "__complete bash vault-client vault-client+use+", "prompt"])
def test_what_they_load(stub: Stub, line: str) -> None:
    """None of the slow modules (tests.client.test_start)."""
    os.environ["VAULTD_PROFILE"] = "web-admin"
    try:
        found = loaded(stub, *(word.replace("+", " ") for word in line.split(" ")))
    finally:
        del os.environ["VAULTD_PROFILE"]

    assert "vault_client.completion" in found or line == "prompt"
    assert not found & FORBIDDEN


# ---- bash's quoting ----

Typed = Callable[[str], str]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12)


def in_bash(word: str, directory: Path) -> str:
    """What bash makes of a word."""
    done = subprocess.run(
        ["bash", "--norc", "-c", f"set +H; printf %s {word}"], capture_output=True, text=True, check=True,
        cwd=directory, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return done.stdout


@pytest.mark.needs("bash")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_what_is_inserted_is_the_name(name: str, quote: str, tmp_path: Path) -> None:
    """Whatever was begun with, bash reads the name and runs nothing."""
    word = words_of(f"vault-client use {quote}")[-1]
    inserted = word.ending(name)

    assert in_bash(f"{quote}{inserted}{quote}", tmp_path) == name
    assert not list(tmp_path.iterdir())


@given(st.lists(TEXT, min_size=1, max_size=4), st.sampled_from("'\"\\"))
def test_words_as_a_shell_reads_them(names: list[str], quote: str) -> None:
    """A line of quoted names is read as those names, and as POSIX says by shlex (which errs on a dollar in "…")."""
    escape = {"'": shlex.quote, '"': _doubled, "\\": _slashed}[quote]
    line = " ".join(["vault-client", *map(escape, names)])

    assert [word.text for word in words_of(line)] == ["vault-client", *names]
    assert [word.text for word in words_of(line + " ")] == ["vault-client", *names, ""]
    if quote != '"':
        assert shlex.split(line) == ["vault-client", *names]


def _doubled(name: str) -> str:
    return '"' + "".join(f"\\{char}" if char in '"\\$`' else char for char in name) + '"'


def _slashed(name: str) -> str:
    return "".join(f"\\{char}" for char in name)


@pytest.mark.parametrize(
    ("line", "text", "kept", "quote"),
    [
        ("x ", "", "", ""),
        ("x web", "web", "", ""),
        ("x a:b", "a:b", "a:", ""),
        ("x a\\:b", "a:b", "", ""),
        ("x a=b@c", "a=b@c", "a=b", ""),
        ("x 'a b", "a b", "", "'"),
        ('x a"b c', "ab c", "a", '"'),
        ('x "a\\$b\\c', "a$b\\c", "", '"'),
        ("x 'a\\", "a\\", "", "'"),
    ],
)
def test_the_unfinished_word(line: str, text: str, kept: str, quote: str) -> None:
    """What it means so far, and from where readline replaces it."""
    word = words_of(line)[-1]

    assert (word.text, word.kept, word.quote) == (text, kept, quote)


@pytest.mark.parametrize("before", ["vault-client ", "A=1 vault-client ", "env -i vault-client ", "vc "])
def test_what_stands_before_the_program(run: Run, before: str) -> None:
    """Assignments, a wrapper, an alias: the words after the program count."""
    program = before.rsplit(maxsplit=1)[-1]

    assert run("__complete", "bash", program, before + "use web").out == "web-admin\n"


def test_an_empty_word_is_bare() -> None:
    """Positive control of the escapes: plain names stay as they are."""
    assert Word().ending("web-admin/x.y_z+1") == "web-admin/x.y_z+1"
    assert Word().ending("a b") == "a\\ b"


# ---- vault-client prompt ----


def prompted(stub: Stub, run: Run, name: str = "web-admin", **changes: Any) -> str:
    """The line for one profile of that state."""
    stub.answers["GET", QUERY + name] = (200, {"profiles": [{**PROFILE, "profile": name, **changes}]})
    ended = run("prompt", VAULTD_PROFILE=name)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


@pytest.mark.parametrize(
    ("seconds", "state", "said"),
    [
        (3300, "fresh", "55m"),
        (3600, "fresh", "1h00m"),
        (43199.5, "fresh", "11h59m"),
        (59, "due", "<1m"),
        (0, "expired", "expired"),
        (None, "mfa_required", "code"),
        (None, "locked", "locked"),
        (None, "none", "…"),
        (None, "error", "error"),
    ],
)
def test_profile_and_time_left(stub: Stub, run: Run, seconds: float | None, state: str, said: str) -> None:
    """`profile·time-left`, else what is missing."""
    assert prompted(stub, run, seconds_left=seconds, state=state) == f"web-admin·{said}\n"


UNKNOWN = error(404, "UnknownGrant", "There is no grant 'g1': list them with `vault-client grants`.", 1)
REFUSED = {"code": "ProfileMismatch", "message": "Profile web-admin means another role than when this token was made"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (UNKNOWN, "expired"),
        ((200, {"id": "g1", "refused": REFUSED}), "error"),
        ((200, {"id": "g1", "refused": None}), "55m"),
        (error(405, "MethodNotAllowed", "a daemon of before", 1), "55m"),
    ],
)
def test_a_shell_whose_grant_gives_nothing(stub: Stub, run: Run, answer: Any, said: str) -> None:
    """The session lives on for others: of a shell that every call is refused in, the prompt does not count it down."""
    stub.answers["GET", QUERY + "web-admin"] = (200, {"profiles": [{**PROFILE, "seconds_left": 3300}]})
    stub.answers["GET", "/v1/grants/g1"] = answer

    assert run("prompt", VAULTD_PROFILE="web-admin", VAULTD_GRANT="g1").out == f"web-admin·{said}\n"


def test_nothing_in_use_asks_nobody(stub: Stub, run: Run) -> None:
    """Most prompts are of shells that use nothing."""
    ended = run("prompt")

    assert (ended.status, ended.out, ended.err, stub.requests) == (0, "", "", [])


@pytest.mark.parametrize(
    "answer", [error(500, "InternalError", "x", 1), (200, {"profiles": []}), (200, STATUS), (200, {})]
)
def test_a_failure_prints_nothing(stub: Stub, run: Run, answer: Any) -> None:
    """And is 0 (interface.md §3)."""
    stub.answers["GET", QUERY + "web-admin"] = answer
    ended = run("prompt", VAULTD_PROFILE="gone" if answer == (200, STATUS) else "web-admin")

    assert (ended.status, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_no_character_that_a_prompt_takes(stub: Stub, run: Run, name: str) -> None:
    """bash, zsh and their PROMPT_SUBST, PROMPT_PERCENT and PROMPT_BANG."""
    assert not set(prompted(stub, run, name).partition("·")[0]) & set("\\$`%!\"'()")


def test_a_long_name_is_cut(stub: Stub, run: Run) -> None:
    """A prompt has a line."""
    assert len(prompted(stub, run, "n" * 150)) < 80


@pytest.mark.parametrize("command", ["__complete", "prompt"])
def test_a_reader_that_left(stub: Stub, command: str) -> None:
    """A closed pipe is no traceback either."""
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(CLIENT)} {command} zsh '' 3>&1 >&- | true"],
        env=environment(stub, VAULTD_PROFILE="web-admin"), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "Traceback" not in done.stderr
