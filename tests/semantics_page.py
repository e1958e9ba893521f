"""The sections of docs/semantics.md, and the mark of the tests that hold them."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "semantics.md"


def sections():
    """The text under each heading; the lines before the first are those of "Semantics"."""
    parts = re.split(r"^##? (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SECTIONS = sections()


def section(title):
    """Marks a test that holds a statement of that section."""
    assert title in SECTIONS, title
    return lambda test: test


def held():
    """Every title that a test names."""
    tests = Path(__file__).parent.glob("test_semantics*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    return set(re.findall(r'^@section\("(.*)"\)$', text, flags=re.MULTILINE))
