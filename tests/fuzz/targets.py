"""Every target by its name, which is also that of its folder in corpus/."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.fuzz import files, foreign, listeners
from tests.fuzz.target import Target

CORPUS: Final = Path(__file__).with_name("corpus")

TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "credential-endpoint": listeners.Endpoint,
    "metadata-door": listeners.MetadataDoor,
    "control-socket": listeners.ControlSocket,
    "doors-socket": listeners.DoorsSocket,
    "secrets-sealed": files.Store,
    "sessions-sealed": files.SessionLog,
    "session-records": files.SessionRecords,
    "grants-json": files.GrantsFile,
    "identities-json": files.IdentitiesFile,
    "audit-jsonl": files.AuditFile,
    "aws-config": files.AwsConfig,
    "aws-vault": foreign.AwsVaultFiles,
    "config-toml": files.ConfigToml,
    "metadata-tokens": files.MetadataTokens,
    "client-files": files.ClientFiles,
}


@contextmanager
def target(name: str) -> Iterator[Target]:
    """The target of that name, ready; closed at the end."""
    made = TARGETS[name]()
    try:
        yield made
    finally:
        made.close()


def corpus(name: str) -> list[Path]:
    """The inputs that once found something, by name."""
    folder = CORPUS / name
    return sorted(folder.iterdir()) if folder.is_dir() else []
