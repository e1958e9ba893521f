"""The Python blocks of README.md and docs/lecture.md run as they stand, and links lead to files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def blocks(name):
    """Pairs of the first line's number and the text of each Python block."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in BLOCK.finditer(text)]
    assert found, f"{name} has no Python block"
    return found


def run(name, line, source, namespace):
    exec(compile("\n" * (line - 1) + source, str(ROOT / name), "exec"), namespace)


@pytest.mark.parametrize(("line", "source"), blocks("README.md"))
def test_readme_block_runs_alone(line, source):
    run("README.md", line, source, {"__name__": "readme"})


def test_lecture_runs_from_top_to_bottom():
    namespace = {"__name__": "lecture"}
    for line, source in blocks("docs/lecture.md"):
        run("docs/lecture.md", line, source, namespace)


def test_example_of_the_readme_has_twelve_lines():
    _, source = blocks("README.md")[0]
    assert len([text for text in source.splitlines() if text]) == 12


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in DOCS)]
)
def test_links_lead_to_files(name):
    page = ROOT / name
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{name}: {target}"
