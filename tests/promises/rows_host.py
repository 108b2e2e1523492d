"""T6 to T10, in three files: callers that look like you, code that is you, and what lies about."""

from __future__ import annotations

from typing import Final

from tests.promises import rows_at_rest, rows_relays, rows_same_user
from tests.promises.promise import Promise

PROMISES: Final[tuple[Promise, ...]] = (*rows_relays.PROMISES, *rows_same_user.PROMISES, *rows_at_rest.PROMISES)
