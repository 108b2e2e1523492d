"""T1 to T5: the other user, the port, the page, the network."""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Break, Promise

PROMISES: Final[tuple[Promise, ...]] = (
    Promise(
        name="T1-own-uid",
        says="A TCP client is admitted only when the kernel says that its socket is this user's.",
        control="vaultd/host/peers.py: Peers.admits",
        tests=("tests/host/test_peers.py::test_another_user_is_refused", "tests/host/test_peers.py::test_rule"),
        breaks=(Break("vaultd/host/peers.py", " and found.uid == self.own_uid and ", " and "),),
    ),
    Promise(
        name="T1-orphan",
        says="A socket that nobody holds any more (inode 0, later uid 0) is nobody's, so it is not admitted.",
        control="vaultd/host/peers.py: Peers.admits",
        tests=("tests/host/test_peers.py::test_rule", "tests/host/test_peers.py::test_uid_0_trap"),
        breaks=(Break("vaultd/host/peers.py", "return found.inode != 0 and ", "return "),),
    ),
)
