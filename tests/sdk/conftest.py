"""The findings of one whole play for all tests of the matrix; the programs' cache, before a scrubbed HOME hides it."""

from __future__ import annotations

import os

from tests.sdk.build import cache

#: Programs are looked up in tests, too, whose HOME is an empty one (tests/conftest.py).
os.environ.setdefault("SDK_CACHE", str(cache()))
