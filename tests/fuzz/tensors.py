"""Mutations of the files that hold tensors, and of tokenizer.json, by what is in them."""

from __future__ import annotations

import copy
import io
import json
import os
import zipfile
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file

from fuzz.values import disturb, odd

_DTYPES = [
    "F32",
    "F16",
    "BF16",
    "F64",
    "I64",
    "I8",
    "U8",
    "BOOL",
    "F8_E4M3",
    "F8_E8M0",
    "F4",
    "C64",
    "U64",
    "X9",
    "",
    None,
]
_SIZES = [0, 1, -1, 2, 16, 2**31, 2**32, 2**60, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 1.5, None, "16"]
CANARY = "canary"


def _of_kind(folder: Path, *names: str) -> list[Path]:
    found = (path for name in names for path in folder.rglob(name) if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if path.stat().st_size < 2**24)


def header(folder: Path, rng: Random) -> str:
    """The header of a safetensors file: its length, or a tensor's name, dtype, shape or place."""
    files = _of_kind(folder, "*.safetensors")
    if not files:
        return "no safetensors"
    path = rng.choice(files)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    try:
        values = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        return "no header any more"
    if rng.random() < 0.15:
        size = rng.choice([0, 1, size - 1, size + 1, len(data), 10**8, 10**8 + 1, 2**32, 2**63, 2**64 - 1])
        path.write_bytes(max(size, 0).to_bytes(8, "little") + data[8:])
        return f"{path.name}: a header of {size} bytes"
    names = [name for name in values if isinstance(values[name], dict) and "shape" in values[name]]
    if not names:
        return "no tensors any more"
    name = rng.choice(names)
    how = rng.choice(("dtype", "shape", "axis", "offsets", "name", "more", "empty", "any"))
    tensor = values[name]
    if how == "dtype":
        tensor["dtype"] = rng.choice(_DTYPES)
    elif how == "shape":
        tensor["shape"] = [rng.choice(_SIZES) for _ in range(rng.randrange(4))]
    elif how == "axis" and tensor["shape"]:
        tensor["shape"][rng.randrange(len(tensor["shape"]))] = rng.choice(_SIZES)
    elif how == "offsets":
        tensor["data_offsets"] = [
            rng.choice([*_SIZES, *tensor["data_offsets"]]) for _ in range(rng.choice((2, 2, 2, 1, 3)))
        ]
    elif how == "name":
        others = [
            rng.choice(names),
            name.replace(".0.", ".00."),
            name.replace(".0.", f".{'9' * 5000}."),
            f"bert.{name}",
        ]
        others += ["", "\0", name.replace("weight", "gamma"), name.replace(".0.", ".٠."), name + ".x", "x" * 10_000]
        values[rng.choice(others)] = values.pop(name)
    elif how == "more":
        values |= {f"x{i}": copy.deepcopy(tensor) for i in range(rng.choice((1, 50)))}
    elif how == "empty":
        values[f"{name}x"] = {"dtype": "F32", "shape": [0, rng.choice(_SIZES)], "data_offsets": [0, 0]}
    else:
        disturb(values, rng)
    text = json.dumps(values).encode("utf-8", "surrogatepass")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return f"{path.name}: {how} of {name}"


def _changed(tensor: torch.Tensor, rng: Random) -> torch.Tensor | None:
    """A tensor like it that does not fit, or that is hardly one; None to leave it out."""
    choices = [
        lambda: None,
        lambda: tensor * float("nan"),
        lambda: tensor / 0,
        lambda: tensor.to(
            rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool))
        ),
        lambda: tensor.flatten()[0],
        lambda: tensor[:0],
        lambda: tensor[None],
        lambda: tensor.flatten(),
        lambda: torch.cat((tensor, tensor)),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.mT.contiguous() if tensor.dim() == 2 else tensor[:-1],
    ]
    return rng.choice(choices)()


