"""`sentcore parity`: the report and the exit status."""

import dataclasses
import json

import pytest

import sentcore.integrations.parity as integration


def test_the_default_model_agrees(sentcore_command):
    status, out, err = sentcore_command("parity", "minilm", "--json")
    assert status == 0, out
    report = json.loads(out)
    assert report["passed"] is True
    assert report["sentence_max_abs_diff"] < 2e-6
    assert err == ""
    assert "layers" not in report


def test_every_layer_of_the_default_model(sentcore_command):
    status, out, _ = sentcore_command("parity", "minilm", "--layers", "--json")
    assert status == 0, out
    report = json.loads(out)
    assert [layer["name"] for layer in report["layers"]][:2] == ["embeddings", "layer 0"]
    assert report["first_departure"] is None
    status, out, _ = sentcore_command("parity", "minilm", "--layers")
    assert status == 0 and "layer 5" in out and "departs" not in out


def test_int8_agrees_less_and_says_so(sentcore_command):
    status, out, _ = sentcore_command("parity", "minilm", "--dtype", "int8")
    assert status == 0, out
    assert "int8" in out and "mean 0.99" in out


def test_fp8_is_compared_by_its_definition(sentcore_command):
    status, out, _ = sentcore_command("parity", "minilm", "--dtype", "fp8", "--backend", "reference")
    assert status == 0, out
    assert "fp8 (reference, cpu)" in out and "mean 0.99" in out
    status, out, err = sentcore_command("parity", "minilm", "--dtype", "fp8")
    assert (status, out) == (1, "") or status == 2
    assert "dtype is 'fp8'" in err and "dtype='int8'" in err


@pytest.mark.parametrize("as_json", [[], ["--json"], ["--json", "--layers"], ["--layers"]])
def test_a_difference_is_1(sentcore_command, monkeypatch, as_json):
    real = integration.parity

    def different(model, layers):
        return dataclasses.replace(
            real(model, ["a"], layers=layers),
            passed=False,
            verdict="differs: a lot",
            token_min_cosine=float("nan"),
        )

    monkeypatch.setattr(integration, "parity", different)
    status, out, _ = sentcore_command("parity", "minilm", *as_json)
    assert status == 1
    assert "differs: a lot" in out
    if "--json" in as_json:
        assert json.loads(out)["token_min_cosine"] is None


def test_a_missing_folder_is_1(sentcore_command, tmp_path):
    status, out, err = sentcore_command("parity", tmp_path / "none")
    assert (status, out) == (1, "")
    assert "none" in err
