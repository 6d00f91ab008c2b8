"""Every way of embedding that the comparison knows, by name, and the best batch size of those that have one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peers

import sentcore

SENTCORE = {"sentcore float32": "float32", "sentcore bfloat16": "bfloat16", "sentcore int8": "int8"}
REFERENCE = "sentence-transformers float32"
# Seconds between calls: a runtime's threads spin for a while after its last one, and not into the next one's time.
PAUSE = 0.1


def graphs(folder: Path, work: Path, num_heads: int, hidden_size: int) -> dict[str, list[Path]]:
    """The ONNX files each of ONNX Runtime's and OpenVINO's methods may choose from."""
    plain = peers.export(folder, work)
    optimized = peers.optimize(plain, num_heads, hidden_size)
    return {
        "ONNX Runtime float32": [optimized, plain],
        "ONNX Runtime int8": [peers.quantize(graph, True) for graph in (optimized, plain)]
        + [peers.quantize(plain, False)],
        "OpenVINO float32": [plain],
        "OpenVINO bfloat16": [plain],
    }


def build(
    folder: Path, work: Path, sample: list[str], max_length: int, threads: int
) -> tuple[dict[str, peers.Encode], dict[str, str], dict[str, str]]:
    """(encode functions at their best batch size on `sample`, the settings of each, why others are absent)."""
    found: dict[str, peers.Encode] = {}
    settings: dict[str, str] = {}
    absent: dict[str, str] = {}

    def choose(name: str, make: Callable[[object, int], peers.Encode], kinds: list, sizes=peers.BATCH_SIZES) -> None:
        try:
            candidates = {(kind, size): make(kind, size) for kind in kinds for size in sizes}
        except peers.Absent as reason:
            absent[name] = str(reason)
            return
        best = min(candidates, key=lambda key: seconds(candidates[key], sample))
        found[name] = candidates[best]
        kind = f"{best[0].stem}, " if isinstance(best[0], Path) else ""
        settings[name] = f"{kind}batch size {best[1]}"

    choose(
        REFERENCE,
        lambda _, size: peers.sentence_transformers(folder, size, max_length),
        [None],
    )
    tokenizer = peers.load_tokenizer(folder, max_length)
    try:
        files = graphs(folder, work, 12, 384)
    except peers.Absent as reason:
        files = {}
        absent["ONNX Runtime and OpenVINO"] = str(reason)
    for name, kinds in files.items():
        if name.startswith("ONNX"):
            choose(name, lambda path, size: peers.onnx_runtime(path, tokenizer, size, threads), kinds)
        else:
            precision = "f32" if "float32" in name else "bf16"
            choose(name, lambda path, size, p=precision: peers.openvino(path, tokenizer, size, threads, p), kinds)
    for name, dtype in SENTCORE.items():
        try:
            found[name] = sentcore.SentenceEncoder(folder, device="cpu", dtype=dtype, max_length=max_length).encode
            settings[name] = "as it comes"
        except sentcore.SentcoreError as refused:
            absent[name] = str(refused)
    return found, settings, absent


def seconds(encode: peers.Encode, texts: list[str]) -> float:
    """Of one call, after a short one to warm up."""
    encode(texts[:16])
    return seconds_of(lambda: encode(texts))


def seconds_of(call: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def alternated(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round; within a round one after the other, so that all meet the same machine."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            found[name].append(seconds_of(call))
    return found


def closeness(rows: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """How far rows of length 1 are from the expected ones."""
    cosines = (rows * expected).sum(axis=1)
    return {
        "max_abs_difference": float(np.abs(rows - expected).max()),
        "min_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
    }
