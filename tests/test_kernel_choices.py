"""Which CUDA kernels are taken where there are two, and what that choice leans on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from build_support import kernel_choices
from build_support.errors import BuildError
from build_support.native import ROOT
from sentcore import _kernels
from sentcore.errors import ArgumentValueError

CHOOSE = ROOT / "bench" / "gpu" / "choose.py"
ROW = {"choice": "linear", "dtype": "bfloat16", "first": 768, "second": 768, "results": "h/linear.json", "case": "K768"}


OTHERS = [  # no reason against a choice
    {"group": "linear, bfloat16", "case": "K768", "peer": "F.linear", "ratio": 0.9},
    {"group": "linear, float16", "case": "K768", "peer": "portable", "ratio": 0.9},
]


def measured(ratio):
    return {"group": "linear, bfloat16", "case": "K768", "peer": "portable", "ratio": ratio}


def written(folder, row, *ratios):
    (folder / "h").mkdir()
    (folder / "h" / "linear.json").write_text(json.dumps({"rows": [measured(r) for r in ratios] + OTHERS}))
    file = folder / "kernel_choices.json"
    file.write_text(json.dumps({"rows": [row]}))
    return file


def test_the_committed_table_holds():
    assert isinstance(kernel_choices.read(), list)


def test_a_row_with_results_that_show_it_is_read(tmp_path):
    assert kernel_choices.read(written(tmp_path, ROW, 1.2, 1.01)) == [ROW]
    assert kernel_choices.read(tmp_path / "absent.json") == []


@pytest.mark.parametrize(
    ("change", "ratios", "message"),
    [
        ({}, (1.2, 0.99), "does not show that 'K768' is faster in bfloat16"),
        ({}, (None,), "does not show"),
        ({"case": "K384"}, (1.2,), "does not show that 'K384'"),
        ({"results": "h/none.json"}, (1.2,), "leans on h/none.json, which is not there"),
        ({"choice": "lineal"}, (1.2,), "names 'lineal' in 'bfloat16'; accepted: linear,"),
        ({"dtype": "float32"}, (1.2,), "names 'linear' in 'float32'"),
    ],
)
def test_a_row_that_leans_on_nothing_stops_the_build(tmp_path, change, ratios, message):
    with pytest.raises(BuildError, match=message):
        kernel_choices.read(written(tmp_path, ROW | change, *ratios))


class Module(SimpleNamespace):
    """An extension with CUDA kernels."""

    def __init__(self, sm_90a):
        names = {n: n for n in (*kernel_choices.CHOICES, *kernel_choices.DTYPES, *_kernels.MODES)}
        names = SimpleNamespace(**names)
        super().__init__(Kernels=names, Choice=names, Dtype=names, told=[], rows=[])
        self.build_info = lambda: {"sm_90a": sm_90a}
        self.choose_kernels = self.told.append
        self.add_kernel_choice = lambda *row: self.rows.append(row)


def test_modes_reach_the_extension_and_go_back(monkeypatch):
    module = Module(True)
    monkeypatch.setattr(_kernels, "extension", lambda: module)
    with _kernels.kernels("sm_90a"):
        assert _kernels.chosen() == "sm_90a"
        with pytest.raises(RuntimeError), _kernels.kernels("portable"):
            raise RuntimeError
    assert module.told == ["sm_90a", "portable", "sm_90a", "measured"]
    assert _kernels.chosen() == "measured"


def test_measured_rows_reach_the_extension(monkeypatch):
    module = Module(True)
    monkeypatch.setattr(_kernels, "extension", lambda: module)
    monkeypatch.setattr(_kernels, "rows", lambda: [ROW])
    _kernels._start()
    assert module.rows == [("linear", "bfloat16", 768, 768)]


def test_what_cannot_be_had_is_refused(monkeypatch):
    with pytest.raises(ArgumentValueError, match="SENTCORE_KERNELS is 'fast'; accepted: measured, portable, sm_90a"):
        _kernels.choose("fast")
    for module in (None, Module(False), SimpleNamespace()):
        monkeypatch.setattr(_kernels, "extension", lambda module=module: module)
        with pytest.raises(ArgumentValueError, match="this installation has no such kernels"):
            _kernels.choose("sm_90a")
        _kernels.choose("portable")
    _kernels.choose("measured")


def test_the_environment_variable_is_read_at_import():
    def imported(value):
        code = "from sentcore import _kernels; print(_kernels.chosen())"
        environment = os.environ | {"SENTCORE_KERNELS": value}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert imported("portable").stdout == "portable\n"
    assert "SENTCORE_KERNELS is 'fastest'" in imported("fastest").stderr


def test_choices_are_what_was_faster_at_every_size(tmp_path):
    def row(group, case, ratio, peer="portable"):
        return {"group": group, "case": case, "peer": peer, "ratio": ratio}

    rows = [
        row("linear none, bfloat16", "N768 K768", 1.1), row("linear none, bfloat16", "N768 K768", 1.3),
        row("linear none, bfloat16", "N768 K768", 0.9, "F.linear"),
        row("linear gelu, bfloat16", "N3072 K768", 1.1), row("linear gelu, bfloat16", "N3072 K768", 0.99),
        row("linear gelu, float16", "N3072 K768", 1.2),
        row("linear backward, bfloat16", "backward N3072 K768", 1.2),
        row("fp8_linear none, bfloat16", "fp8 N768 K770", 1.2),
        row("linear_add_layer_norm, bfloat16", "norm N384 K1536", 1.2),
        row("attention, bfloat16", "D64 keys 256", 1.2), row("attention, bfloat16", "D64 keys 512", 0.8),
        row("attention, bfloat16", "D64 keys 1024", 1.1), row("attention, bfloat16", "D64 keys 2048", 1.4),
        row("attention, bfloat16", "D128 keys 2048", 0.9),
    ]  # fmt: skip
    results = tmp_path / "nvidia-h200"
    results.mkdir()
    (results / "sm_90a.json").write_text(json.dumps({"machine": {"device": "NVIDIA H200"}, "rows": rows}))
    out = tmp_path / "kernel_choices.json"
    done = subprocess.run([sys.executable, CHOOSE, results, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {(r["choice"], r["dtype"], r["first"], r["second"]) for r in kernel_choices.read(out)}
    assert found == {
        ("linear", "bfloat16", 768, 768), ("linear", "float16", 3072, 768),
        ("linear_input_gradient", "bfloat16", 768, 3072), ("linear_weight_gradient", "bfloat16", 3072, 768),
        ("attention", "bfloat16", 64, 1024), ("fp8_linear", "bfloat16", 768, 784),
        ("linear_add_layer_norm", "bfloat16", 384, 1536),
    }  # fmt: skip


def test_results_of_another_gpu_choose_nothing(tmp_path):
    (tmp_path / "sm_90a.json").write_text(json.dumps({"machine": {"device": "NVIDIA A100"}, "rows": []}))
    done = subprocess.run([sys.executable, CHOOSE, tmp_path, "--out", tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 1 and "is of 'NVIDIA A100'; accepted: a GPU of compute capability 9.0" in done.stderr
