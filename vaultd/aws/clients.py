"""botocore clients that know nothing but what they are told: no AWS files, no AWS environment, no keys of their own.

Rules
- botocore is imported on the first call, in a thread (390 ms, architecture.md §5); nothing here runs on the loop.
- No setting comes from ~/.aws, from AWS_* variables or from proxies in the environment: the catalog has read those
  that count, and a broken ~/.aws/config must not break STS. Models are botocore's own, never ~/.aws/models.
- A client is kept per endpoint, without keys: a call's keys stand in a thread-local for as long as the call takes.
- Each call has a connection of its own: a kept one that died during suspend would cost a token code (aws-facts
  §1.3(6)); a handshake costs milliseconds, a code costs a person.
- The last gate: a request leaves only for a URL that `endpoint_allowed` takes, whatever was checked above
  (architecture.md §3, security.md T11).
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from vaultd.aws.federation import federated
from vaultd.errors import Misconfigured
from vaultd.model.partitions import Endpoint, endpoint_allowed
from vaultd.model.secret import Secret
from vaultd.model.text import shown

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.config import Config
    from botocore.session import Session

Service = Literal["sts", "iam", "signin"]

#: A daemon has a handful of endpoints; this bounds what a config full of them can cost.
_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class Network:
    """How AWS is reached: `[aws]` of config.toml, or the variables of `vaultd start` (interface.md §7).

    Time-outs in seconds: architecture.md §8.6; botocore's own 60/60 are wrong for a daemon (aws-facts §1.3(8)).
    """

    https_proxy: str | None = field(default=None, repr=False)  # may carry a password
    no_proxy: str | None = None
    ca_bundle: str | None = None
    endpoint_allow: tuple[str, ...] = ()
    connect_timeout: float = 2.0
    read_timeout: float = 8.0

    def direct(self, url: str) -> bool:
        """True when `url` is reached without the proxy. Loopback always is: the proxy has another loopback."""
        host = urlsplit(url).hostname or ""
        if host in {"localhost", "::1"} or host.startswith("127."):
            return True
        bypass: Callable[[str, dict[str, str]], bool] = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # in the standard library, not in typeshed
        return bool(self.no_proxy) and bool(bypass(host, {"no": self.no_proxy or ""}))

    def bundle(self, endpoint: Endpoint) -> str | Literal[True]:
        """The profile's, else ours, else botocore's own; True keeps REQUESTS_CA_BUNDLE out."""
        path = endpoint.ca_bundle or self.ca_bundle
        if path is None:
            return True
        path = os.path.expanduser(path)  # noqa: PTH111 - `~` as AWS's own tools take it
        if not os.path.isfile(path):  # noqa: PTH113
            raise Misconfigured(
                f"the CA bundle {shown(path)} is not there; set ca_bundle to a PEM file and run `vaultd restart`"
            )
        return path

    def refused(self, url: str) -> Misconfigured:
        """What the last gate says of a host that gets no keys."""
        return Misconfigured(
            f"keys are not sent to {shown(urlsplit(url).netloc.rpartition('@')[2])}, which is neither AWS nor "
            "loopback; add the host to endpoint_allow under [aws] in config.toml and run `vaultd restart`"
        )


@dataclass(frozen=True, slots=True)
class Signer:
    """The keys that sign one call; `session_token` None for a long-term key."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


