"""T1 to T5: another user of the machine, the port, the page, the network."""

from __future__ import annotations

from typing import Final

from tests.promises.promise import Promise
from tests.promises.rows_page import T4, T5
from tests.promises.rows_port import T1
from tests.promises.rows_socket import T2, T3

PROMISES: Final[tuple[Promise, ...]] = (*T1, *T2, *T3, *T4, *T5)
