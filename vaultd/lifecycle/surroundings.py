"""What a daemon is built from: where its files are, its settings, its clock; AWS; and the keeper on real stores.

Rule: nothing here reads the machine but through what it is given, so that a test builds the same whole elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vaultd import __version__, logs
from vaultd.aws.clients import Network
from vaultd.config import Settings, load_for
from vaultd.engine.seams import Clock, IdentityStore
from vaultd.errors import Misconfigured
from vaultd.files import Files
from vaultd.keeper.keeper import DaemonKeeper
from vaultd.keeper.remote import RemoteKeeper
from vaultd.keeper.wire import Said, Setup
from vaultd.layout import Layout
from vaultd.lifecycle import keeping
from vaultd.lifecycle.keeping import Amazon


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is given: where the files are, the environment that the contract reads, the settings, the time.

    `settings_path` is the file that the settings came from, where it is not `config.toml` of the layout; `port_given`:
    the port came from --port. A restart keeps both. `settings_read`: they came from a file, which may change.
    """

    layout: Layout
    files: Files
    environ: Mapping[str, str]
    settings: Settings
    clock: Clock
    settings_path: Path | None = None
    port_given: bool = False
    settings_read: bool = False


def real_amazon(around: Surroundings) -> Amazon:
    """boto3 behind threads of our own; nothing is imported before the first call."""
    aws = around.settings.aws
    network = Network(
        https_proxy=aws.https_proxy,
        no_proxy=aws.no_proxy,
        ca_bundle=aws.ca_bundle,
        endpoint_allow=aws.endpoint_allow,
    )
    return keeping.amazon(network, around.clock)


def make_keeper(around: Surroundings, amazon: Amazon, keyring: IdentityStore) -> DaemonKeeper:
    """The keeper with the real store, log and index of this home."""
    settings = around.settings
    return keeping.keeper(
        around.layout,
        around.files,
        around.clock,
        outside=amazon,
        keyring=keyring,
        backend=settings.store.backend,
        persist=settings.sessions.persist,
    )


def spawn_keeper(around: Surroundings, environ: Mapping[str, str], *, log_level: int) -> RemoteKeeper:
    """The keeper in a process of its own, which is started at once with `environ` and nothing else of ours."""
    layout, aws = around.layout, around.settings.aws
    setup = Setup(
        version=__version__,
        directories=(str(layout.config), str(layout.run), str(layout.state), str(layout.data)),
        backend=around.settings.store.backend,
        persist=around.settings.sessions.persist,
        log_level=log_level,
        https_proxy=aws.https_proxy,
        no_proxy=aws.no_proxy,
        ca_bundle=aws.ca_bundle,
        endpoint_allow=aws.endpoint_allow,
    )
    return RemoteKeeper(lambda: keeping.Process(setup, environ), say=_said)


def _said(said: Said) -> None:
    logs.arrived(said.level, said.name, said.text, said.trace)


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
