"""What the package says about its compiled part: which GPUs it serves, why it is absent, what each op runs on."""

import json
import sys
import sysconfig
import warnings
from pathlib import Path

import pytest
import torch

from sentcore import _extension
from sentcore._archs import arch_is_covered, why_not_covered
from sentcore._extension import NATIVE, PLAIN, REFUSED

ALL = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "compute_80"]
FP8 = ["sm_89", "sm_90", "sm_100", "sm_120", "compute_89"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
OTHER_PYTHON = "_C.cpython-99-x86_64-linux-gnu.so"


@pytest.mark.parametrize(
    ("arch", "runs_on", "not_on"),
    [
        ("sm_80", [(8, 0), (8, 6), (8, 7), (8, 9)], [(7, 5), (9, 0), (10, 0)]),
        ("sm_86", [(8, 6), (8, 7), (8, 9)], [(8, 0), (9, 0)]),
        ("sm_89", [(8, 9)], [(8, 0), (8, 6), (9, 0)]),
        ("sm_90a", [(9, 0)], [(8, 9), (9, 1), (10, 0)]),
        ("sm_100f", [(10, 0), (10, 3)], [(9, 0), (11, 0), (12, 0)]),
        ("sm_120f", [(12, 0), (12, 1)], [(10, 0), (11, 0), (13, 0)]),
        ("sm_120", [(12, 0), (12, 1)], [(13, 0)]),
        ("compute_120", [(12, 0), (12, 1), (13, 0), (20, 5)], [(9, 0), (11, 0)]),
        ("compute_90", [(9, 0), (10, 0), (12, 0)], [(8, 9)]),
        ("compute_90a", [(9, 0)], [(10, 0)]),
        ("compute_100f", [(10, 0), (10, 3)], [(11, 0), (12, 0)]),
        ("something else", [], [(8, 0)]),
    ],
)
def test_where_one_arch_runs(arch, runs_on, not_on):
    assert [c for c in runs_on if not arch_is_covered(c, [arch])] == []
    assert [c for c in not_on if arch_is_covered(c, [arch])] == []


def test_where_the_default_binary_runs():
    gpus = [
        (7, 0),
        (7, 5),
        (8, 0),
        (8, 6),
        (8, 9),
        (9, 0),
        (10, 0),
        (10, 3),
        (11, 0),
        (12, 0),
        (13, 0),
    ]
    covered = [gpu for gpu in gpus if arch_is_covered(gpu, ALL)]
    assert covered == [gpu for gpu in gpus if gpu >= (8, 0)]
    assert not arch_is_covered((11, 0), ALL, ptx=False)
    assert not arch_is_covered((13, 0), ALL, ptx=False)
    assert not arch_is_covered((8, 0), [])


@pytest.mark.parametrize(
    ("capability", "driver", "words"),
    [
        ((9, 0), "13.0", None),
        ((9, 0), "13.2", None),
        ((9, 0), "14.0", None),
        ((9, 0), None, None),
        ((13, 0), "13.0", None),
        ((7, 5), "13.0", ["Turing", "7.5", "sm_80", "SENTCORE_CUDA_ARCHS"]),
        ((9, 0), "12.8", ["CUDA 13.0", "CUDA 12.8", "update the driver", "nvcc of CUDA 12"]),
    ],
)
def test_why_a_gpu_is_not_covered(capability, driver, words):
    reason = why_not_covered("Turing", capability, ALL, "13.0", driver)
    if words is None:
        assert reason is None
    else:
        assert [word for word in words if word not in reason] == []


def test_ptx_newer_than_the_driver_does_not_count():
    assert why_not_covered("new", (13, 0), ALL, "13.2", "13.2") is None
    reason = why_not_covered("new", (13, 0), ALL, "13.2", "13.0")
    assert "PTX needs a driver for CUDA 13.2" in reason


def load(folder, files=(), record=None, torch_version="2.13.0+cpu", loader=None):
    for name in files:
        (folder / name).write_bytes(b"")
    if record is not None:
        (folder / "_build_record.json").write_text(json.dumps(record))
    return _extension._load(torch_version, folder, loader or (lambda name: sys))


def fails_to_load(name):
    raise ImportError("libfoo.so: undefined symbol: bar")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["not built", "never installed", "pip install"]),
        (
            {"record": {"kind": "none", "why_not_more": "no C++ compiler was found; install g++"}},
            ["not built", "no C++ compiler was found; install g++"],
        ),
        ({"files": [OTHER_PYTHON]}, ["another Python", OTHER_PYTHON, "pip install"]),
        (
            {"files": [f"_C{SUFFIX}"], "torch_version": "2.10.1"},
            ["torch 2.10.1", "older than 2.11", "torch>=2.11"],
        ),
        (
            {"files": [f"_C{SUFFIX}"], "loader": fails_to_load},
            ["does not load", "libfoo.so: undefined symbol: bar", "pip install"],
        ),
    ],
)
def test_why_the_extension_is_absent(tmp_path, given, words):
    module, why = load(tmp_path, **given)
    assert module is None
    assert [word for word in words if word not in why] == []


