"""The CPU kernels of every instruction set this machine has give right results, not only those of the best one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sentcore._extension import extension

OPS = Path(__file__).parent
TESTS = {
    "bias_gelu": "wherever",
    "int8_linear": "accurate and -13- or rounded or nan and -16",
    "rows": "width or nan or 16_bits",
    "segment_pooling": "accurate or alone or nan",
    "varlen_attention": "matches or accurate or size or nan",
}
LOWER = ("portable", "avx2", "avx512", "avx512_vnni")


@pytest.mark.parametrize("isa", LOWER)
@pytest.mark.parametrize("op", TESTS)
def test_kernels_of_an_older_machine(op, isa):
    if extension() is None:
        pytest.skip("the compiled kernels are not here")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"test_{op}.py", "-k", TESTS[op]],
        cwd=OPS,
        env=os.environ | {"SENTCORE_CPU_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
