"""docs/models.md is what the code says, and README names every family."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sentcore.checkpoint import families

ROOT = Path(__file__).parents[1]


def _script():
    spec = importlib.util.spec_from_file_location("models_table", ROOT / "docs" / "models_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh():
    script = _script()
    assert script.PAGE.read_text(encoding="utf-8") == script.page(), f"docs/models.md is stale: run `{script.COMMAND}`"


def test_the_page_changes_with_the_code(monkeypatch):
    script = _script()
    monkeypatch.setitem(families.FAMILIES, "roberta-like", families.FAMILIES["roberta"])
    assert "`roberta-like`" in script.page()


def test_every_family_has_its_row_and_its_file():
    files = {path.stem for path in Path(families.__file__).parent.glob("*.py")} - {"__init__", "reading"}
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert all(f"(../sentcore/checkpoint/families/{name}.py)" in page for name in files)
    assert all(f"`{name}`" in page for name in families.FAMILIES)


def test_readme_names_the_families_and_links_the_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    supported = readme.split("## What is supported")[1]
    assert "(docs/models.md)" in supported
    for name in ("BERT", "RoBERTa", "XLM-RoBERTa", "CamemBERT", "DistilBERT", "ELECTRA", "ALBERT", "MPNet", "ModernBERT", "Nomic", "GTE", "Jina"):  # fmt: skip
        assert name in supported
