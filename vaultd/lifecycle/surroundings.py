"""What a daemon is built from: where its files are, its settings, its clock; AWS; and the keeper on real stores.

Rule: nothing here reads the machine but through what it is given, so that a test builds the same whole elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultd.aws.calls import Calls
from vaultd.aws.clients import Clients, Network
from vaultd.aws.iam import BotoIam
from vaultd.aws.sts import BotoSts
from vaultd.aws.threads import Threads
from vaultd.config import Settings, load_for
from vaultd.engine.seams import Clock, Iam, IdentityStore, Sts
from vaultd.errors import Misconfigured
from vaultd.files import Files, Layout
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.opening import Stores
from vaultd.store.identities import IdentityIndex, IndexEntry
from vaultd.store.sealed_file import SealedFile
from vaultd.store.sealed_log import SealedLogFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is given: where the files are, the environment that the contract reads, the settings, the time.

    `settings_path` is the file that the settings came from, where it is not `config.toml` of the layout; `port_given`:
    the port came from --port. A restart keeps both.
    """

    layout: Layout
    files: Files
    environ: Mapping[str, str]
    settings: Settings
    clock: Clock
    settings_path: Path | None = None
    port_given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Amazon:
    """AWS as the keeper sees it, and what the daemon does with it before the first call."""

    sts: Sts
    iam: Iam
    warm: Callable[[], Any] | None = None


def real_amazon(around: Surroundings) -> Amazon:
    """boto3 behind threads of our own; nothing is imported before the first call."""
    aws = around.settings.aws
    network = Network(
        https_proxy=aws.https_proxy,
        no_proxy=aws.no_proxy,
        ca_bundle=aws.ca_bundle,
        endpoint_allow=aws.endpoint_allow,
    )
    calls = Calls(clients=Clients(network), threads=Threads(), clock=around.clock)
    return Amazon(sts=BotoSts(calls=calls, clock=around.clock), iam=BotoIam(calls=calls), warm=calls.warm)


def make_keeper(around: Surroundings, amazon: Amazon, keyring: IdentityStore) -> DaemonKeeper:
    """The keeper with the real store, log and index of this home."""
    layout, files = around.layout, around.files
    file = SealedFile(files, layout.secrets_sealed, seen=layout.secrets_seen, clock=around.clock)
    return DaemonKeeper(
        stores=Stores({"keyring": lambda: keyring, "file": lambda: file}, choice=around.settings.store.backend),
        sealed_log=SealedLogFile(files, layout.sessions_sealed),
        index=IdentityIndex(files, layout.identities_json),
        make_entry=IndexEntry,
        sts=amazon.sts,
        iam=amazon.iam,
        clock=around.clock,
        files=files,
        locked_marker=layout.locked_marker,
        persist=around.settings.sessions.persist,
    )


def read_settings(
    files: Files, layout: Layout, environ: Mapping[str, str], *, port: int | None, config: Path | None
) -> Settings:
    """From `config`, else config.toml, which may be absent; `port` goes before what is written there."""
    path = config or layout.config_toml
    content = files.read_config(path)
    if content is None and config is not None:
        raise Misconfigured(f"there is no {config}: correct the path after --config")
    settings = load_for((content or b"").decode(errors="replace"), environ, path=str(path))
    if port is None:
        return settings
    return settings.model_copy(update={"listen": settings.listen.model_copy(update={"port": port})})
