"""What the fuzzer once found stays found: every seed and every input of corpus/ is read again."""

from __future__ import annotations

import pytest

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
