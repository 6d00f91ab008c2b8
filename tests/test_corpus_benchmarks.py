"""bench/corpus runs, on so little that its figures say nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "bench" / "corpus"
pytest.importorskip("pyarrow")


def run(script, *arguments):
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_memory():
    assert "100 texts: " in run("memory.py", "--rows", 100, 200)


def test_overhead(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat sat\n" * 30, encoding="utf-8")
    assert "30 texts, " in run("overhead.py", "--texts", texts, "--num-texts", 30, "--rounds", 1)


def test_kill():
    assert "1 of 1 resumed runs" in run("kill.py", "--kills", 1, "--rows", 2000)
