"""The commands of every page's bash blocks run as they stand, or are in SKIPPED with the reason."""

from __future__ import annotations

import importlib.util
import io
import runpy
import sys
from pathlib import Path

import pytest

from doc_pages import PAGES, blocks, commands, name_of
from sentcore.cli import main

# The first words of a command -> why it is not run here.
SKIPPED = {
    "pip install": "installs; tests/build builds and installs",
    "pytest -n": "this suite",
    "python examples/train_classifier.py": "tests/examples runs it as it stands, and reads its accuracy",
    "python examples/ray_embed.py": "starts a Ray cluster; tests/examples/test_ray_example.py runs it where Ray is installed",
    "python examples/question_answering.py": "trains for a minute; tests/examples/test_use_examples.py runs it shorter",
    "python examples/translate.py": "trains for half a minute, as question_answering.py",
    "torchrun --nproc-per-node 2 examples/classify.py": "two processes; tests/examples/test_two_processes.py runs it",
    "torchrun": "wants two machines; tests/integrations/test_accelerate_distributed.py trains in two processes",
    "accelerate launch": "wants two machines, as torchrun",
}
# A page's commands run in their order in one working directory: a later one may need what an earlier one wrote.
COMMANDS = {
    name_of(page): [words for block in blocks(page) if block.language == "bash" for words in commands(block)]
    for page in PAGES
}


def why_skipped(words: list[str]) -> str | None:
    """The reason of the entry of SKIPPED that a command begins with, or None."""
    return next((why for start, why in SKIPPED.items() if words[: len(start.split())] == start.split()), None)


def run(words: list[str], monkeypatch) -> int:
    """The exit status of `sentcore ...` or `python FILE ...`, run in this process; "< FILE" is its standard input, else empty."""
    text = b""
    if words[-2:-1] == ["<"]:
        text = Path(words[-1]).read_bytes()
        words = words[:-2]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    if words[0] == "sentcore":
        return main(words[1:])
    if words[0] == "python" and words[1].endswith(".py"):
        monkeypatch.setattr(sys, "argv", words[1:])
        monkeypatch.syspath_prepend(str(Path(words[1]).resolve().parent))  # as for a script that is run
        try:
            runpy.run_path(words[1], run_name="__main__")
        except SystemExit as end:
            return end.code or 0
        return 0
    raise AssertionError(
        f"{words[0]} is neither sentcore nor a Python file; run it here, or put it into SKIPPED and say why"
    )


@pytest.mark.parametrize("page", [page for page, found in COMMANDS.items() if not all(map(why_skipped, found))])
def test_commands_run(page, reader, tiny_minilm, monkeypatch, capsys):
    for words in COMMANDS[page]:
        if why_skipped(words) or (words[1] == "examples/ner.py" and importlib.util.find_spec("seqeval") is None):
            continue
        if words[0] == "python":
            monkeypatch.syspath_prepend(str(tiny_minilm))
        assert run(words, monkeypatch) == 0, f"{words}\n{capsys.readouterr().err}"


def test_every_entry_of_skipped_is_used():
    used = {why_skipped(words) for found in COMMANDS.values() for words in found}
    assert set(SKIPPED.values()) <= used


def test_a_command_that_fails_is_found(reader, monkeypatch, capsys):
    assert run(["sentcore", "encode", "--input", "absent.txt"], monkeypatch) != 0
    assert run(["python", "examples/search_corpus.py", "--top-k", "many"], monkeypatch) != 0
    with pytest.raises(AssertionError, match="neither sentcore nor a Python file"):
        run(["cargo", "build"], monkeypatch)
