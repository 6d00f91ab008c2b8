"""Out of memory makes batches smaller, loses nothing, and is never taken for another error."""

import platform
import random
import warnings

import numpy as np
import pytest
import torch

import sentcore
from folders import make_bert_folder
from sentcore import ops
from sentcore._extension import extension
from sentcore.pipeline import TokenBudget, batches, memory
from sentcore.pipeline.memory import RESTORE_AFTER, TRIM_AFTER, FreedMemory, is_out_of_memory

TEXTS = [f"the cat sat on {'the dog ' * (i % 7)}" for i in range(300)]
FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    MemoryError("std::bad_alloc"),
    RuntimeError("std::bad_alloc"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "8589934592 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("CUDA out of memory for 402653184 elements of a tensor"),
    RuntimeError("linear: the kernel could not be launched: out of memory. Set CUDA_LAUNCH_BLOCKING=1"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
]


class Failing:
    """Raises at random batches of more than a number of sentences."""

    def __init__(self, error, chance, fits=1):
        self.random = random.Random(0)
        self.error, self.chance, self.fits = error, chance, fits
        self.failed, self.sizes = 0, []

    def __call__(self, module, args):
        batch = args[0]
        self.sizes.append(batch.num_tokens)
        if batch.num_sentences > self.fits and self.random.random() < self.chance:
            self.failed += 1
            raise self.error


@pytest.fixture
def encoder(tmp_path):
    return sentcore.SentenceEncoder(make_bert_folder(tmp_path / "model"), device="cpu", backend="reference")


def failing(encoder, *args):
    """A hook in the way of every batch."""
    hook = Failing(*args)
    wrapped = encoder.model.sentence_embedding

    def sentence_embedding(batch, *rest):
        hook(encoder.model, (batch,))
        return wrapped(batch, *rest)

    encoder.model.sentence_embedding = sentence_embedding
    return hook


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: f"{type(error).__name__}-{str(error)[:12]}")
def test_random_failures_lose_nothing(encoder, error):
    wanted = encoder.encode(TEXTS)
    hook = failing(encoder, error, 0.4)
    with pytest.warns(RuntimeWarning, match="memory ran out") as said:
        found = encoder.encode(TEXTS, batch_tokens=512)
    assert hook.failed > 3
    assert len(said) == 1
    assert said[0].filename == __file__
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.skipif(not sentcore.build_info()["extension"]["cpu"], reason="needs the compiled kernels")
def test_the_bits_are_the_same_under_batch_invariant(tmp_path):
    encoder = sentcore.SentenceEncoder(make_bert_folder(tmp_path / "model"), device="cpu", batch_invariant=True)
    wanted = encoder.encode(TEXTS)
    hook = failing(encoder, FAILURES[0], 0.5)
    with pytest.warns(RuntimeWarning, match="memory ran out"):
        parts = list(encoder.encode_iter(TEXTS, window=64, batch_tokens=512))
    assert hook.failed > 3
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in parts]), wanted)


def test_down_to_one_sentence_and_back(encoder):
    hook = failing(encoder, FAILURES[1], 1.0)  # nothing but single sentences fits
    with pytest.warns(RuntimeWarning, match=r"batches of 512 tokens were made smaller"):
        encoder.encode(TEXTS, batch_tokens=512)
    hook.chance = 0.0
    hook.sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(TEXTS, batch_tokens=512)
    assert max(hook.sizes) > 400


