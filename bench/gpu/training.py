"""A training step, forward, backward and AdamW, packed by sentcore beside transformers with padding, on the same real tokens.

    python bench/gpu/training.py --out bench/results/<gpu>

Random weights from transformers' configuration, the same ones on every side, dropout of 0.1 except where a peer has none. The loss
is the distance of every real token's hidden state from a random target, so tokens a second count real tokens alone. Before
anything is timed, losses and gradients without dropout are compared with those of transformers in float32: a row's difference is
the larger of the loss's, relative, and of the root mean square of the gradients', each relative to its parameter's;
`peer_difference` is the peer's own. One that is more than twice that of transformers at the same arithmetic fails the run.
"""

from __future__ import annotations

import copy
import functools
import gc
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from encoder import BATCHES, SHAPES, draw, packed_by_torch
from targets import TARGETS
from timing import Row, arguments, kept, rows_of, spread, times_ms
from verdict import judge

import sentcore
from sentcore.checkpoint.load import load_checkpoint

TIMES_THEIRS, FLOOR = 2.0, 1e-4  # what difference is accepted, and where both are in float32
MODES = ("bfloat16 autocast", "bfloat16 weights")
SENTENCES = 256  # of a batch at most, so that the padded side of BERT-large fits too
COMPARED = 16  # of them for losses and gradients: in float32, padded, more of them would not fit
ROUNDS = 2
PADDED, FLASH, PACKED = (
    "transformers, SDPA, padded",
    "transformers, flash attention",
    "packed, torch's own ops, no dropout",
)


