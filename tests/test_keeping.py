"""The keeper's outlook from within its own process."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from vaultd.keeper.remote import DEADLINES
from vaultd.lifecycle import keeping
from vaultd.lifecycle.keeping import Amazon, Here

NOBODY = cast("Amazon", None)


async def test_a_keyring_that_hangs_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`vaultd check` asks so just when the keyring hangs: the answer comes before the daemon takes the keeper for hung,
    and ends it. However often it is asked, a look that hangs keeps no other one from being made.
    """
    assert DEADLINES["keyring"] > keeping.KEYRING_SECONDS
    monkeypatch.setattr(keeping, "KEYRING_SECONDS", 0.01)
    answers, asked = threading.Event(), list[str]()

    def hangs() -> str | None:
        asked.append("now")
        answers.wait()
        return "secret-service"

    here = Here(NOBODY, look=hangs)
    found = [await here.keyring() for _ in range(40)]
    answers.set()

    assert found == [None] * 40
    assert len(asked) == 40
    monkeypatch.setattr(keeping, "KEYRING_SECONDS", 30.0)
    assert await here.keyring() == "secret-service", "positive control"