def safetensors(folder: Path, rng: Random) -> str:
    """A tensor of a safetensors file with other values, or another shape, dtype or name."""
    files = _of_kind(folder, "*.safetensors")
    if not files:
        return "no safetensors"
    path = rng.choice(files)
    try:
        held = load_file(path)
    except Exception:  # an earlier mutation's work
        return "no safetensors any more"
    if not held:
        return "no tensors"
    name = rng.choice(sorted(held))
    new = _changed(held.pop(name).clone(), rng)
    if new is not None:
        held[name if rng.random() < 0.7 else rng.choice(("bert." + name, name + "_", "encoder.layer.7.x.weight"))] = new
    save_file({key: tensor.clone().contiguous() for key, tensor in held.items()}, path)
    return f"{path.name}: {name} is {None if new is None else (new.dtype, tuple(new.shape))}"


def pickled(folder: Path, rng: Random) -> str:
    """A torch file with something else than plain tensors of the file's own bytes."""
    files = _of_kind(folder, "*.pt", "*.bin")
    path = rng.choice(files) if files else folder / rng.choice(("sparse_linear.pt", "colbert_linear.pt"))
    try:
        held = torch.load(path, weights_only=True) if files else {"weight": torch.zeros(1, 16), "bias": torch.zeros(1)}
        name = rng.choice(sorted(held))
    except Exception:
        return "no torch file any more"
    tensor = held[name] if isinstance(held, dict) else None
    if not isinstance(tensor, torch.Tensor):  # an earlier mutation's work
        return "no tensor any more"
    choices = {
        "changed": lambda: _changed(tensor, rng),
        "repeated": lambda: torch.zeros(1).expand(rng.choice((2**20, 2**40, 2**60))),
        "repeated in shape": lambda: torch.zeros(()).expand(tensor.shape),
        "sparse": lambda: torch.zeros(4, 4).to_sparse(),
        "sparse and huge": lambda: torch.sparse_coo_tensor(
            torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (2**30, 2**30)
        ),
        "on meta": lambda: torch.empty(tensor.shape, device="meta"),
        "quantized": lambda: torch.quantize_per_tensor(torch.zeros(4, 4), 0.1, 0, torch.qint8),
        "a parameter": lambda: torch.nn.Parameter(tensor.float()),
        "transposed": lambda: tensor.mT,
        "a number": lambda: 7,
        "a dict": lambda: {"a": tensor},
        "a list": lambda: [tensor],
        "an odd value": lambda: odd(rng),
    }
    said = rng.choice(sorted(choices))
    try:
        held[name] = choices[said]()
    except (RuntimeError, NotImplementedError):
        return "nothing"
    if rng.random() < 0.1:
        held[rng.choice((3, None, ("a",), "\0"))] = tensor
    whole = held if rng.random() < 0.9 else rng.choice(([held], tensor, {"state_dict": held}, None, 7))
    torch.save(whole, path, _use_new_zipfile_serialization=rng.random() < 0.7)
    if rng.random() < 0.2:
        said += _repacked(path, rng)
    return f"{path.name}: {name} is {said}"


