"""The CPU kernels of every instruction set this machine has give right results, not only those of the best one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sentcore._extension import extension

OPS = Path(__file__).parent
ROOMS = (
    "bias_gelu",
    "int8_linear",
    "packed_linear",
    "rows",
    "segment_pooling",
    "varlen_attention",
    "varlen_attention_backward",
)
FILES = [*(f"test_{room}.py" for room in ROOMS), "../layers/test_whole_layer.py"]
CHOSEN = (
    "accurate and not its_parts and (-5- or -13- or plain) or nan and not -3 or rounded or size or matches or wherever or "
    "width or alone or its_parts and (33-7 or 128-512) and -3-"
)
LOWER = ("portable", "avx2", "avx512", "avx512_vnni")


def used_under(environment: dict[str, str]) -> str:
    """The instruction set that the kernels of a process of this environment use."""
    code = "from sentcore._extension import extension; print(extension().build_info()['cpu_isa'])"
    done = subprocess.run(  # in OPS: in the project's folder its sources, without kernels, would be what is imported
        [sys.executable, "-c", code], cwd=OPS, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("isa", LOWER)
def test_kernels_of_an_older_machine(isa):
    if extension() is None:
        pytest.skip("the compiled kernels are not here")
    environment = os.environ | {"SENTCORE_CPU_ISA": isa}
    if used_under(environment) != isa:
        pytest.skip(f"this machine has no {isa}, or nothing better")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES, "-k", CHOSEN],
        cwd=OPS,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
