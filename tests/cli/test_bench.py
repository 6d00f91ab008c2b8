"""`sentcore bench`: the table and the JSON, what is left out, what is refused, wrong features, Ctrl-C."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import sentcore.measure.timing as timing
from folders import make_bert_folder
from sentcore.errors import MissingPackageError
from sentcore.measure import LEAST_COSINES, chosen_texts, sample_texts
from sentcore.measure import methods as methods_module
from sentcore.sentence_encoder import SentenceEncoder

OURS = ["sentcore float32", "sentcore bfloat16", "sentcore int8"]
ALL = [*OURS, "plain PyTorch", "sentence-transformers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return make_bert_folder(tmp_path_factory.mktemp("bench") / "model", normalize=True)


@pytest.fixture
def bench(sentcore_command, monkeypatch, tmp_path, folder):
    """run(*argv) -> (status, standard output, standard error, the JSON or None), on the tiny model and a few texts."""
    monkeypatch.setattr(timing, "_PAUSE", 0)
    output = tmp_path / "out.json"

    def run(*argv):
        status, out, err = sentcore_command(
            "bench", "-m", folder, "--num-texts", 12, "--device", "cpu", "--json", output, *argv
        )
        return status, out, err, json.loads(output.read_text(encoding="utf-8")) if output.exists() else None

    return run


def table(out):
    """Method -> the cells of its line in the first table."""
    lines = out.split("\n\n")[1].splitlines()[2:]
    return {name: line[len(name) :].split() for line in lines for name in ALL if line.startswith(name)}


def test_table_and_json_agree(bench):
    status, out, err, found = bench("--rounds", 2)
    assert (status, err) == (0, "")
    assert list(found["methods"]) == list(table(out)) == ALL
    assert found["complete"] is True and found["times_as_fast_as"] == "sentence-transformers"
    assert (found["texts"], found["rounds"]) == (12, 2)
    peer = np.median(found["methods"]["sentence-transformers"]["seconds"])
    for name, cells in table(out).items():
        row = found["methods"][name]
        assert len(row["seconds"]) == 2 and len(row["sentence_seconds"]) == timing.BLOCKS * timing.CALLS
        middle = np.median(row["seconds"])
        assert row["sentences_per_second"] == pytest.approx(12 / middle)
        assert row["tokens_per_second"] == pytest.approx(found["tokens"] / middle)
        assert row["times_as_fast"] == pytest.approx(peer / middle)
        slowest, fastest = map(float, cells[1].split("-"))
        assert slowest <= float(cells[0]) <= fastest
        assert float(cells[0]) == pytest.approx(row["sentences_per_second"], rel=1e-2)
        assert float(cells[2]) == pytest.approx(row["tokens_per_second"], abs=1)
        assert float(cells[3]) == pytest.approx(row["times_as_fast"], abs=0.01)
        assert (
            float(cells[4]) == pytest.approx(row["min_cosine"], abs=1e-5) and row["min_cosine"] >= row["least_cosine"]
        )
        assert float(cells[5]) == pytest.approx(row["max_abs_difference"], rel=0.1)
        assert f"{row['sentence_milliseconds']:.2f}" in out
    assert found["methods"]["plain PyTorch"]["max_abs_difference"] < 2e-6
    assert found["methods"]["sentence-transformers"]["max_abs_difference"] < 2e-6
    assert found["methods"]["sentcore int8"]["max_abs_difference"] > 0
    assert "slower than float32" in found["left_out"]["sentcore float16"]
    assert "left out: sentcore float16: " in out
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert f"command: {found['command']}" in out and "--rounds 2" in found["command"]
    # 80 columns, and a few more where a tiny model computes tens of thousands a second.
    assert all(len(line) <= 86 for line in out.split("\n\n")[1].splitlines())


def test_dtypes_that_are_named(bench):
    before = torch.get_num_threads()
    status, out, _, found = bench("--rounds", 1, "--dtype", "int8", "--no-peer", "--threads", before + 1)
    assert (status, torch.get_num_threads()) == (0, before)
    assert list(found["methods"]) == ["sentcore float32", "sentcore int8", "plain PyTorch"]
    assert found["times_as_fast_as"] == "plain PyTorch" and "times as fast as plain PyTorch" in out
    assert found["left_out"] == {} and found["machine"]["threads"] == before + 1


@pytest.mark.parametrize("dtypes", ["float64", "int8,int8", "", "auto", "int8, float32"])
def test_a_dtype_that_is_none(bench, dtypes):
    status, out, err, found = bench("--dtype", dtypes)
    assert (status, out, found) == (2, "", None)
    assert "accepted: some of float32,bfloat16,float16,int8,fp8" in err


def test_a_dtype_that_is_named_and_refused(bench):
    status, out, err, found = bench("--dtype", "float32,float16")
    assert (status, out, found) == (2, "", None)
    assert "dtype is 'float16' on a CPU" in err


def test_without_the_peer(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    status, out, err, found = bench("--rounds", 1, "--dtype", "float32")
    assert (status, err) == (0, "")
    assert list(found["methods"]) == ["sentcore float32", "plain PyTorch"]
    assert "pip install sentence-transformers" in found["left_out"]["sentence-transformers"]
    assert "left out: sentence-transformers: " in out and "times as fast as plain PyTorch" in out


def test_a_folder_that_the_peer_does_not_run(bench, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "sentence_bert_config.json").write_text('{"max_seq_length": 24, "no_such_option": 1}')
    status, _, _, found = bench("-m", tmp_path / "model", "--rounds", 1, "--dtype", "float32")
    assert status == 0
    assert "does not run this folder" in found["left_out"]["sentence-transformers"]


@pytest.mark.parametrize("wrong", ["rows in another order", "NaN", "another width"])
def test_wrong_features_are_found(bench, monkeypatch, wrong):
    real = SentenceEncoder.encode

    def encode(self, texts, **options):
        rows = real(self, texts, **options)
        if self.dtype != torch.int8:
            return rows
        return {"NaN": rows * np.nan, "another width": rows[:, :5]}.get(wrong, rows[::-1].copy())

    monkeypatch.setattr(SentenceEncoder, "encode", encode)
    status, out, err, found = bench("--rounds", 1, "--no-peer")
    assert status == 1
    assert "sentcore int8 and sentcore float32 differ" in err and "at least 0.98" in err
    assert [name for name, row in found["methods"].items() if not row["agrees"]] == ["sentcore int8"]
    assert found["methods"]["sentcore int8"]["seconds"] == [] and table(out)["sentcore int8"][:4] == ["-"] * 4
    assert len(found["methods"]["plain PyTorch"]["seconds"]) == 1


def test_features_that_are_nan_in_float32_are_compared_with_nothing(bench, monkeypatch):
    monkeypatch.setattr(
        SentenceEncoder, "encode", lambda self, texts, **_: np.full((len(texts), 4), np.nan, np.float32)
    )
    status, out, err, found = bench("--no-peer", "--dtype", "float32")
    assert status == 1 and "sentcore float32 gives features that are NaN or infinite" in err
    assert found["methods"]["sentcore float32"]["min_cosine"] is None
    assert table(out)["plain PyTorch"] == ["-", "-", "-", "-", "nan", "nan"]


def test_a_peer_with_other_features_is_found_and_no_yardstick(bench, monkeypatch):
    def other(model):
        return lambda texts: model.encode(texts)[::-1].copy()

    monkeypatch.setattr(methods_module, "sentence_transformers_encode", other)
    status, _, err, found = bench("--rounds", 1, "--dtype", "float32")
    assert status == 1 and "sentence-transformers and sentcore float32 differ" in err
    assert found["times_as_fast_as"] == "plain PyTorch"


@pytest.mark.parametrize(("calls", "rounds"), [(2, 0), (5, 1)])
def test_ctrl_c_shows_what_is_measured(bench, monkeypatch, calls, rounds):
    real, made = SentenceEncoder.encode, []

    def encode(self, texts, **options):
        made.append(1)
        if len(made) > calls:
            raise KeyboardInterrupt
        return real(self, texts, **options)

    monkeypatch.setattr(SentenceEncoder, "encode", encode)
    status, out, err, found = bench("--no-peer", "--dtype", "bfloat16")
    assert (status, err) == (130, "sentcore: interrupted\n")
    assert "cut off: this is what was measured until then" in out
    assert found["complete"] is False
    assert len(found["methods"]["sentcore float32"]["seconds"]) == rounds
    assert found["methods"]["plain PyTorch"]["seconds"] == []


def test_a_file_of_texts(bench, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"body": f"the cat {'sat ' * k}"}) + "\n" for k in range(40)))
    status, out, _, found = bench(
        "--input", source, "--column", "body", "--rounds", 1, "--no-peer", "--dtype", "float32"
    )
    assert status == 0
    assert f"{source}, 12 of the 40" in out and found["texts"] == 12
    # max_seq_length is 24: [CLS] the cat, sat by sat, [SEP]
    chosen, _ = chosen_texts(range(40), 12)
    assert found["tokens"] == sum(min(24, k + 4) for k in chosen)
    assert found["texts_cut"] == sum(k + 4 > 24 for k in chosen)


def test_files_that_cannot_be_read(bench, tmp_path):
    source = tmp_path / "in.jsonl"
    for content, words, expected in (
        (None, "there is no such file", 1),
        ("", "holds no texts", 2),
        ('{"title": "a"}\n', "in.jsonl", 1),
        ("no json\n", "in.jsonl", 1),
    ):
        if content is not None:
            source.write_text(content)
        status, out, err, found = bench("--input", source)
        assert (status, out, found) == (expected, "", None), err
        assert words in err
    assert bench("--input", tmp_path / "in.pdf")[0] == 2
    assert bench("--column", "body")[0] == 2


def test_an_output_that_is_none(sentcore_command, folder, tmp_path):
    for name, words in (("out.txt", "--json is"), ("none/out.json", "there is no folder")):
        status, out, err = sentcore_command("bench", "-m", folder, "--json", tmp_path / name)
        assert status in (1, 2) and out == "" and words in err


def test_a_model_that_is_none(bench, tmp_path):
    status, out, err, found = bench("-m", tmp_path / "none")
    assert (status, out, found) == (1, "", None) and "none" in err


def test_a_gpu_is_waited_for_before_a_clock_is_read(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append(f"wait {device}"))
    monkeypatch.setattr(timing, "_PAUSE", 0)
    monkeypatch.setattr(timing, "BLOCKS", 0)

    def encode(texts):
        done.append("encode")
        return np.ones((1, 2), np.float32)

    timing.Measurement([timing.Method("a", "float32", encode)], torch.device("cuda:1"), ["text"], "").run(
        1, done.append
    )
    assert done == ["comparing, a", "encode", "round 1 of 1, a", "wait cuda:1", "encode", "wait cuda:1"]


def test_help_waits_for_no_torch():
    code = "import sys; from sentcore.cli import main; main(['bench', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--num-texts" in done.stdout


def test_the_choice_of_texts():
    assert chosen_texts(iter("abc"), 5) == (["a", "b", "c"], 3)
    chosen, seen = chosen_texts(range(1000), 100)
    assert seen == 1000 and len(chosen) == len(set(chosen)) == 100 and chosen == sorted(chosen)
    assert 400 < np.mean(chosen) < 600  # from all over the file
    assert chosen_texts(range(1000), 100)[0] == chosen


def test_the_sample():
    texts = sample_texts(256)
    assert texts[:100] == sample_texts(100)
    assert len(set(texts)) > 100
    lengths = sorted(map(len, texts))
    assert lengths[0] < 20 and lengths[-1] > 500
    assert sum(text.isascii() for text in texts) == 128


def test_the_limits_are_one_for_every_dtype():
    from sentcore.cli.bench import _DTYPES

    assert set(LEAST_COSINES) == set(_DTYPES)


def test_the_peer_names_what_is_missing(monkeypatch, folder):
    from sentcore.integrations.sentence_transformers_peer import sentence_transformers_encode

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingPackageError, match="pip install sentence-transformers"):
        sentence_transformers_encode(SentenceEncoder(folder, device="cpu"))
