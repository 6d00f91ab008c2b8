"""Planning batches of a million sentences: the compiled planner beside NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from sentcore.inputs.planning import plan_batches, plan_batches_numpy

LENGTHS = np.random.default_rng(0).lognormal(3.3, 0.7, 1_000_000).astype(np.int64).clip(3, 512)


@pytest.mark.benchmark(group="plan 1,000,000 sentences")
@pytest.mark.parametrize("plan", [plan_batches, plan_batches_numpy], ids=["sentcore", "numpy"])
def test_plan(benchmark, plan):
    order, offsets = benchmark(plan, LENGTHS, 4096)
    expected = plan_batches_numpy(LENGTHS, 4096)
    assert np.array_equal(order, expected[0]) and np.array_equal(offsets, expected[1])
