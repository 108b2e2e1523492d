"""What the fuzzer once found stays found: every seed and every input of corpus/ is read again."""

from __future__ import annotations

import gc
from types import FrameType

import pytest
from aiohttp.web_protocol import RequestHandler

from tests.fuzz.targets import CORPUS, TARGETS, corpus, target


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_was_ever_found_comes_back(name: str) -> None:
    """Seeds and corpus hold every invariant of the target's module."""
    with target(name) as reader:
        for data in reader.seeds():
            reader.one(data)
        for path in corpus(name):
            reader.one(path.read_bytes())


def test_the_corpus_belongs_to_targets() -> None:
    """A renamed target would leave its findings behind, read by nobody."""
    assert {each.name for each in CORPUS.iterdir() if each.is_dir()} <= TARGETS.keys()


@pytest.mark.parametrize("name", ["credential-endpoint", "metadata-door", "control-socket"])
def test_nothing_of_a_connection_outlives_it(name: str) -> None:
    """An exception kept as a constant held each request that it was raised for, and its token."""
    before = {id(each) for each in gc.get_objects() if isinstance(each, RequestHandler)}
    with target(name) as reader:
        for data in reader.seeds():
            reader.one(data)
        gc.collect()
        after = {id(each) for each in gc.get_objects() if isinstance(each, RequestHandler)}
        assert not after - before


def test_no_finished_task_of_a_hand_over_is_kept() -> None:
    """The same of doors.sock, whose connections are tasks."""
    with target("doors-socket") as reader:
        for data in reader.seeds():
            reader.one(data)
        gc.collect()
        frames = [each for each in gc.get_objects() if isinstance(each, FrameType)]
        assert [each for each in frames if each.f_code.co_name == "_received"] == []