def _repacked(path: Path, rng: Random) -> str:
    """The same archive with members compressed, changed or as a bomb."""
    if not zipfile.is_zipfile(path):
        return ""
    how = rng.choice(("compressed", "a bomb", "flipped", "doubled", "short"))
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            data = old.read(member.filename)
            if how == "a bomb" and "/data/" in member.filename:
                data = bytes(2**28)
            if how == "flipped" and member.filename.endswith(".pkl"):
                data = bytearray(data)
                data[rng.randrange(len(data))] = rng.randrange(256)
            if how == "short" and "/data/" in member.filename:
                data = data[: len(data) // 2]
            stored = zipfile.ZIP_DEFLATED if how in ("compressed", "a bomb") else zipfile.ZIP_STORED
            new.writestr(member.filename, bytes(data), stored)
            if how == "doubled":
                new.writestr(member.filename + "x", bytes(data), stored)
    path.write_bytes(out.getvalue())
    return f", {how}"


class _Runs:
    def __init__(self, call, *arguments) -> None:
        self._what = (call, arguments)

    def __reduce__(self):
        return self._what


def malicious(folder: Path, rng: Random) -> str:
    """A torch file whose pickle runs code: it would write a file beside the folder."""
    files = [path for path in _of_kind(folder, "*.pt", "*.bin") if path.parent == folder]
    path = rng.choice(files) if files else folder / "pytorch_model.bin"
    if not files:
        for name in ("model.safetensors", "model.safetensors.index.json"):
            (folder / name).unlink(missing_ok=True)
    canary = str(folder.parent / CANARY)
    runs = rng.choice(
        (_Runs(os.system, f"touch {canary}"), _Runs(exec, f"open({canary!r}, 'w')"), _Runs(open, canary, "w"))
    )
    whole = rng.choice((runs, {"weight": torch.zeros(1, 48), "bias": runs}, [runs]))
    torch.save(whole, path, _use_new_zipfile_serialization=rng.random() < 0.5)
    return f"{path.name}: runs {runs._what[0].__name__}"


def tokenizer(folder: Path, rng: Random) -> str:
    """A part of tokenizer.json of another kind, or one of its values."""
    files = _of_kind(folder, "tokenizer.json")
    if not files:
        return "no tokenizer.json"
    path = files[0]
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "no JSON any more"
    if not isinstance(values, dict):
        return "no object any more"
    split = {"type": "Split", "pattern": {"Regex": rng.choice(("(a+)+$", "[", "(?<=x", "\\p{Han}", "", "(" * 3000))}}
    parts = {
        "normalizer": [
            None,
            {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": "x" * 1000},
            {"type": "Replace", "pattern": {"String": ""}, "content": "x"},
            {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
            {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 1000},
            {"type": "Prepend", "prepend": ""},
        ],
        "pre_tokenizer": [None, {"type": "Whitespace"}, {"type": "Metaspace", "replacement": ""}]
        + [{**split, "behavior": behaviour, "invert": True} for behaviour in ("Isolated", "Removed", "Sideways")],
        "post_processor": [
            None,
            {"type": "BertProcessing", "sep": ["[SEP]", 2**32 - 1], "cls": ["[CLS]", 2**31]},
            {"type": "RobertaProcessing", "sep": ["x", 3], "cls": ["y", 10**6], "trim_offsets": True, "add_prefix_space": True},
            {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 7}}] * rng.choice((0, 2, 400)),
             "pair": [], "special_tokens": {}},
            {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "z", "type_id": 0}}] * 100, "pair": [],
             "special_tokens": {"z": {"id": "z", "ids": [odd(rng)], "tokens": ["z"]}}},
        ],
        "model": [
            {"type": "WordLevel", "vocab": {}, "unk_token": "nothing"},
            {"type": "WordLevel", "vocab": {"a": 2**32 - 1, "the": 2**31, "x": 5}, "unk_token": "x"},
            {"type": "WordPiece", "vocab": {"a": 3}, "unk_token": "[UNK]", "continuing_subword_prefix": "", "max_input_chars_per_word": 100},
            {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": ["a b"]},
            {"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": True, "unk_token": "?"},
            {"type": "Unigram", "vocab": [], "unk_id": 5},
            {"type": "Unigram", "vocab": [["", 0.0], ["a", -1e308], ["b", 1e39]], "unk_id": None},
        ],
        "added_tokens": [
            [],
            [{"id": 2**32 - 1, "content": "the", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False}],
            [{"id": 0, "content": "", "special": False, "single_word": True, "lstrip": True, "rstrip": True, "normalized": True}],
        ],
        "truncation": [{"direction": "Left", "max_length": 0, "strategy": "OnlySecond", "stride": 10**6}],
        "padding": [{"strategy": {"Fixed": 2**40}, "direction": "Left", "pad_to_multiple_of": 2**40, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": ""}],
    }  # fmt: skip
    if rng.random() < 0.4:
        said = disturb(values, rng)
    else:
        said = rng.choice(sorted(parts))
        values[said] = rng.choice(parts[said])
    path.write_bytes(json.dumps(values).encode("utf-8", "surrogatepass"))
    return f"tokenizer.json: {said}"
