"""sentcore explain: a page or a picture, or an error before any work."""

from __future__ import annotations

import sys

import pytest

from folders import make_bert_folder
from sentcore.cli.choices import ATTRIBUTION_METHODS
from sentcore.explain import METHODS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("explain") / "bert", normalize=True)


def test_a_page_of_one_text(sentcore_command, folder, tmp_path):
    out = tmp_path / "report.html"
    status, said, told = sentcore_command("explain", "the cat", "-m", folder, "-o", out, "--layer", 1, "--head", 3)
    assert (status, said) == (0, "") and told == f"sentcore: wrote {out}\n"
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and '"chosen":[1,3]' in page and '"attribution":null' in page


def test_a_page_of_two_texts(sentcore_command, folder, tmp_path):
    out = tmp_path / "report.html"
    status, _, told = sentcore_command(
        "explain", "the cat", "我爱北京", "-m", folder, "-o", out, "--method", "integrated_gradients"
    )
    assert status == 0 and "by the method 'integrated_gradients'" in told
    assert '"method":"integrated_gradients"' in out.read_text(encoding="utf-8")
    status, _, told = sentcore_command("explain", "the cat", "the dog", "-m", folder, "-o", out, "--quiet")
    assert (status, told) == (0, "") and '"method":"exact"' in out.read_text(encoding="utf-8")


def test_a_picture(sentcore_command, folder, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "report.png"
    status, _, told = sentcore_command("explain", "the cat $x_1$", "a dog " * 30, "-m", folder, "-o", out)
    assert status == 0 and "wrote" in told and told.count("was cut there") == 1
    assert out.read_bytes().startswith(b"\x89PNG\r\n")


def test_a_picture_needs_matplotlib(sentcore_command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, told = sentcore_command("explain", "the cat", "-m", "not looked for", "-o", tmp_path / "x.png")
    assert status == 1 and "pip install 'sentcore[viz]', or write .html" in told


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["the cat"], 2, "-o/--output"),
        (["a", "b", "c", "-o", "x.html"], 2, "c"),
        (["a", "-o", "x.pdf"], 2, "--output is x.pdf; accepted: a file name ending in .html or .png"),
        (["a", "-o", "no/such/x.html"], 1, "there is no folder no/such"),
        (["a", "\ud800", "-o", "x.html"], 2, "TEXT 2 holds a lone surrogate"),
        (["a", "-o", "x.html", "--prompt", "p", "--prompt-name", "q"], 2, "both given"),
        (["a", "-o", "x.html", "--layer", "-1"], 2, "--layer"),
        (["a", "-o", "x.html", "-m", "FOLDER", "--layer", "2"], 2, "layer is 2; accepted for this model: 0 to 1"),
    ],
)
def test_mistakes(sentcore_command, folder, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    arguments = [str(folder) if part == "FOLDER" else part for part in arguments]
    found, _, told = sentcore_command("explain", *arguments)
    assert found == status and message in told
    assert not list(tmp_path.iterdir())


def test_choices_are_those_of_the_library():
    assert ATTRIBUTION_METHODS == METHODS