@pytest.mark.parametrize("torch_version", ["2.11.0", "2.13.0+cpu", "2.15.0a0+git123", "3.0.0"])
def test_the_extension_that_is_there_is_loaded(tmp_path, torch_version):
    assert load(tmp_path, [f"_C{SUFFIX}"], torch_version=torch_version) == (sys, None)


def test_a_damaged_build_record_does_not_stop_the_import(tmp_path):
    (tmp_path / "_build_record.json").write_text("{")
    assert load(tmp_path)[0] is None


def test_build_info_is_whole():
    info = _extension.build_info()
    assert set(info) == {"version", "torch", "extension", "devices", "ops"}
    assert info["torch"] == torch.__version__
    rooms = (Path(_extension.__file__).parent / "ops").glob("*/register.py")
    assert set(info["ops"]) == {file.parent.name for file in rooms}
    for kinds in info["ops"].values():
        assert set(kinds) == {"cpu", "cuda"}
        for said in kinds.values():
            assert (said["runs"], said["why_not_native"] is None) in [
                (NATIVE, True),
                (PLAIN, False),
                (REFUSED, False),
            ]
    built = info["extension"]
    assert built["built"] is (_extension.extension() is not None)
    assert (built["why_absent"] is None) is built["built"]
    if built["built"]:
        compiled = _extension.extension().build_info()
        assert compiled["version"] == info["version"], "sentcore._C is of another version: build again"
        assert built["torch_target"] == "2.11"
        assert built["cpu"] is True
        assert built["compiler"]
        assert built["cuda"] is bool(built["archs"]) is bool(built["cuda_toolkit"])


@pytest.fixture
def compiled(monkeypatch):
    """An extension with CUDA kernels for two ops, on a machine whose one GPU the test chooses."""

    def make(capability=(9, 0), cuda=True, record=None, archs=ALL, fp8_archs=FP8):
        info = {
            "cuda": cuda,
            "archs": archs if cuda else [],
            "fp8_archs": fp8_archs if cuda else [],
            "cuda_toolkit": "13.0" if cuda else None,
            "ops": {"cpu": ["add_layer_norm"], "cuda": ["add_layer_norm", "fp8_linear"] if cuda else []},
        }
        monkeypatch.setattr(_extension, "_extension", sys)
        monkeypatch.setattr(_extension, "_compiled", info)
        monkeypatch.setattr(_extension, "_seen", {})
        monkeypatch.setattr(_extension, "_said", set())
        monkeypatch.setattr(_extension, "_fp8_reasons", {})
        monkeypatch.setattr(_extension, "on_unsupported_device", [])
        monkeypatch.setattr(_extension, "build_record", lambda: record or {})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 13000, raising=False)

    return make


