"""docs/trust.md names tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "trust.md"
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)", PAGE.read_text())))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_tests_exist(file, name):
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_every_promise_has_its_line():
    numbers = re.findall(r"^(\d+)\. \*\*", PAGE.read_text(), re.MULTILINE)
    assert numbers == [str(n) for n in range(1, 14)]
