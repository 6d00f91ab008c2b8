"""The site: built without a warning, whole in itself, and every link within it leads to a file of it."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from doc_pages import PAGES, ROOT

REFERENCE = re.compile(r'<(?:a|link|img|script)\b[^>]*?\b(?:href|src)="([^"]*)"')
LOADED = re.compile(r'<(?:link\b[^>]*?\brel="(?:stylesheet|preconnect|icon)"[^>]*|img\b[^>]*|script\b[^>]*)>')


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("material", reason="the extra [docs] is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site):
    pages = {page.stem for page in PAGES if page.parent.name == "docs"}
    assert pages <= {file.stem for file in site.glob("*.html")}
    assert "我爱北京天安门" in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "repository/examples/index.html").is_file()
    assert "varlen_cross_attention" in (site / "api.html").read_text(encoding="utf-8")
    assert not list(site.rglob("*.py"))


def test_links_within_it_lead_to_files_of_it(site):
    broken = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # its links are relative to the root of a server
        for target in REFERENCE.findall(page.read_text(encoding="utf-8")):
            parts = urlsplit(html.unescape(target))
            if parts.scheme or not parts.path:
                continue
            if not (page.parent / unquote(parts.path)).exists():
                broken.append(f"{page.relative_to(site)}: {target}")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for tag in LOADED.findall(page.read_text(encoding="utf-8")):
            assert "//" not in tag, f"{page.relative_to(site)}: {tag}"
