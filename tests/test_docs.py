"""The pages of docs/: what the code decides is current, prose fits its lines, and links and
citations lead somewhere.
"""

from __future__ import annotations

import re

import pytest

from docs import generate
from tests.smoke import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["configuration.md", "columns.md", "design.md"])
def test_generated_pages_are_current(page):
    expected = generate.pages()[generate.DOCS / page]
    assert (ROOT / "docs" / page).read_text() == expected, "run: python -m docs.generate"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_fits_its_lines_and_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.startswith(("|", "#"))]
    assert [line for line in lines if len(line) > 100] == []
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_a_citation_names_a_section_that_is_there():
    """Comments cite `docs/definitions.md 5.12` and `docs/design.md 6`."""
    sections = {}
    for name in ("definitions", "design", "formats"):
        text = (ROOT / "docs" / f"{name}.md").read_text()
        found = set(re.findall(r"^## (\d+)\.", text, re.MULTILINE))
        for number in found.copy():
            of_section = text.partition(f"## {number}.")[2].partition("\n## ")[0]
            found |= {f"{number}.{n}" for n in re.findall(r"^(\d+)\. ", of_section, re.MULTILINE)}
        sections[name] = found
    for path in [*ROOT.glob("hft/**/*.py"), *ROOT.glob("conf/**/*.yaml")]:
        for name, cited in re.findall(
            r"(definitions|design|formats)\.md[\s#]+([\d., -]*\d)", path.read_text()
        ):
            for section in re.findall(r"\d+(?:\.\d+)?", cited):
                assert section in sections[name], f"{path}: docs/{name}.md {section}"
