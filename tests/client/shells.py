"""Real shells with the function of `shell-init` in them, on pipes; the client is this checkout's."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.client.stub import GRANT_ROW, Stub, environment

POSIX = [pytest.param(name, marks=pytest.mark.needs(name), id=name) for name in ("bash", "zsh")]
ALL = [*POSIX, pytest.param("fish", marks=pytest.mark.needs("fish"), id="fish")]
#: The shell without the configuration of whoever runs the tests; fish reads what is in the HOME of the test.
FLAGS = {"bash": ["--norc"], "zsh": ["-f"], "fish": []}
CLIENT = [sys.executable, "-m", "vault_client"]
#: Names that a config file may hold and a person may type, which a shell would take apart or run.
NAMES = (
    "team prod",
    "it's",
    'say "hi"',
    "$(touch PWNED)",
    "`touch PWNED`",
    "a;touch PWNED;b",
    "$HOME\\n",
    "*?[a]{b,c}~!#",
    "50% %n %F{red}",
    "a:b=c@d",
    "ü日本🚀",
    "👩\u200d💻 \uf115",
    "-x",
    "!!",
    "a&b|c<d>e",
)


@dataclass
class Spoke:
    """What a script printed."""

    status: int
    out: str
    err: str


def counted(stub: Stub) -> None:
    """Each grant of its own id: g1, g2, …; every one of them can be revoked, and is listed until then."""
    numbers = itertools.count(1)
    rows: list[dict[str, Any]] = []

    def answer(body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        wanted = body or {}
        make = stub.imds_grant if wanted.get("imds") else stub.grant
        grant = make(profile=wanted["profile"])
        grant["id"] = grant["set"]["VAULTD_GRANT"] = f"g{next(numbers)}"
        rows.append({**GRANT_ROW, "id": grant["id"], "kind": "shell", "peer": {"pid": wanted.get("pid")}})
        if region := wanted.get("region"):
            grant["set"] |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        return 201, grant

    def listed(_body: object) -> tuple[int, dict[str, Any]]:
        return 200, {"grants": [row for row in rows if row["id"] not in revoked(stub)]}

    stub.answers["POST", "/v1/grants"] = answer
    stub.answers["GET", "/v1/grants"] = listed
    stub.answers.update({("DELETE", f"/v1/grants/g{number}"): (200, {}) for number in range(1, 30)})


def revoked(stub: Stub) -> list[str]:
    """The grants that were ended, in order."""
    return [path.rpartition("/")[2] for verb, path, _ in stub.requests if verb == "DELETE"]


def made(stub: Stub) -> list[dict[str, Any]]:
    """What was asked for, in order."""
    return [body or {} for body in stub.asked("POST", "/v1/grants")]


def init(name: str, *, client: str = "") -> str:
    """What an rc file evaluates. `client`: another program in our place."""
    printed = subprocess.run(
        [*CLIENT, "shell-init", name],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "client"), "PATH": "/usr/bin:/bin"},
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    return printed.replace(_own(), client) if client else printed


def _own() -> str:
    return " ".join(f"'{word}'" for word in CLIENT)


def spoken(name: str, script: str, stub: Stub, *, before: str = "", **environ: str) -> Spoke:
    """Run `script` in a shell that has integration; `before` runs first of all, as a part of its rc file would."""
    rc = stub.home / f"rc.{name}"
    rc.write_text(init(name))
    text = f"{before}\nsource {rc}\n{script}\n"
    done = subprocess.run(
        [name, *FLAGS[name], "-c", text], env=environment(stub, **environ), capture_output=True, check=False,
        cwd=stub.home, timeout=60,
    )  # fmt: skip
    assert not (stub.home / "PWNED").exists()
    return Spoke(done.returncode, done.stdout.decode(), done.stderr.decode())


def quoted(name: str, text: str) -> str:
    """`text` as one word of a script in that shell."""
    if name == "fish":
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + text.replace("'", "'\\''") + "'"