def bert_config(shape: str, device: str):
    """transformers' configuration; a small one of as many layers at most on a CPU."""
    from transformers import BertConfig

    hidden, layers, heads, inner = SHAPES[shape] if device == "cuda" else (64, 2, 4, 128)
    return BertConfig(
        vocab_size=8192, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip


def names_of(config) -> tuple[dict[str, str], sentcore.EncoderConfig]:
    """({our parameter's name: transformers'}, our configuration), read off a narrow model of as many layers."""
    from transformers import BertModel

    heads = config.num_attention_heads
    narrow = BertModel(
        type(config)(**config.to_dict() | {"vocab_size": 32, "hidden_size": heads, "intermediate_size": heads}),
        add_pooling_layer=False,
    )
    theirs = [name for name, _ in narrow.named_parameters()]
    with torch.no_grad():
        for place, parameter in enumerate(narrow.parameters()):
            parameter.fill_(place)
    with tempfile.TemporaryDirectory() as folder:
        narrow.save_pretrained(folder)
        checkpoint = load_checkpoint(folder)
    names = {ours: theirs[int(tensor.flatten()[0])] for ours, tensor in checkpoint.state_dict.items()}
    ours = replace(
        checkpoint.config,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
    )
    return names, ours


@functools.cache
def prepared(shape: str, device: str) -> tuple:
    """(transformers' configuration, names_of it, random weights)."""
    from transformers import BertModel

    config = bert_config(shape, device)
    torch.manual_seed(0)
    with torch.device(device):
        weights = BertModel(copy.deepcopy(config), add_pooling_layer=False).state_dict()
    return config, *names_of(config), weights


class Variant:
    """One model with its optimizer, and how it computes [T, H] of real tokens in packed order."""

    def __init__(self, model: torch.nn.Module, run: Callable, names: dict[str, str] | None, mode: str) -> None:
        self.model = model.to(torch.bfloat16) if mode == "bfloat16 weights" else model
        self.run, self.names = run, names
        self.autocast = mode == "bfloat16 autocast"
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def loss(self, batch: dict) -> torch.Tensor:
        """Of one batch, differentiable."""
        with torch.autocast(batch["device"], torch.bfloat16, enabled=self.autocast):
            hidden = self.run(self.model, batch)
        return F.mse_loss(hidden.float(), batch["target"])

    def step(self, batch: dict) -> None:
        """Forward, backward and update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        self.optimizer.step()

    def compared(self, batch: dict) -> tuple[float, dict[str, torch.Tensor]]:
        """(loss, gradients under transformers' names), without dropout and without an update."""
        self.model.eval()
        self.model.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        found = {self.names[n] if self.names else n: p.grad for n, p in self.model.named_parameters()}
        self.model.zero_grad(set_to_none=True)
        self.model.train()
        return float(loss.detach()), found

    def peak_bytes(self, batch: dict) -> float:
        """Of weights, what the optimizer keeps of them, and all that one step takes."""
        held = sum(p.numel() * p.element_size() for p in self.model.parameters())
        for state in self.optimizer.state.values():
            held += sum(t.numel() * t.element_size() for t in state.values() if torch.is_tensor(t))
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step(batch)
        torch.cuda.synchronize()
        return held + torch.cuda.max_memory_allocated() - before


def padded(model, batch):
    return model(batch["ids"], batch["mask"]).last_hidden_state.flatten(0, 1)[batch["places"]]


def packed(model, batch):
    return model(batch["packed"])


def by_torch(model, batch):
    return packed_by_torch(model, batch["packed"])


def on_device(make: Callable[[], torch.nn.Module], weights: dict, device: str) -> torch.nn.Module:
    """A model made there, as making it on a CPU takes seconds, with these weights."""
    with torch.device(device):
        model = make()
    model.load_state_dict(weights)
    return model.to(device).train()


def variants_of(shape: str, mode: str, device: str, batch: dict) -> dict[str, Variant]:
    """The peers that run here, and sentcore."""
    from transformers import BertModel

    config, names, ours_config, weights = prepared(shape, device)
    renamed = {name: weights[other] for name, other in names.items()}

    def theirs(attention: str):
        given = {"attn_implementation": attention, "add_pooling_layer": False}
        return on_device(lambda: BertModel._from_config(copy.deepcopy(config), **given), weights, device)

    def ours():
        return on_device(lambda: sentcore.Encoder(ours_config), renamed, device)

    kinds = {
        PADDED: (lambda: theirs("sdpa"), padded, None),
        FLASH: (lambda: theirs("flash_attention_2"), padded, None),
        PACKED: (ours, by_torch, names),
        "sentcore": (ours, packed, names),
    }
    found = {}
    for name, (make, run, of_names) in kinds.items():
        try:
            variant = Variant(make(), run, of_names, mode)
            if name in (FLASH, PACKED):
                variant.compared(batch)
        except (RuntimeError, ImportError, NotImplementedError, TypeError, AttributeError, ValueError):
            if name not in (FLASH, PACKED):
                raise
            continue  # a peer that this machine does not have
        found[name] = variant
    return found


def make_batch(label: str, sentences: int, config, device: str) -> dict:
    """The same ids packed and padded, the places of real tokens among the padded ones, and what they are drawn to."""
    batch, ids, mask = draw(BATCHES[label][:sentences], device)
    generator = torch.Generator().manual_seed(1)
    return {
        "device": device,
        "packed": batch,
        "ids": ids,
        "mask": mask,
        "places": mask.flatten().nonzero().flatten(),
        "target": torch.randn(batch.num_tokens, config.hidden_size, generator=generator).to(device),
    }


def differences(shape: str, variants: dict[str, Variant], batch: dict, device: str) -> dict[str, float]:
    """Of each variant the larger of loss and gradients, relative to transformers in float32."""
    from transformers import BertModel

    config, _, _, weights = prepared(shape, device)
    model = on_device(lambda: BertModel(copy.deepcopy(config), add_pooling_layer=False), weights, device)
    exact_loss, exact = Variant(model, padded, None, "float32").compared(batch)
    norms = {name: float(gradient.double().norm()) for name, gradient in exact.items()}
    least = 1e-3 * sum(norm**2 for norm in norms.values()) ** 0.5  # that of keys' biases is zero but for rounding
    found = {}
    for name, variant in variants.items():
        loss, gradients = variant.compared(batch)
        if gradients.keys() != exact.keys():
            raise SystemExit(
                f"{name} has gradients of {sorted(gradients.keys() ^ exact.keys())}, which the other has not"
            )
        off = [float((gradients[n].double() - g.double()).norm()) / (norms[n] + least) for n, g in exact.items()]
        found[name] = max((sum(value**2 for value in off) / len(off)) ** 0.5, abs(loss - exact_loss) / abs(exact_loss))
    limit = TIMES_THEIRS * found[PADDED] + FLOOR
    if not found["sentcore"] <= limit:
        raise SystemExit(f"losses or gradients differ by {found['sentcore']:.3g}; accepted: at most {limit:.3g}")
    return found


def measure(shape: str, labels: list[str], mode: str, device: str, rows: list[Row] | None = None) -> list[Row]:
    """The rows of one model in one kind of arithmetic, added to `rows` one by one."""
    rows = [] if rows is None else rows
    config = prepared(shape, device)[0]
    few = make_batch(labels[0], COMPARED, config, device)
    variants = variants_of(shape, mode, device, few)
    off = differences(shape, variants, few, device)
    for label in labels:
        batch = make_batch(label, SENTENCES, config, device)
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(ROUNDS if device == "cuda" else 1):
            for name, variant in variants.items():
                times[name] += times_ms(variant.step, [batch], device)
        rate = batch["packed"].num_tokens / (spread(times["sentcore"])[0] * 1e-3)
        group, case = f"training step, {mode}", f"{shape}, {label}"
        found = rows_of(group, case, times, off["sentcore"], tokens_per_second=rate)
        peaks = {name: v.peak_bytes(batch) / 2**30 for name, v in variants.items()} if device == "cuda" else {}
        for row in found:
            row.extra = row.extra | {"peer_difference": off[row.peer]}
            if peaks:
                row.extra |= {"peak_gib": peaks["sentcore"], "peer_peak_gib": peaks[row.peer]}
        rows += found
    return rows


def main() -> None:
    options = arguments(__doc__)
    with kept("training", options) as rows:
        measure_all(options.device, rows)
    found = [
        {"group": row.group, "case": row.case, "peer": row.peer, "ratio": row.ratio, "extra": row.extra} for row in rows
    ]
    for target in TARGETS:
        if target.file == "training":
            measured, met = judge(target, found)
            print(f"target: {target.name}, at least {target.bound:g}: {measured}, met: {met}")


def measure_all(device: str, rows: list[Row]) -> None:
    """Adds to `rows`."""
    for shape in reversed(list(SHAPES)):  # the largest one first: it is what is asked for most
        labels = ["real", "128", "512"] if device == "cuda" else ["real"]
        measure(shape, labels, MODES[0], device, rows)
        gc.collect()
        if shape == "BERT-large" or device == "cpu":  # for the rest there is no time
            measure(shape, ["real"], MODES[1], device, rows)
            gc.collect()
    if device == "cpu":
        measure("MiniLM", ["real"], "float32", "cpu", rows)  # where a wrong gradient cannot hide in rounding


if __name__ == "__main__":
    main()
