"""The commands of every page's bash blocks run as they stand, or are in SKIPPED with the reason."""

from __future__ import annotations

import runpy
import sys

import pytest

from doc_pages import PAGES, blocks, commands, name_of
from sentcore.cli import main

# The first words of a command -> why it is not run here.
SKIPPED = {
    "pip install": "installs; tests/build builds and installs",
    "pytest -n": "this suite",
    "python examples/train_classifier.py": "tests/examples runs it as it stands, and reads its accuracy",
}
COMMANDS = {
    f"{name_of(page)}: {' '.join(words)}": words
    for page in PAGES
    for block in blocks(page)
    if block.language == "bash"
    for words in commands(block)
}


def why_skipped(words: list[str]) -> str | None:
    """The reason of the entry of SKIPPED that a command begins with, or None."""
    return next((why for start, why in SKIPPED.items() if words[: len(start.split())] == start.split()), None)


def run(words: list[str], monkeypatch) -> int:
    """The exit status of `sentcore ...` or `python FILE ...`, run in this process."""
    if words[0] == "sentcore":
        return main(words[1:])
    if words[0] == "python" and words[1].endswith(".py"):
        monkeypatch.setattr(sys, "argv", words[1:])
        try:
            runpy.run_path(words[1], run_name="__main__")
        except SystemExit as end:
            return end.code or 0
        return 0
    raise AssertionError(
        f"{words[0]} is neither sentcore nor a Python file; run it here, or put it into SKIPPED and say why"
    )


@pytest.mark.parametrize("name", [name for name, words in COMMANDS.items() if not why_skipped(words)], ids=str)
def test_commands_run(name, reader, tiny_minilm, monkeypatch, capsys):
    words = COMMANDS[name]
    if words[0] == "python":
        if words[1] == "examples/ner.py":
            pytest.importorskip("seqeval")
        monkeypatch.syspath_prepend(str(tiny_minilm))
    assert run(words, monkeypatch) == 0, capsys.readouterr().err


def test_every_entry_of_skipped_is_used():
    used = {why_skipped(words) for words in COMMANDS.values()}
    assert set(SKIPPED.values()) <= used


def test_a_command_that_fails_is_found(reader, monkeypatch, capsys):
    assert run(["sentcore", "encode", "--input", "absent.txt"], monkeypatch) != 0
    assert run(["python", "examples/search_corpus.py", "--top-k", "many"], monkeypatch) != 0
    with pytest.raises(AssertionError, match="neither sentcore nor a Python file"):
        run(["cargo", "build"], monkeypatch)