def test_a_sentence_that_does_not_fit_alone_is_an_error(encoder):
    failing(encoder, FAILURES[4], 1.0, 0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        encoder.encode(TEXTS)


@pytest.mark.skipif(extension() is None, reason="needs the compiled kernels")
def test_an_op_says_that_memory_ran_out():
    """Behind the stable ABI an allocator's error is lost: torch says that a call failed."""
    many = torch.zeros(1, 1).expand(2**40, 64)
    for call in (lambda: ops.bias_gelu(many, None), lambda: ops.bias_gelu(many, torch.zeros(64))):
        with pytest.raises(RuntimeError, match="can't allocate memory for 70368744177664 elements") as caught:
            call()
        assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("std::bad_alloc"),
        NotImplementedError("DefaultCPUAllocator: can't allocate memory"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_other_errors_are_raised_at_once(encoder, error):
    assert not is_out_of_memory(error)
    hook = failing(encoder, error, 1.0)
    with pytest.raises(type(error)) as caught:
        encoder.encode(TEXTS)
    assert caught.value is error
    assert hook.failed == 1


def test_the_budget_comes_back():
    budget = TokenBudget(1000)
    budget.failed(900)
    assert budget.now == 450
    budget.failed(100)  # a batch may be smaller than the budget
    assert budget.now == 50
    grown = [budget.fitted() for _ in range(6 * RESTORE_AFTER)]
    assert sum(grown) == 5
    assert (budget.now, budget.lowest) == (1000, 50)


def test_what_was_freed_goes_back_to_the_system_now_and_then():
    asked = []
    freed = FreedMemory(asked.append)
    cpu = torch.device("cpu")
    for _ in range(5):
        freed.computed(TRIM_AFTER // 2, cpu)
    assert asked == [0, 0]
    freed.computed(TRIM_AFTER, torch.device("cuda"))  # a GPU's memory is not the C library's
    assert asked == [0, 0]
    FreedMemory(None).computed(TRIM_AFTER, cpu)  # another C library: nothing to ask


def test_every_batch_counts(encoder, monkeypatch):
    asked = []
    monkeypatch.setattr(batches, "FREED", FreedMemory(asked.append))
    monkeypatch.setattr(memory, "TRIM_AFTER", 1000)
    encoder.encode(TEXTS, batch_tokens=512)
    assert len(asked) > 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no malloc_trim")
def test_glibc_can_be_asked():
    assert memory._c_library_trim()(0) in (0, 1)


def test_cross_encoders_too(tmp_path):

    torch.manual_seed(0)
    from transformers import BertConfig, BertForSequenceClassification

    folder = make_bert_folder(tmp_path / "model", generation=None)
    config = BertConfig.from_pretrained(folder, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    model = sentcore.CrossEncoder(folder, device="cpu", backend="reference")
    pairs = [(text, "the dog sat") for text in TEXTS[:50]]
    wanted = model.predict(pairs)
    hook = Failing(FAILURES[0], 0.6)
    model.model.register_forward_pre_hook(hook)
    with pytest.warns(RuntimeWarning, match="memory ran out"):
        found = model.predict(pairs, batch_tokens=128)
    assert hook.failed
    np.testing.assert_allclose(found, wanted, atol=2e-6)


class NoNumbers:
    """Puts NaN into some features, in bfloat16 alone or always."""

    def __init__(self, model, only):
        self.only = only
        self.wrapped = type(model).sentence_embedding

    def __call__(self, model, batch, *rest):
        rows = self.wrapped(model, batch, *rest).clone()
        if self.only is None or model.encoder.dtype == self.only:
            rows[batch.cu_seqlens.diff() > 10] = torch.inf
        return rows


@pytest.mark.parametrize("only", [torch.bfloat16, None])
def test_features_that_are_no_numbers_are_computed_again_in_float32(tmp_path, monkeypatch, only):
    folder = make_bert_folder(tmp_path / "model")
    wanted = sentcore.SentenceEncoder(folder, device="cpu").encode(TEXTS[:20])
    encoder = sentcore.SentenceEncoder(folder, device="cpu", dtype="bfloat16")
    hook = NoNumbers(encoder.model, only)
    monkeypatch.setattr(type(encoder.model), "sentence_embedding", lambda *args: hook(*args))
    with pytest.warns(RuntimeWarning) as said:
        parts = list(encoder.encode_iter(TEXTS[:20], window=8))
    found = np.concatenate([rows for _, rows in parts])
    bad = [i for i in range(20) if i % 7 >= 3]
    named = ", ".join(map(str, bad[:5]))
    assert len(said) == 1
    if only is None:
        assert f"{len(bad)} of 20 features are NaN or infinite (sentences {named}, ...)" in str(said[0].message)
        assert np.isinf(found[bad]).all()
    else:
        assert f"{len(bad)} of 20 features were NaN or infinite in bfloat16" in str(said[0].message)
        assert f"(sentences {named}, ...)" in str(said[0].message)
        np.testing.assert_allclose(found[bad], wanted[bad], atol=0.05)
        assert encoder.dtype == torch.bfloat16
