"""Identifiers have American spelling, as those of NumPy and scikit-learn; prose is as it is."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from checkout import ROOT

_STEMS = "normal|penal|standard|vector|summar|minim|optim|factor|recogn|regular|special|initial|random|organ"
BRITISH = re.compile(
    rf"neighbour|colour|behaviour|favour|centre|labelled|({_STEMS})is(e|ed|er|ing|ation)s?(?![a-z])", re.IGNORECASE
)


def british_names(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and BRITISH.search(token.string):
            yield token.string


def test_identifiers_are_spelled_alike():
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("benches", "examples", "fastml", "kernels", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if not path.is_relative_to(ROOT / "fastml" / "kernels")  # a link that editors follow
        for name in british_names(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    "text", ["def normalise(x): ...", "neighbours = 3", "x.centre", "f(colour=1)", "class Optimiser: ..."]
)
def test_another_spelling_is_found(text):
    assert list(british_names(text))


@pytest.mark.parametrize(
    "text", ["raise ValueError", "promise = 1", "# normalised", "'neighbours'", "random_is_set = 1"]
)
def test_what_is_no_other_spelling_is_not_found(text):
    assert list(british_names(text)) == []