class Clients:
    """One botocore session and its clients. `call` blocks: threads only."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._making = threading.Lock()  # client creation is not thread-safe in botocore; calls are
        self._session: Session | None = None
        self._clients: dict[tuple[Service, Endpoint], BaseClient] = {}
        self._signing = threading.local()

    def warm(self) -> None:
        """Import botocore and build its session: what the first call would wait for."""
        with self._making:
            self._opened()

    def call(
        self, service: Service, method: str, *, endpoint: Endpoint, signer: Signer, parameters: Mapping[str, object]
    ) -> dict[str, Any]:
        """The parsed reply; raises botocore's exceptions and Misconfigured."""
        if service == "signin":
            return federated(self._network, endpoint, signer, parameters)
        client = self._client(service, endpoint)
        with self._signed_by(signer):
            reply: dict[str, Any] = getattr(client, method)(**parameters)
        return reply

    @contextmanager
    def _signed_by(self, signer: Signer) -> Iterator[None]:
        from botocore.credentials import ReadOnlyCredentials

        token = signer.session_token.reveal() if signer.session_token else None
        self._signing.keys = ReadOnlyCredentials(signer.access_key_id, signer.secret_access_key.reveal(), token)
        try:
            yield
        finally:
            del self._signing.keys

    def _client(self, service: Service, endpoint: Endpoint) -> BaseClient:
        with self._making:
            if (found := self._clients.get((service, endpoint))) is not None:
                return found
            if len(self._clients) >= _CLIENTS:
                self._clients.clear()
            made = self._clients[service, endpoint] = self._make(service, endpoint)
            return made

    def _make(self, service: Service, endpoint: Endpoint) -> BaseClient:
        url = endpoint.sts_url if service == "sts" else endpoint.iam_url
        if url is not None:
            self._gate(url)
        made = self._create(service, endpoint, url, proxy=self._network.https_proxy)
        if self._network.https_proxy and self._network.direct(made.meta.endpoint_url):  # known only once resolved
            made = self._create(service, endpoint, url, proxy=None)
        made.meta.events.register("before-send", self._before_send)
        return made

    def _create(self, service: Service, endpoint: Endpoint, url: str | None, *, proxy: str | None) -> BaseClient:
        client: BaseClient = self._opened().create_client(
            service,
            region_name=endpoint.region,
            endpoint_url=url,
            verify=self._network.bundle(endpoint),
            config=self._config(endpoint, {"https": proxy} if proxy else {}),
        )
        return client

    def _config(self, endpoint: Endpoint, proxies: dict[str, str]) -> Config:
        from botocore.config import Config

        options: dict[str, Any] = {  # the stubs lag behind botocore
            "user_agent_appid": "vaultd",  # in CloudTrail's userAgent (aws-facts §5)
            "ignore_configured_endpoint_urls": True,
            "defaults_mode": "legacy",
        }
        return Config(
            connect_timeout=self._network.connect_timeout,
            read_timeout=self._network.read_timeout,
            retries={"total_max_attempts": 1, "mode": "standard"},  # our own rule is in calls.py
            proxies=proxies,  # never None, which means the environment's
            use_fips_endpoint=endpoint.use_fips,
            use_dualstack_endpoint=endpoint.use_dualstack,
            **options,
        )

    def _opened(self) -> Session:
        if self._session is None:
            self._session = _isolated_session(self._signing)
        return self._session

    def _gate(self, url: str) -> None:
        if not endpoint_allowed(url, self._network.endpoint_allow):
            raise self._network.refused(url)

    def _before_send(self, request: Any, **_: object) -> None:
        """After signing, before a byte leaves: the gate, and a connection that is not kept (unsigned header)."""
        self._gate(request.url)
        request.headers["Connection"] = "close"


def _isolated_session(signing: threading.local) -> Session:
    """A botocore session for which every variable is its default, and the keys are whatever `signing` holds."""
    from botocore.credentials import Credentials, ReadOnlyCredentials
    from botocore.loaders import Loader
    from botocore.session import Session

    class CallKeys(Credentials):
        """Asked once per request, in the thread that makes it."""

        def __init__(self) -> None:
            super().__init__("", "", None, method="vaultd")

        def get_frozen_credentials(self) -> ReadOnlyCredentials:
            keys: ReadOnlyCredentials = signing.keys
            return keys

    class CallKeysProvider:
        """In the place of the chain that would look into the environment and ~/.aws."""

        def load_credentials(self) -> Credentials:
            return CallKeys()

    told = {name: (None, None, known[2], known[3]) for name, known in Session.SESSION_VARIABLES.items()}
    nothing = (None, None, os.devnull, None)
    session = Session(session_vars=told | {"config_file": nothing, "credentials_file": nothing})
    session.register_component("credential_provider", CallKeysProvider())
    session.register_component(
        "data_loader",
        Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False),
    )
    return session
