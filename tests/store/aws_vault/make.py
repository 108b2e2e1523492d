"""The fixtures of this folder, written by aws-vault's own Go packages: `make import-fixtures`.

`fixtures/file.json` is {file name: content} of a file store (a checkout elsewhere could not hold those names, and git
keeps no mode 0600); `fixtures/awsvault.keyring` is gnome-keyring's own file of the collection, a keyring without a
password. Every key in them is made up.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.store.gnome_session import PRIVATE_BUS

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
FIXTURES: Final = HERE / "fixtures"
PASSPHRASE: Final = "correct hörse"
#: name → (key id, secret), as generator/main.go has them.
KEYS: Final = {
    "identity": ("AKIAIMPORTED00000001", "canary/import+1" + "a" * 25),
    "team/prod": ("AKIAIMPORTED00000002", "canary/import+2" + "b" * 25),
    "50% off": ("AKIAIMPORTED00000003", "canary/import+3" + "c" * 25),
    "bücher": ("AKIAIMPORTED00000004", "canary/import+4" + "d" * 25),
    "../../escape": ("AKIAIMPORTED00000005", "canary/import+5" + "e" * 25),
}
TEMPORARY: Final = "temporary"
#: A collection that gnome-keyring takes for its own and has unlocked: to make one, it would ask a person.
EMPTY_KEYRING: Final = "[keyring]\ndisplay-name=awsvault\nctime=0\nmtime=0\nlock-on-idle=false\nlock-after=false\n"


def built(folder: Path) -> Path:
    """The generator's program."""
    program = folder / "generator"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=HERE / "generator", check=True, timeout=540)
    return program


def file_store(program: Path, folder: Path) -> dict[str, str]:
    """What the Go writer leaves in a directory."""
    keys = folder / "keys"
    subprocess.run([str(program), "file", str(keys), PASSPHRASE], check=True, timeout=60)
    return {each.name: each.read_text() for each in sorted(keys.iterdir())}


def collection(program: Path, folder: Path) -> str:
    """What the Go writer leaves in a Secret Service."""
    home = keyring_home(folder, EMPTY_KEYRING)
    in_session(home, "write", str(program))
    return (home / ".local/share/keyrings/awsvault.keyring").read_text()


def keyring_home(folder: Path, keyring: str) -> Path:
    """A home whose Secret Service has that collection."""
    home = folder / "keyring-home"
    keyrings = home / ".local/share/keyrings"
    keyrings.mkdir(parents=True)
    (home / "run").mkdir(mode=0o700)
    (keyrings / "awsvault.keyring").write_text(keyring)
    (keyrings / "awsvault.keyring").chmod(0o600)
    return home


def in_session(home: Path, case: str, *arguments: str) -> str:
    """A case of session.py on a bus of its own; what it printed."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}
    ran = subprocess.run(
        [*PRIVATE_BUS, sys.executable, "-m", "tests.store.aws_vault.session", case, *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def stored(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A file store as aws-vault leaves it: the fixture's, or one of `files`."""
    keys = folder / ".awsvault" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    for name, content in (json.loads((FIXTURES / "file.json").read_text()) if files is None else files).items():
        (keys / name).write_text(content)
        (keys / name).chmod(0o600)
    return keys


def main() -> None:
    """Write both fixtures anew."""
    for tool in ("go", "dbus-run-session", "gnome-keyring-daemon"):
        if shutil.which(tool) is None:
            sys.exit(f"make import-fixtures: {tool} is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = built(folder)
        FIXTURES.mkdir(exist_ok=True)
        files = json.dumps(file_store(program, folder), indent=1, ensure_ascii=False)
        (FIXTURES / "file.json").write_text(files + "\n")
        (FIXTURES / "awsvault.keyring").write_text(collection(program, folder))


if __name__ == "__main__":
    main()
