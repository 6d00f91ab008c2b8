"""Every link of README, docs, examples and the files beside them leads somewhere."""

from __future__ import annotations

import pytest

from doc_pages import LINKING, PAGES, ROOT, anchors, links, name_of

FILES = [page for page in LINKING if page.is_file()]


def broken(page, target: str) -> str | None:
    """Why a link of `page` leads nowhere, or None."""
    if target.startswith(("http://", "https://", "mailto:")):
        return None
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"{target}: there is no {file}"
    if not file.is_relative_to(ROOT):
        return f"{target}: outside the repository"
    if anchor and anchor not in anchors(file):
        return f"{target}: {name_of(file)} has the headings {sorted(anchors(file))}"
    return None


@pytest.mark.parametrize("page", FILES, ids=name_of)
def test_links_lead_somewhere(page):
    assert [why for target in links(page) if (why := broken(page, target))] == []


def test_every_page_is_linked_from_readme_or_another_page():
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    assert [name_of(page) for page in PAGES if page not in linked and page != ROOT / "README.md"] == []


def test_a_broken_link_is_found(tmp_path):
    page = ROOT / "README.md"
    assert broken(page, "docs/absent.md")
    assert broken(page, "docs/training.md#absent")
    assert broken(page, "/etc/hosts")
    assert broken(page, "docs/benchmarks.md#training-on-a-cpu") is None
    note = tmp_path / "page.md"
    note.write_text("[a](b.md) `[c](d)` [`e`](f.py) ![g](h.svg)\n```\n[i](j)\n```\n", encoding="utf-8")
    assert links(note) == ["b.md", "f.py", "h.svg"]
