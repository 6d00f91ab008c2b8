"""The examples that need no file and no training extra run as they stand and do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = [file for file in EXAMPLES.glob("*.py") if "__main__" in file.read_text(encoding="utf-8")]
SAYS = {  # what the end of each one's output must hold
    "search_corpus.py": ["how do I get my money back", "Refunds are paid", "图书馆早上九点开门"],
    "train_classifier.py": ["accuracy on new sequences: 0.9", "accuracy on new sequences: 1.0"],
}


def test_every_example_is_tested():
    tests = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    for file in SCRIPTS:
        assert (
            file.name in SAYS or f"def test_{file.stem}(" in tests or f"def test_{file.stem}_on_the_sample(" in tests
        ), f"no test runs {file.name}"


@pytest.mark.parametrize("name", SAYS)
def test_example(name):
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    wanted = any if name.startswith("train") else all
    assert wanted(text in done.stdout for text in SAYS[name]), done.stdout


def test_every_example_is_in_the_readme():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for file in SCRIPTS:
        assert f"python examples/{file.name}" in readme, f"examples/README.md has no command for {file.name}"


@pytest.mark.parametrize("option", ["--items", "--users"])
def test_a_missing_file_is_named(option, run, capsys):
    with pytest.raises(SystemExit):
        run("recommend", option, "/no/such/file.jsonl")
    assert f"argument {option}: there is no file /no/such/file.jsonl" in capsys.readouterr().err
