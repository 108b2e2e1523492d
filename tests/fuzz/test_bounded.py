"""The same targets in `make test`: a bounded number of inputs, the same ones each time.

Hypothesis chooses seed and mutations here, and shrinks what fails; `make fuzz` is guided by coverage, and goes on for
as long as it is told to.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from tests.fuzz.target import GROWTH_KIB, resident_kib
from tests.fuzz.targets import TARGETS, target

#: Of each target, within a second or two.
_EXAMPLES = 150


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_end_in_a_typed_error_or_in_success(name: str) -> None:
    """Whatever is sent or lies there: no 500, no exception that is not ours, nothing leaked, and it goes on."""
    with target(name) as reader:
        seeds = list(reader.seeds())
        before = resident_kib()

        @settings(
            max_examples=_EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.sampled_from(seeds), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.binary(max_size=8)
        )
        def each(data: bytes, changes: list[int], tail: bytes) -> None:
            for seed in changes:
                data = mutated(data, seed=seed, longest=16_384)
            reader.one(data + tail)

        each()
        assert resident_kib() - before < GROWTH_KIB
