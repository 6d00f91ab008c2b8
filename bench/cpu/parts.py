"""The parts of the comparison: each returns what belongs into the JSON."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import methods
import numpy as np
import peers
import torch

import sentcore
from sentcore import ops

# float32 features may differ by so much from sentence-transformers'; the others' cosines may fall so low.
LARGEST_DIFFERENCE, LEAST_COSINES = 2e-6, {"bfloat16": 0.9999, "int8": 0.99}


def throughput(found: dict[str, peers.Encode], texts: list[str], rounds: int) -> dict[str, dict]:
    """Sentences per second of every method, and how close its rows are."""
    rows = {name: encode(texts) for name, encode in found.items()}
    expected = rows[methods.REFERENCE] if methods.REFERENCE in rows else rows["sentcore float32"]
    times = methods.alternated({name: lambda e=encode: e(texts) for name, encode in found.items()}, rounds)
    result = {}
    for name, measured in times.items():
        close = methods.closeness(rows[name], expected)
        if name.startswith("sentcore"):
            least = LEAST_COSINES.get(name.split()[1])
            off = close["max_abs_difference"] > LARGEST_DIFFERENCE if least is None else close["min_cosine"] < least
            if off:
                raise SystemExit(f"{name} is off: {close}")
        result[name] = {
            "seconds": measured,
            "sentences_per_second": len(texts) / float(np.median(measured)),
            **close,
        }
    return result


def latency(found: dict[str, peers.Encode], tokenizer, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of one text, by its tokens."""
    words = ["the", "storage", "engine", "of", "a", "database", "writes", "its"]
    result: dict[str, dict[str, float]] = {name: {} for name in found}
    for length in (10, 16, 32, 64, 128, 256):
        text = " ".join((words * 40)[: length - 2])
        assert len(tokenizer.encode(text).ids) == length
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, encode in found.items():
                time.sleep(methods.PAUSE)
                measured = [methods.seconds_of(lambda e=encode, t=text: e([t])) for _ in range(15)]
                times[name] += measured[5:]
        for name, measured in times.items():
            result[name][str(length)] = float(np.median(measured)) * 1e3
    return result


def bert_base(folder: Path, threads: int, rounds: int, batch: int = 4) -> dict:
    """BERT-base's shape with random weights, texts of 512 tokens, float32: ONNX Runtime against sentcore."""
    peers.need("onnxruntime", "onnx", "transformers")
    from transformers import BertConfig, BertModel

    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        torch.manual_seed(0)
        model = BertModel(BertConfig()).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "LayerNorm.weight" in key:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
                elif "bias" in key:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(made)
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            if (folder / file).is_file():
                (made / file).write_bytes((folder / file).read_bytes())
        graph = peers.optimize(peers.export(made, made), 12, 768)
        tokenizer = peers.load_tokenizer(made, 512)
        texts = [" ".join(["page"] * (600 + i)) for i in range(batch)]
        ours = sentcore.SentenceEncoder(made, device="cpu", max_length=512)
        calls = {f"ONNX Runtime, batch {b}": peers.onnx_runtime(graph, tokenizer, b, threads) for b in (1, 4)}
        calls["sentcore"] = lambda given: ours.encode(given, normalize_embeddings=True)
        rows = {key: encode(texts) for key, encode in calls.items()}
        times = methods.alternated({key: lambda e=encode: e(texts) for key, encode in calls.items()}, rounds)
        difference = float(np.abs(rows["sentcore"] - rows["ONNX Runtime, batch 4"]).max())
    medians = {key: float(np.median(value)) for key, value in times.items()}
    best = min(value for key, value in medians.items() if key != "sentcore")
    return {"seconds": times, "max_abs_difference": difference, "ratio": best / medians["sentcore"]}


def retrieval(found: dict[str, peers.Encode], titles: list[str], bodies: list[str]) -> dict[str, float]:
    """Recall@10: how often a title's own body is among the ten nearest."""
    result = {}
    for name, encode in found.items():
        scores = encode(titles) @ encode(bodies).T
        own = np.diagonal(scores)
        result[name] = float(((scores > own[:, None]).sum(axis=1) < 10).mean())
    return result


