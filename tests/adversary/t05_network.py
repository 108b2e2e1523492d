"""T5: a neighbour on the network, a container on a bridge, and address translation of every kind: not one byte."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tests.adversary import naive, wire
from tests.adversary.case import Attack, Case
from tests.adversary.ground import Ground
from tests.adversary.people import OWNER, as_process, as_user
from tests.link_local.network import Neighbour, ip
from tests.process.harness import stop

WE = "10.99.0.1"
_NFT = """\
table ip adversary {
  chain pre {
    type nat hook prerouting priority dstnat;
    iifname "%(device)s" tcp dport 8080 dnat to 127.0.0.1:%(port)d;
  }
}
"""


def _set(name: str, value: int, *, of: Neighbour | None = None) -> None:
    """A sysctl of this network, or of the neighbour's."""
    if of is None:
        Path(f"/proc/sys/net/ipv4/conf/{name}").write_text(str(value))
    else:
        done = of.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/{name}")
        assert done.returncode == 0, done


@contextmanager
def localnet(device: str, neighbour: Neighbour, theirs: str, we: str) -> Iterator[None]:
    """`route_localnet` as Kubernetes nodes set it, and a neighbour that sends 127.0.0.1 over the wire."""
    _set(f"{device}/route_localnet", 1)
    _set(f"{device}/rp_filter", 0)
    _set("all/rp_filter", 0)
    _set("all/route_localnet", 1, of=neighbour)
    _set("all/rp_filter", 0, of=neighbour)
    _set(f"{theirs}/rp_filter", 0, of=neighbour)
    for address in ("127.0.0.0/8", "169.254.169.254/32", "169.254.170.2/32"):
        neighbour.run("ip", "route", "replace", address, "via", we, "dev", theirs)
    try:
        yield
    finally:
        _set(f"{device}/route_localnet", 0)


def asks(neighbour: Neighbour, address: wire.Address, sent: bytes) -> bytes:
    """From the other machine, by the owner's very number."""
    return as_user(OWNER, lambda: wire.talk(address, sent, seconds=2), network=neighbour.pid)


def by_wire(address: Callable[[Ground], wire.Address], sent: Callable[[Ground], bytes]) -> Attack:
    def act(ground: Ground) -> bytes:
        with localnet("wire0", ground.neighbour, "wire1", WE):
            return asks(ground.neighbour, address(ground), sent(ground))

    return act


def on_link(address: Callable[[Ground], wire.Address], sent: Callable[[Ground], bytes]) -> Attack:
    """The neighbour asks by ARP for the link-local address itself, as on hologram#95."""

    def act(ground: Ground) -> bytes:
        for each in ("169.254.169.254/32", "169.254.170.2/32"):
            ground.neighbour.run("ip", "route", "replace", each, "dev", "wire1")
        return asks(ground.neighbour, address(ground), sent(ground))

    return act


def _iptables(*words: str) -> None:
    subprocess.run(["iptables", "-t", "nat", *words], check=True, capture_output=True)


@contextmanager
def dnat(port: int, device: str = "wire0") -> Iterator[None]:
    _iptables(
        "-A", "PREROUTING", "-i", device, "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to", f"127.0.0.1:{port}"
    )
    try:
        yield
    finally:
        _iptables("-F")


@contextmanager
def dnat_from_loopback(port: int, device: str = "wire0") -> Iterator[None]:
    """As minikube's: the packets carry 127.0.0.1 as their source, too (aws-vault#595)."""
    with dnat(port, device):
        _iptables("-A", "INPUT", "-p", "tcp", "--dport", str(port), "-j", "SNAT", "--to-source", "127.0.0.1")
        yield


@contextmanager
def dnat_by_nftables(port: int, device: str = "wire0") -> Iterator[None]:
    subprocess.run(["nft", "-f", "-"], input=_NFT % {"port": port, "device": device}, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "adversary"], check=True)


