"""The SDK side runs on uvloop where its wheels exist, on asyncio elsewhere: its tests run on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_BOTH = {
    "test_app", "test_attestation", "test_control_life", "test_control_prompts", "test_doors", "test_ecs", "test_guard",
    "test_hold", "test_hold_ends", "test_imds", "test_limits",
}  # fmt: skip


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """pytest-asyncio makes one test of each entry."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in _BOTH:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
