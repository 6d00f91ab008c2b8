"""When a graph is captured, replayed, dropped, and when nothing may stand in the model's place."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compare import SAME_FEATURES_FLOAT32
from folders import make_bert_folder
from sentcore import PackedBatch, SentenceEncoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError, BackendError
from sentcore.pipeline.graphs import EagerCapture, GraphRunner

BATCH = PackedBatch.from_sequences([[2, 5, 6, 3], [2, 7, 3]])
LARGER = PackedBatch.from_sequences([[2, *range(5, 35), 3], [2, 7, 3], [2, 3]])


@pytest.fixture
def encoder(tmp_path):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu")
    encoder.graphs = GraphRunner(EagerCapture)
    return encoder


def run(encoder, batch=BATCH, times=1):
    """Always right, whatever way it took."""
    with torch.inference_mode():
        for _ in range(times):
            found = encoder(batch)
            torch.testing.assert_close(
                found, encoder.model(batch).sentence_embedding, rtol=0, atol=SAME_FEATURES_FLOAT32
            )
    return encoder.graphs.counts


def warmed_up(encoder):
    counts = run(encoder, times=3)
    assert (counts["eager"], counts["captured"], counts["replayed"], len(encoder.graphs)) == (1, 1, 1, 1)
    return counts


# ---- captured, replayed, dropped ----


def test_a_size_is_captured_when_it_is_seen_again(encoder):
    warmed_up(encoder)
    counts = run(encoder, LARGER, times=2)
    assert (counts["eager"], counts["captured"], len(encoder.graphs)) == (2, 2, 2)
    assert run(encoder, times=5)["replayed"] == 6


def test_a_result_is_not_written_over_by_the_next_replay(encoder):
    with torch.inference_mode():
        first = [encoder(BATCH) for _ in range(3)][-1]
        kept = first.clone()
        encoder(PackedBatch.from_sequences([[2, 9, 9, 3], [2, 8, 3]]))
    assert encoder.graphs.counts["replayed"] == 2
    assert torch.equal(first, kept)


@pytest.mark.parametrize("limit", [{"most_graphs": 2}, {"most_bytes": 1}])
def test_the_graph_that_was_not_used_for_longest_goes_first(encoder, limit):
    encoder.graphs = graphs = GraphRunner(EagerCapture, seen_before=0, **limit)
    most = limit.get("most_graphs", 1)
    batches = [PackedBatch.from_sequences([[5] * n]) for n in (5, 18, 35)]
    for batch in (*batches[:2], batches[0], batches[2]):
        run(encoder, batch)
    assert len(graphs) == most
    assert graphs.counts["dropped"] >= 1
    captured = graphs.counts["captured"]
    run(encoder, batches[2])
    assert graphs.counts["captured"] == captured  # still there
    if most == 2:
        run(encoder, batches[0])
        assert graphs.counts["captured"] == captured
    run(encoder, batches[1])
    assert graphs.counts["captured"] == captured + 1


CHANGES = {
    "a write": lambda e: e.model.encoder.layers[0].attention.query.weight.mul_(1.5),
    "a write to a bias": lambda e: e.model.encoder.layers[1].feed_forward.down.bias[:9].add_(0.5),
    "another tensor": lambda e: setattr(
        e.model.encoder.layers[0].attention.output, "weight", nn.Parameter(torch.randn(32, 32) / 6)
    ),
    "other data": lambda e: setattr(e.model.encoder.layers[0].attention.output.weight, "data", torch.randn(32, 32) / 6),
    "loaded weights": lambda e: e.model.load_state_dict(
        {k: v * 1.25 if v.is_floating_point() else v for k, v in e.model.state_dict().items()}
    ),
    "another dtype and back": lambda e: e.bfloat16().float(),
    "another layer norm": lambda e: setattr(
        e.model.encoder.layers[0].attention, "layer_norm", nn.LayerNorm(32, eps=0.1)
    ),
    "a layer fewer": lambda e: setattr(e.model.encoder, "layers", e.model.encoder.layers[:1]),
    "another epsilon": lambda e: setattr(e.model.encoder.layers[0].attention.layer_norm, "eps", 0.5),
    "a pooling": lambda e: setattr(
        e.model.outputs[0], "spec", type(e.model.outputs[0].spec)(("max",), include_prompt=True)
    ),
    "an optimizer's step": lambda e: _step(e),
}


def _step(encoder):
    with torch.enable_grad():
        encoder.train()
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.05, fused=True)
        encoder(BATCH).square().sum().backward()
        optimizer.step()
        encoder.eval()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_captured_anew(encoder, change):
    counts = warmed_up(encoder)
    with torch.no_grad():
        before = encoder(BATCH)
        CHANGES[change](encoder)
        encoder.eval()  # a new module is in training mode
    counts = run(encoder)
    assert counts["dropped"] == 1
    assert not torch.allclose(before, encoder.model(BATCH).sentence_embedding, atol=1e-4)
    counts = run(encoder, times=2)
    assert (counts["captured"], len(encoder.graphs)) == (2, 1)


# ---- computed as always ----


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


def test_memory_that_runs_out_drops_graphs(encoder):
    warmed_up(encoder)
    real = encoder.model.forward

    def forward(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
        type(encoder.model).forward, kept = forward, type(encoder.model).forward
        try:
            encoder.graphs(encoder.model, PackedBatch.from_sequences([[2, 3]] * 40), every_row=True)
        finally:
            type(encoder.model).forward = kept
    assert len(encoder.graphs) == 0 and real is not None
    run(encoder, times=2)
    assert len(encoder.graphs) == 1


# ---- the encoder around it ----


def test_encode_goes_by_graphs(encoder):
    texts = ["the cat", "dog", "the dog sat on the cat", ""]
    graphs, encoder.graphs = encoder.graphs, None
    wanted = encoder.encode(texts)
    encoder.graphs = graphs
    for _ in range(3):
        assert abs(encoder.encode(texts) - wanted).max() <= SAME_FEATURES_FLOAT32
    assert (graphs.counts["captured"], graphs.counts["replayed"]) == (1, 1)
    encoder.encode(texts, output_value="token_embeddings")
    encoder.encode(texts, output_value=None)
    assert graphs.counts["replayed"] == 1
    long = "the cat sat on the dog " * 30
    for _ in range(3):
        assert encoder.encode([long], chunk="mean").shape == (1, 32)
    assert graphs.counts["replayed"] >= 2  # windows of a text are sentences like others


def test_values_that_are_no_numbers_are_retried_without_graphs(tmp_path):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu", dtype="bfloat16")
    encoder.graphs = GraphRunner(EagerCapture, seen_before=0)
    with torch.no_grad():
        encoder.model.encoder.embeddings.word_embeddings.weight[5] = float("nan")
    with pytest.warns(RuntimeWarning, match="NaN or infinite"):
        encoder.encode(["the cat", "dog"])
    assert encoder.graphs.counts["captured"] == 1
    assert encoder.graphs._state.model is encoder.model


def test_copies_capture_anew(encoder):
    warmed_up(encoder)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert len(other.graphs) == 0
        warmed_up(other)
    assert len(encoder.graphs) == 1


def test_threads_share_graphs(encoder):
    texts = [["the cat"], ["dog sat", "a"], ["the dog sat on the cat"] * 3]
    wanted = [encoder.encode(each) for each in texts]
    wrong = []

    def work(i):
        for _ in range(30):
            if abs(encoder.encode(texts[i]) - wanted[i]).max() > SAME_FEATURES_FLOAT32:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert encoder.graphs.counts["replayed"] > 50


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
    from sentcore import encode_options

    gpu = torch.device("cuda", 0)
    with pytest.raises(ArgumentValueError, match="backend 'reference'"):
        encode_options.check_cuda_graphs(True, gpu, "reference")
    monkeypatch.setattr(encode_options, "why_plain_on", lambda device: "it is too old")
    with pytest.raises(BackendError, match="needs the compiled kernels on cuda:0, but it is too old"):
        encode_options.check_cuda_graphs(True, gpu, "auto")
    monkeypatch.setattr(encode_options, "why_plain_on", lambda device: None)
    assert encode_options.check_cuda_graphs(True, gpu, "auto") is True


def test_an_encoder_with_graphs_is_not_moved_to_a_cpu(encoder):
    with pytest.raises(ArgumentValueError, match="cuda_graphs is True on cpu"):
        encoder.encode(["the cat"], device="cpu")
