"""No pass of a family's model waits for the device: found on torch's "meta" device, which is no CPU and has no values to read."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from families import FAMILIES, make_model, save
from sentcore import EncoderConfig, PackedBatch
from sentcore.checkpoint.build import build_model
from sentcore.checkpoint.load import load_checkpoint
from sentcore.checkpoint.pooling import with_pooling
from sentcore.model import SentenceModel
from sentcore.outputs import DenseSpec, NormalizeSpec, PoolingSpec
from sentcore.pipeline.graphs.buckets import bucket_of
from sentcore.pipeline.graphs.buffers import StaticBatch

META = torch.device("meta")
WAITING = {
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "unique",
    "unique2",
    "_unique2",
    "is_nonzero",
    "equal",
}


class Waits(Exception):
    """An op that waits for the device."""


class Audit(TorchDispatchMode):
    """Lets ops pass that only queue work on one device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            raise Waits(name)
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        devices = {t.device.type for t in tensors if t.device.type != "cpu" or t.dim()}
        if len(devices) > 1:  # a copy from or to the host's memory
            raise Waits(f"{name} between {sorted(devices)}")
        self.count += "meta" in devices
        return out


class FromTheHost(TorchFunctionMode):
    """Lets no tensor be made of the host's values, which a GPU gets by a copy that waits. Dispatch sees none of it on "meta"."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            raise Waits(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)  # torch knows none for "meta"


def batch_on(device):
    return PackedBatch.from_sequences([[5] * n for n in (7, 30, 1)]).to(device)


def audited(model, run):
    batch = batch_on(META)
    with torch.no_grad():
        first = run(model, batch)  # what is made once for a device is made
        with FromTheHost(), Audit() as audit:
            out = run(model, batch)
    assert out.device == first.device == META and audit.count > 10
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "pooling", [["mean", "max"], ["cls"], ["lasttoken"], ["weightedmean", "mean_sqrt_len_tokens"], ["first_last_avg"]]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(family, pooling, dtype, tmp_path_factory):
    if family not in _folders:
        _folders[family] = save(make_model(family), tmp_path_factory.mktemp(family))
    checkpoint = with_pooling(load_checkpoint(_folders[family]), pooling)
    model = build_model(checkpoint, "auto", torch.device("cpu"), dtype).to(META).eval()
    audited(model, lambda model, batch: model.sentence_embedding(batch))
    audited(model, lambda model, batch: model(batch).sentence_embedding)


_folders: dict = {}


def test_alibi_windows_and_what_stands_behind_the_pooling():
    config = EncoderConfig(
        vocab_size=60, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=64,
        position_embedding_type="alibi", layer_types=("full", "sliding", "sliding"), sliding_window=4,
    )  # fmt: skip
    dense = DenseSpec(torch.randn(16, 48), torch.randn(16), "tanh")
    model = SentenceModel(config, [PoolingSpec(("mean",), include_prompt=False), dense, NormalizeSpec()])
    audited(model.to(META).eval(), lambda model, batch: model.sentence_embedding(batch, 2))


def test_what_fills_a_bucket():
    bucket = bucket_of(38, 3, 30, 512)

    def fill(static, batch):
        for _ in range(3):
            static.fill(batch)
        return static.batch.token_ids

    static = StaticBatch(bucket, META)
    audited(static, fill)


# ---- the audit itself ----


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: bool(x.any()),
        lambda x: int(x.max()),
        lambda x: torch.tensor([1, 2], device=META),
        lambda x: x.copy_(torch.zeros(37)),
    ],
)
def test_what_waits_is_found(waiting):
    x = torch.zeros(37, device=META)
    with (
        torch.no_grad(),
        FromTheHost(),
        Audit(),
        pytest.raises((Waits, NotImplementedError)),
    ):
        waiting(x)
