"""STS behind a CONNECT proxy and a CA of our own, at a host name that only the proxy can resolve."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.aws.rooms import Aws, SkippingClock
from tests.strict_sts import FRANKLIN, StrictSts
from vaultd.aws.clients import Network
from vaultd.errors import Misconfigured, StsUnavailable
from vaultd.model.partitions import Endpoint

HOST = "sts.corp.example"


@dataclass
class Proxy:
    """Tunnels every CONNECT to one address; `asked` lists the targets, `authorized` the Proxy-Authorization fields."""

    upstream: int
    asked: list[str] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)
    refuse: bool = False
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split("\r\n")[0])
        self.authorized += [line for line in head.split("\r\n") if line.lower().startswith("proxy-authorization")]
        if self.refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def proxied(upstream: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://user:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """ca.pem, and server.pem with server.key for HOST, localhost and 127.0.0.1 under it."""
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vaultd test CA")])
    _write(tmp_path / "ca.pem", _certificate(issuer, ca_key, issuer, ca_key, authority=True))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    _write(tmp_path / "server.pem", _certificate(subject, server_key, issuer, ca_key, authority=False))
    (tmp_path / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return tmp_path


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.DNSName(HOST), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signs = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@dataclass
class Corporate:
    """The emulator behind TLS behind the proxy, and the settings of `[aws]` that reach it."""

    strict: StrictSts
    proxy: Proxy
    network: Network
    clock: SkippingClock

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("eu-west-1", sts_url=f"https://{HOST}", iam_url=f"https://{HOST}")

    def aws(self, **changed: object) -> Aws:
        return Aws(self.strict, self.clock, network=replace(self.network, **changed))  # type: ignore[arg-type]


@pytest.fixture
async def corporate(ca: Path, clock: SkippingClock) -> AsyncIterator[Corporate]:
    async with (
        StrictSts(clock=clock, tls=(ca / "server.pem", ca / "server.key")) as strict,
        proxied(int(strict.url.rsplit(":", 1)[1])) as proxy,
    ):
        network = Network(https_proxy=proxy.url, ca_bundle=str(ca / "ca.pem"), endpoint_allow=(HOST,))
        yield Corporate(strict, proxy, network, clock)


async def test_sts_and_iam_through_proxy_and_ca(corporate: Corporate) -> None:
    """Key, code and role all go through the tunnel; the proxy sees the host name and its own password only."""
    aws = corporate.aws()

    assert await aws.whoami(endpoint=corporate.endpoint) == FRANKLIN
    assert len(await aws.iam.mfa_devices(aws.key(), endpoint=corporate.endpoint)) == 1
    await aws.assume(await aws.mfa(endpoint=corporate.endpoint), endpoint=corporate.endpoint)

    assert {line.rpartition(" ")[0] for line in corporate.proxy.asked} == {f"CONNECT {HOST}:443"}
    assert len(corporate.proxy.asked) == len(corporate.strict.calls()) == 4
    assert len(corporate.proxy.authorized) == 4


async def test_a_profiles_own_bundle_comes_first(corporate: Corporate) -> None:
    """`ca_bundle` of the profile over that of `[aws]`."""
    bundle = corporate.network.ca_bundle
    aws = corporate.aws(ca_bundle="/nowhere/ca.pem")

    assert await aws.whoami(endpoint=replace(corporate.endpoint, ca_bundle=bundle)) == FRANKLIN


async def test_a_ca_that_is_not_known_is_refused(corporate: Corporate) -> None:
    """Without the bundle: no code leaves, and the message names the setting."""
    aws = corporate.aws(ca_bundle=None)

    with pytest.raises(StsUnavailable, match=r"TLS certificate is not trusted .*set ca_bundle under") as refused:
        await aws.mfa(endpoint=corporate.endpoint)

    assert refused.value.details == {"code_sent": False}
    assert corporate.strict.calls() == []


async def test_a_host_that_is_not_listed_is_refused(corporate: Corporate) -> None:
    """Before the proxy is asked anything."""
    aws = corporate.aws(endpoint_allow=())

    with pytest.raises(Misconfigured, match=r"keys are not sent to sts\.corp\.example"):
        await aws.whoami(endpoint=corporate.endpoint)
    assert corporate.proxy.asked == []


async def test_a_proxy_that_refuses_sends_no_code(corporate: Corporate) -> None:
    """407: unavailable, and its password is not told."""
    corporate.proxy.refuse = True
    aws = corporate.aws()

    with pytest.raises(StsUnavailable) as away:
        await aws.mfa(endpoint=corporate.endpoint)

    assert away.value.details == {"code_sent": False}
    assert "hunter2" not in str(away.value)
    assert len(corporate.proxy.asked) == 1


async def test_no_proxy_goes_straight(corporate: Corporate) -> None:
    """Loopback never goes through it, nor what no_proxy names."""
    port = corporate.strict.url.rsplit(":", 1)[1]
    loopback = Endpoint("eu-west-1", sts_url=f"https://127.0.0.1:{port}")

    assert await corporate.aws().whoami(endpoint=loopback) == FRANKLIN
    with pytest.raises(StsUnavailable):  # straight to a name that nobody but the proxy knows
        await corporate.aws(no_proxy=HOST).whoami(endpoint=corporate.endpoint)
    assert corporate.proxy.asked == []
