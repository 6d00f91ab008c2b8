"""Where a model may be computed: GPUs that are not there are named before anything is loaded."""

import pytest
import torch

from sentcore.errors import ArgumentValueError
from sentcore.placement import pick_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1", torch.device("cuda", 1), "cpu", None])
def test_a_gpu_that_is_there(two_gpus, device):
    assert pick_device(device) == torch.device("cuda" if device is None else device)


@pytest.mark.parametrize("device", ["cuda:2", torch.device("cuda", 7)])
def test_a_gpu_that_is_not_there(two_gpus, device):
    with pytest.raises(ArgumentValueError, match=r"accepted: cuda:0 to cuda:1, .* CUDA_VISIBLE_DEVICES"):
        pick_device(device)
