"""What sentcore is compared with on a CPU: sentence-transformers, ONNX Runtime and OpenVINO, each the way it is fastest.

ONNX Runtime and OpenVINO get texts sorted by tokens, padded to the longest of a batch, with mean pooling and scaling to length
1 in NumPy; ONNX Runtime gets the graph its own optimizer makes of a BERT, attention fused.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

BATCH_SIZES = (8, 16, 32, 64)

Encode = Callable[[list[str]], np.ndarray]


class Absent(Exception):
    """The method cannot be run here; the reason is the message."""


def need(*packages: str) -> None:
    """Raises Absent unless the packages are installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise Absent(f"not installed: {', '.join(missing)}")


def sentence_transformers(folder: Path, batch_size: int, max_length: int) -> Encode:
    """Its own encode, float32."""
    need("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = max_length
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False)


def export(folder: Path, target: Path) -> Path:
    """The folder's encoder as ONNX, last hidden state [B, S, H] of (input_ids, attention_mask, token_type_ids)."""
    need("onnx", "onnxscript", "transformers")
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return self.model(input_ids=input_ids, **given).last_hidden_state

    path = target / "model.onnx"
    ids = torch.ones(2, 16, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with torch.no_grad():
        torch.onnx.export(
            Encoder(),
            (ids, ids, ids * 0),
            str(path),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]},
            opset_version=17,
            dynamo=False,
        )
    return path


def optimize(path: Path, num_heads: int, hidden_size: int) -> Path:
    """What ONNX Runtime's optimizer makes of it: fused attention, GELU, residual LayerNorm, embeddings."""
    need("onnxruntime", "onnx")
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(
        str(path), model_type="bert", num_heads=num_heads, hidden_size=hidden_size, opt_level=1
    )
    target = path.with_name("optimized.onnx")
    model.save_model_to_file(str(target))
    return target


def quantize(path: Path, per_channel: bool) -> Path:
    """ONNX Runtime's dynamic quantization: weights in 8 bits, activations when they are computed."""
    need("onnxruntime", "onnx")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name(f"{path.stem}-int8-{'channel' if per_channel else 'tensor'}.onnx")
    quantize_dynamic(
        str(path),
        str(target),
        per_channel=per_channel,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # of what the optimizer's own operators give
    )
    return target


def onnx_runtime(path: Path, tokenizer, batch_size: int, threads: int) -> Encode:
    """A session on a graph of `export`, `optimize` or `quantize`."""
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    wanted = {node.name for node in session.get_inputs()}
    integers = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}[session.get_inputs()[0].type]

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(None, {name: given[name].astype(integers) for name in wanted})[0]

    return padded(run, tokenizer, batch_size)


def openvino(path: Path, tokenizer, batch_size: int, threads: int, precision: str) -> Encode:
    """The graph of `export`, compiled for the CPU in "f32" or "bf16"."""
    need("openvino")
    import openvino as ov

    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Absent("OpenVINO sees no bfloat16 on this CPU")
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request = compiled.create_infer_request()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return next(iter(request.infer(given, share_inputs=True, share_outputs=True).values()))

    return padded(run, tokenizer, batch_size)


def padded(run: Callable[[np.ndarray, np.ndarray], np.ndarray], tokenizer, batch_size: int) -> Encode:
    """Tokenize, sort, pad, `run` ([b, s] ids and mask -> [b, s, H]), average the real tokens, scale to length 1."""

    def encode(texts: list[str]) -> np.ndarray:
        encoded = [item.ids for item in tokenizer.encode_batch(texts)]
        order = np.argsort([-len(ids) for ids in encoded], kind="stable")
        rows = None
        for places, ids, mask in batches(encoded, order, batch_size):
            tokens = run(ids, mask)
            share = mask[:, :, None].astype(np.float32)
            pooled = (tokens * share).sum(axis=1) / share.sum(axis=1)
            pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
            if rows is None:
                rows = np.empty((len(texts), pooled.shape[1]), dtype=np.float32)
            rows[places] = pooled
        return rows

    return encode


def batches(
    encoded: list[list[int]], order: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(places, ids [b, s] int64, mask [b, s] int64) of the texts in `order`."""
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        longest = len(encoded[places[0]])
        ids = np.zeros((len(places), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, place in enumerate(places):
            ids[row, : len(encoded[place])] = encoded[place]
            mask[row, : len(encoded[place])] = 1
        yield places, ids, mask


def load_tokenizer(folder: Path, max_length: int):
    """The folder's tokenizer without padding, cut at max_length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer
