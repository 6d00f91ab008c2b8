"""The python blocks of every page run as they stand, in their order, and print what the ```text block behind them shows."""

from __future__ import annotations

import contextlib
import io
import traceback

import pytest
import torch

import sentcore
from doc_pages import PAGES, ROOT, Block, blocks, name_of


def _loader() -> list[dict[str, torch.Tensor]]:
    """Two batches of the README's training loop."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    labels = torch.where(mask.bool(), 2, -100)
    return [
        {"input_ids": torch.tensor([[101, 7, 8, 102], [101, 102, 0, 0]]), "attention_mask": mask, "labels": labels}
    ] * 2


# What a page leaves to its reader: name -> value.
STAND_INS = {
    "README.md": lambda: {"documents": ["a long text " * 200, "short"], "loader": _loader()},
    "docs/reliability.md": lambda: {"model": sentcore.SentenceEncoder("FOLDER"), "texts": ["the cat", "a dog"] * 8},
}
# A page -> why its blocks are not run here.
SKIPPED = {
    "docs/distributed.md": "reads s3:// on a Ray cluster; tests/integrations/test_ray.py runs embed where Ray is installed"
}


def run_blocks(found: list[Block], names: dict) -> None:
    """Runs blocks one after the other in one namespace.

    Raises:
        AssertionError: a block failed or printed something else, by page and line.
    """
    for block in found:
        printed = io.StringIO()
        # Empty lines before it, so that a traceback gives the page's own line numbers.
        source = "\n" * (block.line - 1) + block.text
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(source, str(block.page), "exec"), names)
        except Exception:
            raise AssertionError(f"{block.name} fails\n{traceback.format_exc()}") from None
        if block.output is not None:
            assert printed.getvalue() == block.output, f"{block.name} prints something else than the page shows"


def python_blocks(page) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


@pytest.fixture(autouse=True)
def _gradients_as_before():
    yield
    torch.set_grad_enabled(True)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page) and name_of(page) not in SKIPPED], ids=name_of
)
def test_blocks_run(page, reader):
    run_blocks(python_blocks(page), STAND_INS.get(name_of(page), dict)())


def test_a_block_that_fails_or_prints_something_else_is_found(tmp_path):
    def page(text: str) -> list[Block]:
        file = ROOT / "docs" / "nowhere.md"
        return [Block(file, "python", text, 7, "1\n")]

    run_blocks(page("print(1)"), {})
    with pytest.raises(AssertionError, match=r"nowhere\.md:7 prints"):
        run_blocks(page("print(2)"), {})
    with pytest.raises(AssertionError, match=r"nowhere\.md:7 fails(.|\n)*line 8"):
        run_blocks(page("a = 1\nb = c"), {})


def test_every_block_says_its_language():
    known = {"python", "bash", "text", ""}  # "" for what is neither run nor shown by a program
    assert {block.language for page in PAGES for block in blocks(page)} <= known
