"""modules.json and what it names: pooling, dense and normalize modules as specs."""

from __future__ import annotations

from pathlib import Path

from sentcore.checkpoint import layout
from sentcore.checkpoint.files import field, has, inside, read_json, shown
from sentcore.checkpoint.weights import check_tensor, read_tensors
from sentcore.errors import CheckpointError
from sentcore.outputs.specs import POOLING_MODES, DenseSpec, NormalizeSpec, OutputSpec, PoolingSpec


def module_folders(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of every module in order, the Transformer first; a bare checkpoint is its Transformer alone.

    Raises:
        CheckpointError: modules.json is damaged, names a foreign class or a path outside, or an order without meaning.
    """
    path = folder / layout.MODULES
    if not has(path):
        return [("Transformer", folder)]
    entries = read_json(path, list)
    kinds = module_kinds(entries, path)
    dense = kinds[:2] == ["Transformer", "Pooling"] and set(kinds[2:]) <= {"Dense", "Normalize"}
    if not dense and kinds not in (["MLMTransformer", "SpladePooling"], ["Transformer", "SpladePooling"]):
        raise CheckpointError(
            f"{path} names the modules {shown(kinds)}; accepted: Transformer, Pooling, then any of Dense and Normalize; or "
            "MLMTransformer, SpladePooling"
        )
    return [
        (kind, inside(folder, entry.get("path"), f"{path}: path of module {shown(entry.get('idx'))}"))
        for kind, entry in zip(kinds, entries, strict=True)
    ]


def module_kinds(entries: list, path: Path) -> list[str]:
    """What modules.json's entries are; CheckpointError for a foreign class."""
    return [_kind(entry, path) for entry in entries]


def read_modules(folders: list[tuple[str, Path]], hidden_size: int) -> tuple[tuple[OutputSpec, ...], int]:
    """The stages behind the encoder, and E, the width they end in; mean pooling for a bare checkpoint, none for SPLADE's.

    Raises:
        CheckpointError, MissingFileError: by file, entry, value and what is accepted.
    """
    if len(folders) == 1:
        return (PoolingSpec(),), hidden_size
    if folders[1][0] == "SpladePooling":
        return (), 0
    width, specs = hidden_size, []
    for kind, folder in folders[1:]:
        if kind == "Pooling":
            spec, width = _pooling(folder / layout.CONFIG, hidden_size)
        elif kind == "Dense":
            spec, width = _dense(folder, width)
        else:
            spec = NormalizeSpec()  # its folder may be absent: it has nothing to say
        specs.append(spec)
    return tuple(specs), width


def _kind(entry: object, path: Path) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
        raise CheckpointError(f"{path} holds the entry {shown(entry)}; accepted: objects with idx, name, path and type")
    if entry["type"] not in layout.MODULE_KINDS:
        accepted = ", ".join(layout.LEGACY_MODULE_TYPE.values())
        raise CheckpointError(
            f"{path}: type of module {shown(entry.get('idx'))} is {shown(entry['type'])}; accepted: {accepted} (and their later "
            "names). A module that is left out would give wrong features, so the folder is refused"
        )
    return layout.MODULE_KINDS[entry["type"]]


def _pooling(path: Path, hidden_size: int) -> tuple[PoolingSpec, int]:
    values = read_json(path)
    width = field(
        values,
        "embedding_dimension",
        (int,),
        field(values, "word_embedding_dimension", (int,), hidden_size, path),
        path,
    )
    if width != hidden_size:
        raise CheckpointError(
            f"{path}: embedding dimension is {shown(width)}; accepted: {hidden_size}, the encoder's hidden_size"
        )
    mode = field(values, "pooling_mode", (str, list), None, path)
    if mode is not None:
        modes = tuple([mode] if isinstance(mode, str) else mode)
    else:
        unknown = [k for k in values if k.startswith("pooling_mode_") and k not in layout.POOLING_FLAGS]
        if any(values[name] for name in unknown):
            raise CheckpointError(f"{path}: {shown(unknown)} set; accepted: {', '.join(layout.POOLING_FLAGS)}")
        modes = tuple(
            name for flag, name in layout.POOLING_FLAGS.items() if field(values, flag, (bool,), False, path)
        ) or ("mean",)
    wrong = [name for name in modes if name not in POOLING_MODES]
    if wrong or not modes or len(set(modes)) < len(modes):
        raise CheckpointError(
            f"{path}: pooling_mode is {shown(mode)}; accepted: {', '.join(POOLING_MODES)}, each once at most"
        )
    include_prompt = field(values, "include_prompt", (bool,), True, path)
    return PoolingSpec(modes, include_prompt), width * len(modes)


def _dense(folder: Path, width: int) -> tuple[DenseSpec, int]:
    path = folder / layout.CONFIG
    values = read_json(path)
    in_features = field(values, "in_features", (int,), None, path)
    out_features = field(values, "out_features", (int,), None, path)
    if in_features != width or not out_features or out_features < 1:
        raise CheckpointError(
            f"{path}: in_features is {shown(in_features)} and out_features {shown(out_features)}; accepted: {width}, what comes "
            "before it, and a positive number"
        )
    name = field(values, "activation_function", (str,), "torch.nn.modules.activation.Tanh", path)
    if name not in layout.ACTIVATIONS:
        raise CheckpointError(
            f"{path}: activation_function is {shown(name)}; accepted: {', '.join(layout.ACTIVATIONS)}"
        )
    unsupported = [
        key
        for key in ("module_input_name", "module_output_name")
        if values.get(key) not in (None, "sentence_embedding")
    ]
    if unsupported:
        raise CheckpointError(
            f"{path}: {unsupported[0]} is {shown(values[unsupported[0]])}; accepted: 'sentence_embedding'"
        )
    tensors, source = read_tensors(folder)
    wanted = {"linear.weight": (out_features, in_features)}
    if field(values, "bias", (bool,), True, path):
        wanted["linear.bias"] = (out_features,)
    if set(tensors) != set(wanted):
        raise CheckpointError(f"{source} holds {shown(sorted(tensors))}; accepted: {sorted(wanted)}, as {path} says")
    for key, shape in wanted.items():
        check_tensor(tensors[key], shape, f"{source}: {key}")
    bias = tensors.get("linear.bias")
    spec = DenseSpec(tensors["linear.weight"].float(), None if bias is None else bias.float(), layout.ACTIVATIONS[name])
    return spec, out_features
