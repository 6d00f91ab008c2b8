"""accelerate under DistributedDataParallel and fully_shard: the losses and parameters of the untouched model in two processes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import sentcore
import two_processes
from accelerated import batches_for, classifier
from sentcore.errors import ArgumentValueError


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


@pytest.fixture
def one_process():
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sharded_before_it_is_refused(one_process):
    model = classifier()
    for layer in model.bert.encoder.layer:
        fully_shard(layer)
    with pytest.raises(ArgumentValueError, match=r"FSDPBertLayer.*fully_shard comes after accelerate"):
        sentcore.accelerate(model)


def test_embeddings_sharded_alone_are_left_to_the_model_with_a_warning(one_process):
    theirs = classifier()
    ours = sentcore.accelerate(copy.deepcopy(theirs))
    fully_shard(ours.bert.embeddings)
    batch = batches_for("Token", 1, 0)[0]
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="embeddings is of class FSDPBertEmb"):
        found = ours(**batch).logits
    assert torch.equal(found, theirs(**batch).logits)
