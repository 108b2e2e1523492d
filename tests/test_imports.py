"""Who may import whom (architecture.md §2), what the client loads at start-up, and where secrets are revealed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ROOT / "vaultd"

#: room → rooms of ours that it may import. A room may always import itself, but errors imports nothing.
MAY: dict[str, set[str]] = {
    "errors": set(),
    "ownership": {"errors"},
    "layout": {"errors"},
    "flock": {"ownership"},
    "files": {"errors", "ownership", "layout", "flock"},
    "model": {"errors"},
    "engine": {"model", "errors", "files"},
    "keeper": {"model", "errors", "files", "engine.seams"},
    "aws": {"model", "errors", "files", "engine.seams"},
    "store": {"model", "errors", "files", "engine.seams"},
    "host": {"errors", "files", "layout", "model"},  # model for Peer: what the kernel tells is a frozen value
    "web": {"model", "errors", "engine", "host"},
    "config": {"config_refusal", "errors", "files", "model.programs"},  # the names that `relays` may have are there
    "config_refusal": set(),
    "logs": {"errors", "files"},
    "catalog": {"config", "model", "errors", "files"},
}
#: The keeper's own composition root: everything but what listens, and the daemon around it.
MAY["keeper.process"] = MAY["keeper"] | {
    "keeper", "layout", "flock", "aws", "store", "host", "logs", "lifecycle.keeping",
}  # fmt: skip
EVERYTHING = {"checks", "command", "daemon", "lifecycle", "cli", "__main__", "__init__"}  # fmt: skip

#: outside package → the rooms it lives in
HOME = {
    "boto3": {"aws"},
    "botocore": {"aws"},
    "keyring": {"store"},
    "cryptography": {"store"},
    "secretstorage": {"store"},
    "jeepney": {"host"},
    "aiohttp": {"web"},
    "uvloop": {"lifecycle"},
}

#: every place of `reveal()` or `reveal_bytes()` in the product, file by file
REVEALS = {
    "vaultd/model/dialects.py",
    "vaultd/model/environment.py",  # the grant's token, into the variables of `use` and `exec`
    "vaultd/keeper/codec.py",
    "vaultd/keeper/codes.py",
    "vaultd/keeper/wire.py",  # to travel between the daemon and its keeper, over a socketpair of theirs alone
    "vaultd/aws/sts.py",
    "vaultd/aws/clients.py",
    "vaultd/aws/console.py",  # the sign-in token, into the URL that it is for
    "vaultd/aws/federation.py",  # the role's keys, into the body of getSigninToken
    "vaultd/store/aws_vault.py",  # the passphrase of another program's file store, to open it
    "vaultd/store/os_keyring.py",
    "vaultd/store/sealed_file.py",
    "vaultd/store/sealed_log.py",
}

CLIENT_START_BANNED = ("http.client", "urllib.request", "urllib.parse", "pathlib", "dataclasses", "asyncio")


def room(path: Path) -> str:
    parts = path.relative_to(PRODUCT).parts
    if parts == ("keeper", "process.py"):
        return "keeper.process"
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def allowed(importer: str, name: str) -> bool:
    """True when a module of room `importer` may import `name` (dotted)."""
    parts = name.split(".")
    if parts[0] in HOME:
        return importer in HOME[parts[0]] | (EVERYTHING if parts[0] == "aiohttp" else set())
    if parts[0] != "vaultd" or importer in EVERYTHING or len(parts) == 1 or parts[1] == "__version__":
        return importer in EVERYTHING or parts[0] != "vault_client"
    if parts[1] == importer and importer != "errors":
        return True
    return any(parts[1 : 1 + len(may.split("."))] == may.split(".") for may in MAY[importer])


def modules() -> list[Path]:
    return sorted(path for path in PRODUCT.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_house(path: Path) -> None:
    """A room imports only what architecture.md §2 gives it, and each outside package has one home."""
    package_marker = {"vaultd.engine"}  # `from vaultd.engine.seams import X` names the package too
    wrong = {
        name
        for name in imported(path)
        if name not in package_marker and not allowed(room(path), name) and not allowed(room(path), name + ".seams")
    }

    assert set() == wrong


def test_the_import_rule_can_fail() -> None:
    """Positive control: the rule refuses what it must."""
    assert not allowed("web", "vaultd.keeper.keeper")
    assert not allowed("model", "vaultd.engine.seams")
    assert not allowed("store", "boto3.session")
    assert not allowed("keeper", "vaultd.engine.broker")
    assert not allowed("aws", "vaultd.store.sealed_file")
    assert allowed("keeper", "vaultd.engine.seams.Keeper")


def test_reveal_lives_where_it_is_listed() -> None:
    """Secrets are revealed in keeper's codec, dialects, aws and store, each place listed (architecture.md §3)."""
    found = {
        str(path.relative_to(ROOT))
        for path in modules()
        if path.name != "secret.py"
        and any(
            isinstance(node, ast.Attribute) and node.attr in {"reveal", "reveal_bytes"}
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }

    assert found == REVEALS


def test_model_is_pure() -> None:
    """Model imports the standard library only, and nothing of it that does I/O or tells the time."""
    banned = {"asyncio", "socket", "os", "subprocess", "time", "pathlib", "threading"}
    for path in (PRODUCT / "model").glob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            assert top == "vaultd" or (top in sys.stdlib_module_names and top not in banned), f"{path.name}: {name}"


def test_the_client_never_imports_the_daemon_nor_a_package() -> None:
    """vault_client is standard library only."""
    for path in (ROOT / "client" / "vault_client").glob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            assert top == "vault_client" or top in sys.stdlib_module_names, f"{path.name}: {name}"


def test_the_client_starts_light() -> None:
    """At start-up the client loads none of the slow modules (performance.md, last paragraph: 22 ms against 43)."""
    banned = repr(CLIENT_START_BANNED)
    code = f"import sys, vault_client.cli; print([m for m in {banned} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
