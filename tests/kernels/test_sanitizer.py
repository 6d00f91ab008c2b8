"""The same tests under AddressSanitizer: torch's buffers end where their last element does, so a read past it is seen."""

from __future__ import annotations

import pytest

from kernels import emulated


@pytest.fixture(scope="module")
def sanitized():
    if reason := emulated.why_not(sanitize=True):
        pytest.skip(reason)
    return emulated.build("address", sanitize="address")


def test_no_access_out_of_range(sanitized):
    done = emulated.pytest_with(
        sanitized,
        "tests/kernels/test_add_layer_norm.py",
        "tests/kernels/test_varlen_attention.py",
        "tests/kernels/test_qkv_projection.py",
        "tests/kernels/test_linear.py",
        "tests/kernels/test_bias_gelu.py",
        "tests/kernels/test_embedding_layer_norm.py",
        "tests/kernels/test_segment_pooling.py",
        "tests/kernels/test_fp8_linear.py",
        "tests/kernels/test_segment_pooling_quantized.py",
        "tests/kernels/test_linear_add_layer_norm.py",
        "tests/kernels/test_sm90a.py::test_cross_attention",
        "tests/kernels/test_sm90a.py::test_products_of_e4m3",
        "tests/kernels/test_emulated_gpu.py",
        # Neither sizes nor addresses of their own, and long.
        "-k=not more_rows and not order_of_threads and not refus",
        sanitize=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
