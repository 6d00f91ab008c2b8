"""The batch planner: what a plan is, the compiled planner against NumPy, and bad input."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.inputs.planning import plan_batches, plan_batches_numpy

PLANNERS = [plan_batches, plan_batches_numpy]


def int64(values):
    return np.asarray(values, dtype=np.int64)


@pytest.mark.parametrize("plan", PLANNERS)
@pytest.mark.parametrize(
    ("lengths", "batch_tokens", "order", "batch_offsets"),
    [
        ([5, 1, 3, 2, 1], 5, [0, 2, 3, 1, 4], [0, 1, 3, 5]),
        ([], 8, [], [0]),
        ([4], 8, [0], [0, 1]),
        ([0], 1, [0], [0, 1]),
        ([0, 0, 0], 1, [0, 1, 2], [0, 3]),
        ([9, 0, 1], 4, [0, 2, 1], [0, 1, 3]),  # over the budget: alone, even beside an empty one
        ([9], 4, [0], [0, 1]),
        ([4, 4, 4], 8, [0, 1, 2], [0, 2, 3]),  # the budget itself is allowed
        ([2, 2, 2], 2**80, [0, 1, 2], [0, 3]),
        ([3, 2**31 - 1, 3], 6, [1, 0, 2], [0, 1, 3]),
    ],
)
def test_plan_by_hand(native, plan, lengths, batch_tokens, order, batch_offsets):
    found_order, found_offsets = plan(int64(lengths), batch_tokens)
    assert found_order.dtype == found_offsets.dtype == np.int64
    assert found_order.tolist() == order
    assert found_offsets.tolist() == batch_offsets


def definition(lengths, batch_tokens):
    """The rule in plain Python, one sentence at a time."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    offsets, total = [0], 0
    for k, sentence in enumerate(order):
        if k > offsets[-1] and total + lengths[sentence] > batch_tokens:
            offsets.append(k)
            total = 0
        total += lengths[sentence]
    return order, offsets + ([len(order)] if order else [])


lengths_lists = st.one_of(
    st.lists(st.integers(0, 12), max_size=60),
    st.lists(st.integers(0, 2**31 - 1), max_size=20),  # too long to be sorted by counting
)


@given(lengths=lengths_lists, batch_tokens=st.one_of(st.integers(1, 40), st.integers(1, 2**40)))
def test_both_planners_follow_the_rule(native, lengths, batch_tokens):
    order, offsets = definition(lengths, batch_tokens)
    for plan in PLANNERS:
        found_order, found_offsets = plan(int64(lengths), batch_tokens)
        assert found_order.tolist() == order
        assert found_offsets.tolist() == offsets


@pytest.mark.parametrize("plan", PLANNERS)
def test_a_view_that_is_not_contiguous(native, plan):
    lengths = int64([5, 99, 1, 99, 3, 99])[::2]
    assert plan(lengths, 5)[0].tolist() == [0, 2, 1]


def test_a_million_sentences_faster_than_numpy(native):
    lengths = np.random.default_rng(0).integers(3, 257, 1_000_000)
    compiled, numpy = plan_batches(lengths, 8192), plan_batches_numpy(lengths, 8192)
    np.testing.assert_array_equal(compiled[0], numpy[0])
    np.testing.assert_array_equal(compiled[1], numpy[1])

    def best_of_three(plan):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            plan(lengths, 8192)
            times.append(time.perf_counter() - start)
        return min(times)

    # Measured about 24 times faster; 3 leaves room for a busy machine.
    assert best_of_three(plan_batches) * 3 < best_of_three(plan_batches_numpy)


@pytest.mark.parametrize("plan", PLANNERS)
@pytest.mark.parametrize(
    ("lengths", "batch_tokens", "error", "words"),
    [
        ([1, 2], 8, ArgumentTypeError, ["lengths", "list", "int64"]),
        (np.array([1, 2], dtype=np.int32), 8, ArgumentTypeError, ["lengths", "int32", "int64"]),
        (int64([[1, 2]]), 8, ArgumentValueError, ["lengths", "(1, 2)", "[B]"]),
        (int64([3, -1]), 8, ArgumentValueError, ["lengths[1]", "-1", "from 0"]),
        (int64([2**31]), 8, ArgumentValueError, ["lengths[0]", str(2**31), str(2**31 - 1)]),
        (int64([3]), 0, ArgumentValueError, ["batch_tokens", "0", "at least 1"]),
        (int64([3]), -(2**70), ArgumentValueError, ["batch_tokens", str(-(2**70)), "at least 1"]),
        (int64([3]), 8.0, ArgumentTypeError, ["batch_tokens", "8.0", "float"]),
        (int64([3]), True, ArgumentTypeError, ["batch_tokens", "True", "bool"]),
    ],
)
def test_bad_arguments_are_named(native, plan, lengths, batch_tokens, error, words):
    with pytest.raises(error) as caught:
        plan(lengths, batch_tokens)
    for word in words:
        assert word in str(caught.value)


def test_the_extension_checks_on_its_own(native):
    """Its callers check first, but nothing may make it read outside its arrays."""
    with pytest.raises(ValueError, match=r"lengths\[1\] is -5"):
        native.plan_batches(int64([1, -5]), 8)
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        native.plan_batches(int64([1]), 0)
    with pytest.raises(ValueError, match="2 dimensions"):
        native.plan_batches(int64([[1]]), 8)
    with pytest.raises(TypeError):
        native.plan_batches(np.array([1.0]), 8)