def test_a_covered_gpu_runs_native_kernels(compiled):
    compiled()
    hooked = []
    _extension.on_unsupported_device.append(hooked.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _extension.ensure_device(torch.device("cuda:0"))
        _extension.ensure_device(torch.device("cuda"))
        _extension.ensure_device(torch.device("cpu"))
    assert hooked == []
    info = _extension.build_info()
    assert [d["runs_native"] for d in info["devices"]] == [True, True]
    assert info["ops"]["add_layer_norm"]["cuda"] == {"runs": NATIVE, "why_not_native": None}
    assert info["ops"]["bias_gelu"]["cuda"]["runs"] == PLAIN
    assert "no CUDA kernel" in info["ops"]["bias_gelu"]["cuda"]["why_not_native"]


def test_an_uncovered_gpu_warns_once_and_calls_the_hooks_once(compiled):
    compiled(capability=(7, 5))
    hooked = []
    _extension.on_unsupported_device.append(hooked.append)
    with pytest.warns(RuntimeWarning, match=r"plain PyTorch: .*Some GPU .*7\.5") as caught:
        for device in ("cuda:0", "cuda:0", "cuda:1", "cuda"):
            _extension.ensure_device(torch.device(device))
    assert len(caught) == len(hooked) == 1
    assert "7.5" in hooked[0]
    said = _extension.build_info()["ops"]["add_layer_norm"]
    assert said["cuda"]["runs"] == PLAIN
    assert "7.5" in said["cuda"]["why_not_native"]
    assert said["cpu"] == {"runs": NATIVE, "why_not_native": None}


def test_a_build_without_cuda_says_why_once_and_needs_no_hook(compiled):
    compiled(cuda=False, record={"kind": "cpu", "why_not_more": "no nvcc was found; install it"})
    hooked = []
    _extension.on_unsupported_device.append(hooked.append)
    with pytest.warns(RuntimeWarning, match="no nvcc was found; install it") as caught:
        _extension.ensure_device(torch.device("cuda:0"))
        _extension.ensure_device(torch.device("cuda:1"))
    assert len(caught) == 1
    assert hooked == []
    said = _extension.build_info()["ops"]["add_layer_norm"]["cuda"]
    assert said["runs"] == PLAIN
    assert "no nvcc was found" in said["why_not_native"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"capability": (8, 9)}, None),
        ({"capability": (9, 0)}, None),
        ({"capability": (13, 0)}, None),
        ({"capability": (8, 6)}, ["Some GPU has compute capability 8.6", "need 8.9 or later"]),
        ({"capability": (8, 0)}, ["compute capability 8.0"]),
        ({"capability": (9, 0), "cuda": False}, ["without CUDA kernels"]),
        ({"capability": (8, 9), "archs": ["sm_80", "compute_80"], "fp8_archs": []}, ["for sm_80, compute_80 alone", "SENTCORE_CUDA_ARCHS"]),
        ({"capability": (8, 9), "archs": ["sm_80", "sm_90"], "fp8_archs": ["sm_90", "compute_90"]}, ["no code for Some GPU"]),
    ],
)  # fmt: skip
def test_who_multiplies_in_8_bit_floating_point(compiled, given, words):
    compiled(**given)
    why = _extension.why_no_fp8(torch.device("cuda:1"))
    said = _extension.build_info()["ops"]["fp8_linear"]["cuda"]
    if words is None:
        assert why is None and said == {"runs": NATIVE, "why_not_native": None}
    else:
        assert [word for word in words if word not in why] == []
        assert said["runs"] == REFUSED and said["why_not_native"]


def test_a_compiled_graph_checks_the_device_while_it_is_traced(compiled, monkeypatch):
    compiled(capability=(7, 5))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the compiler would use it
    hooked = []
    _extension.on_unsupported_device.append(hooked.append)

    @torch.compile(fullgraph=True, backend="eager")
    def double(x):
        _extension.ensure_device(x.device)
        _extension.ensure_device(torch.device("cuda:0"))
        return x * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(double(torch.ones(3)), torch.full((3,), 2.0))
    assert len(hooked) == 1
