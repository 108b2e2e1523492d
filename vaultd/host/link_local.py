"""The two link-local addresses that SDKs know by heart: their sockets, and the machines where they are AWS's own.

Rules
- Root makes the socket (systemd's or launchd's own code), we are handed it: so it is looked at before it is believed,
  kind, state and address, and bound to the loopback device where it is not yet. An alias on lo answers ARP on every
  other device, and a neighbour's packets then reach it (security.md §1 T5).
- On a machine of a cloud the address is that cloud's metadata, which the system itself lives on: never taken there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vaultd.errors import BadRequest

Dialect = Literal["imds", "ecs"]


@dataclass(frozen=True, slots=True)
class LinkLocal:
    """A dialect, and where it is spoken on a machine of AWS's."""

    dialect: Dialect
    address: str
    port: int = 80

    @property
    def unit(self) -> str:
        """The name of its systemd units, without the ending."""
        return f"vaultd-{self.dialect}"


IMDS: Final = LinkLocal("imds", "169.254.169.254")
ECS: Final = LinkLocal("ecs", "169.254.170.2")
PLACES: Final[Mapping[str, LinkLocal]] = {each.dialect: each for each in (IMDS, ECS)}

#: (file below /sys or /, what it begins with or holds in any letter case, whose machine that is). The uuid of a Xen
#: instance begins with ec2; its DMI copy may be byte-swapped and is root's to read, its vendor files are everybody's.
_CLOUDS: Final = (
    ("sys/class/dmi/id/sys_vendor", "amazon ec2", "an EC2 instance"),
    ("sys/class/dmi/id/board_vendor", "amazon ec2", "an EC2 instance"),
    ("sys/class/dmi/id/bios_vendor", "amazon ec2", "an EC2 instance"),
    ("sys/class/dmi/id/bios_version", "amazon", "an EC2 instance"),
    ("sys/class/dmi/id/product_version", "amazon", "an EC2 instance"),
    ("sys/class/dmi/id/product_uuid", "^ec2", "an EC2 instance"),
    ("sys/hypervisor/uuid", "^ec2", "an EC2 instance"),
    ("sys/class/dmi/id/product_name", "google compute engine", "a Google Cloud machine"),
    ("sys/class/dmi/id/chassis_asset_tag", "^7783-7084-3265-9085-8269-3286-77", "an Azure machine"),
    ("sys/class/dmi/id/product_name", "openstack", "an OpenStack machine"),
)
#: Set in every container of ECS and Fargate: there 169.254.170.2 is the agent's.
_ECS_VARIABLES: Final = ("ECS_CONTAINER_METADATA_URI_V4", "ECS_CONTAINER_METADATA_URI")


def cloud(environ: Mapping[str, str], *, root: Path = Path("/")) -> str | None:
    """Whose machine this is, where the link-local addresses are somebody's already; None: nobody's."""
    if any(environ.get(name) for name in _ECS_VARIABLES):
        return "an ECS container"
    for name, mark, whose in _CLOUDS:
        text = _text(root / name)
        if text.startswith(mark[1:]) if mark[0] == "^" else mark in text:
            return whose
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip().lower()
    except OSError:
        return ""


def given_listener(descriptor: int, *, place: LinkLocal) -> socket.socket:
    """The listening socket behind a descriptor that was handed over; it is ours then, or closed.

    Raises BadRequest naming what it is instead.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        os.close(descriptor)
        raise _refused("is no socket", place) from exc
    if (found := _found(sock, place)) is not None:
        sock.close()
        raise _refused(found, place)
    sock.setblocking(False)
    _keep_on_loopback(sock)
    return sock


def _found(sock: socket.socket, place: LinkLocal) -> str | None:
    """What it is instead of what it should be."""
    if sock.family != socket.AF_INET or sock.type != socket.SOCK_STREAM:
        return "is no TCP socket of IPv4"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen"
    address, port = sock.getsockname()
    return None if (address, port) == (place.address, place.port) else f"is bound to {address}:{port}"


def _refused(found: str, place: LinkLocal) -> BadRequest:
    return BadRequest(
        f"The descriptor that was handed over {found}, not a listener on {place.address}:{place.port}: install the "
        "units again with `vaultd service install --link-local PROFILE`.",
        field="descriptor",
    )


def _keep_on_loopback(sock: socket.socket) -> None:
    # A unit with BindToDevice=lo has done it, and changing a binding takes a capability. Where it is not allowed, the
    # peer look-up still denies whatever comes from outside (security.md §0.3).
    if sys.platform == "linux" and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
