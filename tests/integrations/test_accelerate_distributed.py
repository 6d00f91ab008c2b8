"""accelerate under DistributedDataParallel and fully_shard: the losses and parameters of the untouched model in two processes."""

from __future__ import annotations

import pytest
import torch.distributed as dist

import two_processes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    return two_processes.results(tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("way", two_processes.WAYS)
def test_two_processes(way, found):
    for one in found[way]:
        assert len(set(one["plain"])) == len(one["plain"])  # it learns something
        for step, (mine, other) in enumerate(zip(one["accelerated"], one["plain"], strict=True)):
            assert abs(mine - other) <= 1e-4 * abs(other), step
        assert one["differs"] <= 1e-4
    assert found[way][0]["plain"] != found[way][1]["plain"]  # on texts of their own