@contextmanager
def redirected(port: int, device: str = "wire0") -> Iterator[None]:
    """REDIRECT goes to the device's own address, where nobody listens but who listens everywhere."""
    _iptables(
        "-A", "PREROUTING", "-i", device, "-p", "tcp", "--dport", "8080", "-j", "REDIRECT", "--to-ports", str(port)
    )
    try:
        yield
    finally:
        _iptables("-F")


def translated(
    how: Callable[[int], AbstractContextManager[None]], port: Callable[[Ground], int], sent: Callable[[Ground], bytes]
) -> Attack:
    """To 8080 of this machine, which is translated to a TCP port of loopback."""

    def act(ground: Ground) -> bytes:
        with localnet("wire0", ground.neighbour, "wire1", WE), how(port(ground)):
            return asks(ground.neighbour, (WE, 8080), sent(ground))

    return act


@contextmanager
def container() -> Iterator[Neighbour]:
    """A network behind a bridge, 10.98.0.2, as container engines make it."""
    command = ["unshare", "-n", "sh", "-c", "echo; exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "\n"
            made = Neighbour(holder.pid)
            ip("link", "add", "bridge0", "type", "bridge")
            ip("address", "add", "10.98.0.1/24", "dev", "bridge0")
            ip("link", "set", "bridge0", "up")
            ip("link", "add", "leg0", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            ip("link", "set", "leg0", "master", "bridge0")
            ip("link", "set", "leg0", "up")
            made.run("ip", "address", "add", "10.98.0.2/24", "dev", "eth0")
            made.run("ip", "link", "set", "eth0", "up")
            with localnet("bridge0", made, "eth0", "10.98.0.1"):
                yield made
        finally:
            stop(holder)
            ip("link", "delete", "bridge0")


def from_container(
    address: Callable[[Ground], wire.Address],
    sent: Callable[[Ground], bytes],
    how: Callable[[Ground], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Attack:
    def act(ground: Ground) -> bytes:
        with container() as made, how(ground):
            return asks(made, address(ground), sent(ground))

    return act


def _daemon_port(ground: Ground) -> int:
    return ground.home.port


def _naive_port(ground: Ground) -> int:
    return ground.naive_port


def _door_port(ground: Ground) -> int:
    return ground.door


def _at(address: str, port: Callable[[Ground], int]) -> Callable[[Ground], wire.Address]:
    return lambda ground: (address, port(ground))


def _keys(ground: Ground) -> bytes:
    return ground.get()


def _put(ground: Ground) -> bytes:
    return ground.put()


def _role(ground: Ground) -> bytes:
    return ground.role()


def _link_local_put(ground: Ground) -> bytes:
    return ground.put(host="169.254.169.254")


def _container_keys(ground: Ground) -> bytes:
    return ground.get().replace(b"127.0.0.1:%d" % ground.home.port, b"169.254.170.2")


def everywhere(ground: Ground) -> bytes:
    """The wire carries TCP to who listens on every address: a naive server as others have bound it."""
    with naive.listen("0.0.0.0", 0) as sock, as_process(OWNER, lambda: naive.serve(sock)):
        return asks(ground.neighbour, (WE, sock.getsockname()[1]), ground.get())


def redirected_to_everywhere(ground: Ground) -> bytes:
    with naive.listen("0.0.0.0", 0) as sock, as_process(OWNER, lambda: naive.serve(sock)):
        port = sock.getsockname()[1]
        return translated(redirected, lambda _: port, _keys)(ground)


def by_v6(address: str) -> Attack:
    """Nothing of ours speaks IPv6."""

    def act(ground: Ground) -> bytes:
        def ask() -> bytes:
            try:
                with wire.connected((address, ground.home.port), family=socket.AF_INET6) as sock:
                    sock.sendall(ground.get())
                    return wire.read_all(sock)
            except OSError:
                return b""

        return as_user(OWNER, ask)

    return act


PROMISE = "A machine on the network gets no byte, however its packets come"
CONTAINER = "A container gets no byte, whatever is translated"
NAIVE = "the same way reaches a server that is bound to 127.0.0.1 and to no device"
_NAT = ((dnat, "dnat"), (dnat_from_loopback, "dnat-from-loopback"), (dnat_by_nftables, "dnat-by-nftables"))


def _translated(how: Callable[[int], AbstractContextManager[None]], name: str) -> Iterator[Case]:
    control = translated(how, _naive_port, _keys)
    yield Case(f"T5-{name}", "T5", PROMISE, translated(how, _daemon_port, _keys), NAIVE, control)
    yield Case(f"T5-{name}-door", "T5", PROMISE, translated(how, _door_port, _role), NAIVE, control)


def _bridged(how: Callable[..., AbstractContextManager[None]], name: str) -> Case:
    at = _at("10.98.0.1", lambda _: 8080)
    attack = from_container(at, _keys, lambda ground: how(ground.home.port, "bridge0"))
    control = from_container(at, _keys, lambda ground: how(ground.naive_port, "bridge0"))
    return Case(f"T5-container-{name}", "T5", CONTAINER, attack, NAIVE, control)


_LOCALNET = by_wire(_at("127.0.0.1", _naive_port), _keys)
_LINK_LOCAL = by_wire(_at("169.254.169.254", _naive_port), _keys)

CASES = (
    Case(
        "T5-address-of-the-wire", "T5", PROMISE, by_wire(_at(WE, _daemon_port), _keys),
        "a server that listens on every address is reached", everywhere,
    ),
    Case("T5-route-localnet", "T5", PROMISE, by_wire(_at("127.0.0.1", _daemon_port), _keys), NAIVE, _LOCALNET),
    Case("T5-route-localnet-door", "T5", PROMISE, by_wire(_at("127.0.0.1", _door_port), _put), NAIVE, _LOCALNET),
    Case(
        "T5-link-local-routed", "T5", PROMISE, by_wire(_at("169.254.169.254", lambda _: 80), _link_local_put),
        "the same way reaches a server on that address that is bound to no device", _LINK_LOCAL,
    ),
    Case(
        "T5-link-local-by-arp", "T5", PROMISE, on_link(_at("169.254.169.254", lambda _: 80), _link_local_put),
        "the same way reaches a server on that address that is bound to no device",
        on_link(_at("169.254.169.254", _naive_port), _keys),
    ),
    Case(
        "T5-container-address-by-arp", "T5", PROMISE, on_link(_at("169.254.170.2", lambda _: 80), _container_keys),
        "a server on 169.254.169.254 that is bound to no device is reached so",
        on_link(_at("169.254.169.254", _naive_port), _keys),
    ),
    *(case for how, name in _NAT for case in _translated(how, name)),
    Case(
        "T5-redirect", "T5", PROMISE, translated(redirected, _daemon_port, _keys),
        "a server that listens on every address is reached", redirected_to_everywhere,
    ),
    *(_bridged(how, name) for how, name in _NAT),
    Case(
        "T5-container-route-localnet", "T5", CONTAINER, from_container(_at("127.0.0.1", _daemon_port), _keys), NAIVE,
        from_container(_at("127.0.0.1", _naive_port), _keys),
    ),
    Case(
        "T5-container-metadata-address", "T5", CONTAINER,
        from_container(_at("169.254.169.254", lambda _: 80), _link_local_put),
        "the same way reaches a server on that address that is bound to no device",
        from_container(_at("169.254.169.254", _naive_port), _keys),
    ),
    Case(
        "T5-ipv6-loopback", "T5", "Nothing of vaultd speaks IPv6", by_v6("::1"),
        "the same port by a mapped IPv4 address is answered", by_v6("::ffff:127.0.0.1"),
    ),
)  # fmt: skip