def invariance(folder: Path, texts: list[str], max_length: int, threads: int) -> dict[str, dict]:
    """Rows whose bits differ over five random batchings on one thread and on all, and what the promise costs."""
    result = {}
    shuffled = np.random.default_rng(0)
    for dtype in ("float32", "bfloat16", "int8"):
        plain, promised = (
            sentcore.SentenceEncoder(folder, device="cpu", dtype=dtype, max_length=max_length, batch_invariant=flag)
            for flag in (False, True)
        )
        expected, differing = promised.encode(texts), 0
        for _ in range(5):
            order = shuffled.permutation(len(texts))
            budget = int(shuffled.integers(64, 8192))
            for count in (1, threads):
                torch.set_num_threads(count)
                rows = promised.encode([texts[i] for i in order], batch_tokens=budget)
                differing += int((rows != expected[order]).any(axis=1).sum())
        torch.set_num_threads(threads)
        some = {"plain": plain, "promised": promised}
        times = methods.alternated({name: lambda m=model: m.encode(texts[:500]) for name, model in some.items()}, 5)
        result[dtype] = {
            "sentences": len(texts),
            "batchings": 5,
            "threads": [1, threads],
            "differing_rows": differing,
            "times_as_long": float(np.median(np.divide(times["promised"], times["plain"]))),
        }
    return result


def ceiling(encoder: sentcore.SentenceEncoder, texts: list[str], rounds: int = 9) -> dict[str, dict[str, float]]:
    """Share of the fastest known matrix products that a whole encode reaches, with the work that real tokens need.

    The ceiling is the best of torch's oneDNN with packed weights (torch._int_mm for int8) and of our own products, at the
    model's shapes and 4,096 tokens. The work is that of the linear layers and of attention's two products.
    """
    config = encoder.model.encoder.config
    hidden, inner = config.hidden_size, config.intermediate_size
    lengths = encoder.tokenizer.encode(texts, max_length=encoder.max_seq_length).lengths.astype(np.float64)
    linear = 2 * lengths.sum() * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 4 * (lengths**2).sum() * hidden
    work = config.num_hidden_layers * (linear + attention)
    result = {}
    for dtype in ("float32", "bfloat16", "int8"):
        rate = max(_rates(dtype, ((3 * hidden, hidden), (hidden, hidden), (inner, hidden), (hidden, inner)), rounds))
        model = sentcore.SentenceEncoder(
            encoder.checkpoint.folder, device="cpu", dtype=dtype, max_length=encoder.max_seq_length
        )
        model.encode(texts[:64])
        measured = methods.alternated({"encode": lambda m=model: m.encode(texts)}, 3)["encode"]
        reached = work / float(np.median(measured)) / 1e9
        result[dtype] = {"ceiling_gflops": rate, "reached_gflops": reached, "share": reached / rate}
    return result


def _rates(dtype: str, shapes: tuple, rounds: int, rows: int = 4096) -> list[float]:
    """GFLOP/s of oneDNN and of ours over all shapes, medians of alternated rounds."""
    calls: dict[str, list] = {"torch": [], "ours": []}
    work = 0.0
    for n, k in shapes:
        x, w = torch.randn(rows, k), torch.randn(n, k) / k**0.5
        work += 2.0 * rows * n * k
        if dtype == "int8":
            a, b = torch.ones(rows, k, dtype=torch.int8), torch.ones(k, n, dtype=torch.int8)
            calls["torch"].append(lambda a=a, b=b: torch._int_mm(a, b))
            packed, xb = ops.quantize_weight(w), x.bfloat16()
            calls["ours"].append(lambda x=xb, p=packed: ops.int8_linear(x, p))
            continue
        x, w = x.to(getattr(torch, dtype)), w.to(getattr(torch, dtype))
        ours = ops.pack_weight(w)
        calls["ours"].append(lambda x=x, p=ours: ops.packed_linear(x, p))
        if dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            continue  # oneDNN refuses bfloat16 on this CPU
        reordered = torch.ops.mkldnn._reorder_linear_weight(w, rows)
        calls["torch"].append(lambda x=x, w=reordered: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""))
    calls = {name: some for name, some in calls.items() if some}
    best = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, some in calls.items():
                begin = time.perf_counter()
                for call in some:
                    call()
                if turn:
                    best[name].append(work / (time.perf_counter() - begin) / 1e9)
    return [float(np.median(values)) for values in best.values()]
