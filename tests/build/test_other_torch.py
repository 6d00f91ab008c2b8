"""The extension as it is installed here, loaded in other versions of torch, CPU-only or CUDA.

SENTCORE_OTHER_PYTHONS names interpreters of this Python version with another torch and NumPy, separated by colons; without it
there is nothing to test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sentcore import _extension

PYTHONS = [path for path in os.environ.get("SENTCORE_OTHER_PYTHONS", "").split(":") if path]
CODE = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from sentcore import _extension, ops
assert _extension.extension() is not None, _extension.WHY_ABSENT
names = [name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("sentcore::")]
has = torch._C._dispatch_has_kernel_for_dispatch_key
keys = {key: sorted(n for n in names if has(f"sentcore::{n}", key)) for key in ("CPU", "CUDA")}
generator = torch.Generator().manual_seed(0)
x, residual, grad = torch.randn(3, 7, 40, generator=generator)
weight, bias = torch.randn(2, 40, generator=generator)
differences = []
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    results = []
    for function in (ops.add_layer_norm, ops.reference.add_layer_norm):
        leaves = [t.to(dtype).detach().requires_grad_() for t in (x, residual, weight, bias)]
        out = function(*leaves, eps=1e-5)
        out.backward(grad.to(dtype))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    differences.append(max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results)))
print(json.dumps({"torch": torch.__version__, "keys": keys, "differences": differences}))
"""


def _run(python: str, folder: Path) -> dict:
    done = subprocess.run([python, "-c", CODE, str(folder)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder that holds a copy of the installed sentcore and nothing of the packages beside it."""
    if _extension.extension() is None:
        pytest.skip(_extension.WHY_ABSENT)
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(Path(_extension.__file__).parent, folder / "sentcore")
    return folder


@pytest.mark.parametrize("python", [sys.executable, *PYTHONS])
def test_kernels_load_run_and_register(python, package):
    here, there = _run(sys.executable, package), _run(python, package)
    assert there["keys"] == here["keys"]
    assert "add_layer_norm" in there["keys"]["CPU"]
    built = _extension.build_info()["extension"]
    assert ("add_layer_norm" in there["keys"]["CUDA"]) == built["cuda"]
    for difference, epsilon in zip(there["differences"], (1e-6, 2**-6, 2**-9), strict=True):
        assert difference <= epsilon
