"""What is computed without a graph, and what the switch refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from folders import make_bert_folder
from graphs_of import BATCH, run, warmed_up
from sentcore import PackedBatch, SentenceEncoder, placement
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.pipeline.graphs import EagerCapture, GraphRunner


def _watched(encoder):
    encoder.model.encoder.layers[0].feed_forward.register_forward_hook(lambda module, args, out: out * 2)


def _watched_before(encoder):
    encoder.model.encoder.layers[1].attention.output.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def _replaced(encoder):
    encoder.model.sentence_embedding = lambda batch, prompt_length=0: torch.zeros(batch.num_sentences, 32)


class Adapter(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear, self.scales = linear, {"default": 2.0}

    @property
    def weight(self):
        return self.linear.weight

    def forward(self, x):
        return self.linear(x) * self.scales["default"]


def _adapted(encoder):
    layer = encoder.model.encoder.layers[0].attention
    layer.query = Adapter(layer.query)


@pytest.mark.parametrize("change", [_watched, _watched_before, _replaced, _adapted])
def test_what_a_graph_would_not_see_is_computed_as_always(encoder, change):
    warmed_up(encoder)
    change(encoder)
    counts = run(encoder, times=3)
    assert (counts["captured"], counts["dropped"], counts["eager"]) == (1, 1, 4)
    if change is _adapted:
        encoder.model.encoder.layers[0].attention.query.scales["default"] = 5.0
        assert run(encoder, times=2)["captured"] == 1


def test_a_hook_that_is_taken_off_again(encoder):
    warmed_up(encoder)
    hook = encoder.model.encoder.embeddings.register_forward_hook(lambda module, args, out: out)
    run(encoder, times=2)
    hook.remove()
    assert run(encoder, times=2)["captured"] == 2


def test_a_hook_on_all_modules(encoder):
    warmed_up(encoder)
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, args, out: seen.append(module))
    try:
        with torch.inference_mode():
            encoder.graphs(encoder.model, BATCH)
    finally:
        hook.remove()
    assert seen


def test_gradients_training_autocast_and_dispatch_modes(encoder):
    warmed_up(encoder)
    encoder(BATCH).sum().backward()
    assert encoder.model.encoder.embeddings.word_embeddings.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoder(BATCH)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        encoder(BATCH)
    assert encoder.graphs.counts["eager"] == 4 and flops is not None
    encoder.train()
    with torch.no_grad():
        encoder(BATCH)
    encoder.eval()
    assert encoder.graphs.counts["replayed"] == 1
    with torch.no_grad():
        assert not encoder(BATCH).requires_grad  # eval again: captured as it is seen again


def test_large_batches_are_computed_as_always(encoder):
    many = PackedBatch.from_sequences([[2, 3]] * 33)
    assert run(encoder, many, times=3)["eager"] == 3


def test_a_bad_batch_names_its_fault_and_spoils_nothing(encoder):
    warmed_up(encoder)
    bad = PackedBatch.from_sequences([[2, 5000, 6, 3], [2, 7, 3]])
    with torch.inference_mode():
        for _ in range(2):
            with pytest.raises(ArgumentValueError, match="token_ids holds 5000"):
                encoder(bad)
    run(encoder, times=2)


def test_a_capture_that_fails_is_said_once(encoder):
    class Failing(EagerCapture):
        def __init__(self, *args):
            raise RuntimeError("operation not permitted when stream is capturing")

    encoder.graphs = GraphRunner(Failing)
    with pytest.warns(RuntimeWarning, match="could not be captured") as said:
        run(encoder, times=4)
    assert len(said) == 1
    assert encoder.graphs.counts["eager"] == 4


def test_memory_that_runs_out_drops_graphs(encoder, monkeypatch):
    warmed_up(encoder)

    def forward(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(type(encoder.model), "forward", forward)
        with pytest.raises(torch.OutOfMemoryError):
            encoder.graphs(encoder.model, PackedBatch.from_sequences([[2, 3]] * 40), every_row=True)
    assert len(encoder.graphs) == 0
    run(encoder, times=2)
    assert len(encoder.graphs) == 1


# ---- the switch ----


def test_graphs_are_off_unless_asked_for(tmp_path):
    assert SentenceEncoder(make_bert_folder(tmp_path), device="cpu").graphs is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cuda_graphs": True}, ArgumentValueError, "cuda_graphs is True on cpu; accepted there: False"),
        ({"cuda_graphs": 1}, ArgumentTypeError, "cuda_graphs is 1 of type int; accepted: True or False"),
        ({"cuda_graphs": "yes"}, ArgumentTypeError, "accepted: True or False"),
    ],
)
def test_what_the_switch_refuses(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        SentenceEncoder(make_bert_folder(tmp_path), device="cpu", **options)


def test_what_the_switch_refuses_of_a_gpu(monkeypatch):
    gpu = torch.device("cuda", 0)
    with pytest.raises(ArgumentValueError, match="backend 'reference'"):
        placement.check_cuda_graphs(True, gpu, "reference")
    monkeypatch.setattr(placement, "why_plain_on", lambda device: "it is too old")
    with pytest.raises(BackendError, match="needs the compiled kernels on cuda:0, but it is too old"):
        placement.check_cuda_graphs(True, gpu, "auto")
    monkeypatch.setattr(placement, "why_plain_on", lambda device: None)
    assert placement.check_cuda_graphs(True, gpu, "auto") is True


def test_an_encoder_with_graphs_is_not_moved_to_a_cpu(encoder):
    with pytest.raises(ArgumentValueError, match="cuda_graphs is True on cpu"):
        encoder.encode(["the cat"], device="cpu")
