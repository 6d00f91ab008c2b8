"""Every tolerance of the test suite, each with its reason."""

from __future__ import annotations

import torch

# A result may be at most this many times as far from float64 as plain PyTorch at the same dtype is: two correct orders
# of rounding differ by about that much.
TIMES_PLAIN = 2.0

# Where plain PyTorch happens to round luckily (or exactly), a correct result may still be this many units in the last
# place of the largest value away: one rounding of the result, one of an intermediate.
FLOOR_ULPS = 2.0

# In float64 the reference is itself one order of rounding among several, so there the bound is absolute: far above sums
# of thousands of terms in any order, far below any wrong formula.
FLOAT64 = 1e-11

# Features of one model computed in float32 in two orders of addition: six layers' worth of float32 roundings on values
# of size 1 stay well below this; a wrong mask, position or epsilon is thousands of times larger.
SAME_FEATURES_FLOAT32 = 2e-6


def assert_as_accurate(
    actual: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor, name: str = "result", *, typical: bool = False
) -> None:
    """`actual` is at most TIMES_PLAIN as far from `exact` as `plain` is.

    Args:
        actual: what is tested, any shape and dtype.
        plain: plain PyTorch's result, same shape, same dtype.
        exact: the float64 reference, same shape.
        name: for the message.
        typical: by the root of the mean square and not by the largest error, which behind a chain of ops is one element's
            luck in both.
    """
    assert actual.shape == exact.shape, f"{name}: shape {list(actual.shape)}, not {list(exact.shape)}"
    if exact.numel() == 0:
        return
    assert torch.isfinite(actual).all(), f"{name}: not finite"
    errors, plain_errors = actual.double() - exact, plain.double() - exact
    error, plain_error = (
        (e.square().mean().sqrt() if typical else e.abs().max()).item() for e in (errors, plain_errors)
    )
    largest = exact.abs().max().item()
    floor = FLOOR_ULPS * torch.finfo(actual.dtype).eps * largest
    if actual.dtype == torch.float64:
        floor = FLOAT64 * max(1.0, largest)
    allowed = TIMES_PLAIN * plain_error + floor
    assert error <= allowed, (
        f"{name}: error {error:.3g} to float64, plain PyTorch's is {plain_error:.3g}, allowed {allowed:.3g}"
    )
