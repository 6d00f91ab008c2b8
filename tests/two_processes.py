"""Steps of training in two processes over gloo, plain and accelerated: what the tests of DDP and FSDP start and read.

The processes are forked from a server that imported torch and transformers once, meet in a file, and are killed at a limit: on a
busy machine the imports alone may take a minute, so the limit is wide.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import sentcore

LIMIT_S = 400
PRELOAD = ["torch", "torch._dynamo", "torch.distributed.fsdp", "transformers.models.bert.modeling_bert", "accelerated"]


def results(folder: Path) -> dict[str, list]:
    """{way: [for each process {"plain": losses, "accelerated": losses, "differs": largest distance of parameters}]}."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    processes = [context.Process(target=_steps, args=(rank, str(folder)), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    until = time.monotonic() + LIMIT_S
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    assert codes == [0, 0], f"exit codes {codes}; None is one that did not end within {LIMIT_S} s"
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return {way: [one[way] for one in found] for way in found[0]}


def _steps(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", RuntimeWarning)  # accelerate says so where it gives up packing
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {way: _compared(rank, way) for way in WAYS}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _compared(rank: int, way: str) -> dict:
    from accelerated import batches_for, classifier, losses

    plain = TorchClassifier() if "torch" in way else classifier(num_hidden_layers=2)
    models = {"plain": plain, "accelerated": sentcore.accelerate(copy.deepcopy(plain))}
    batches = batches_for("Token", 8, 0)[rank::2]
    found = {name: losses(WAYS[way](model), batches) for name, model in models.items()}
    ours, theirs = (dict(model.named_parameters()) for model in models.values())
    # A key's bias has no gradient but rounding, which AdamW scales up to whole steps.
    names = [name for name in theirs if not name.endswith((".key.bias", "in_proj_bias"))]
    found["differs"] = max(_distance(ours[name], theirs[name]) for name in names)
    return found


def _distance(mine: torch.Tensor, other: torch.Tensor) -> float:
    mine, other = (p.full_tensor() if hasattr(p, "full_tensor") else p for p in (mine.detach(), other.detach()))
    return float((mine - other).norm() / other.norm())


class TorchClassifier(nn.Module):
    """Token classification on a torch.nn.TransformerEncoder, called as transformers' models are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(24, 4, 40, dropout=0.0, batch_first=True)
        self.table, self.head = nn.Embedding(100, 24), nn.Linear(24, 3)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        out = self.head(self.encoder(self.table(input_ids), src_key_padding_mask=attention_mask == 0))
        return nn.functional.cross_entropy(out.flatten(0, 1), labels.flatten(), ignore_index=-100)


def _ddp(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def _sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model)


def _sharded_by_layer(model: nn.Module) -> nn.Module:
    for layer in model.encoder.layers if isinstance(model, TorchClassifier) else model.bert.encoder.layer:
        fully_shard(layer)
    return fully_shard(model)


WAYS = {
    "ddp": _ddp,
    "ddp, torch": _ddp,
    "fully_shard": _sharded,
    "fully_shard by layer": _sharded_by_layer,
    "fully_shard by layer, torch": _sharded_by_layer,
}
