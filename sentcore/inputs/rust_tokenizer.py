"""The tokenizers library's object from a model folder's files."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer
from tokenizers import normalizers
from tokenizers.implementations import BertWordPieceTokenizer

from sentcore.errors import CheckpointError, MissingFileError
from sentcore.inputs.foreign import named_errors
from sentcore.model_files import has, read_bytes, read_json, shown

MAX_TOKENIZER_BYTES = 256 * 2**20


def read_rust_tokenizer(folder: Path, do_lower_case: bool = False) -> tuple[RustTokenizer, Path]:
    """The object, and the file it is from: tokenizer.json, or BERT's vocab.txt with tokenizer_config.json.

    Raises:
        MissingFileError: neither is there.
        CheckpointError: the file is damaged.
    """
    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if has(path):
        data = read_bytes(path, MAX_TOKENIZER_BYTES, "a tokenizer")
        with named_errors(path, "reading it"):
            rust = RustTokenizer.from_buffer(data)
    elif has(vocabulary):
        path = vocabulary
        rust = _bert_tokenizer(vocabulary, folder / "tokenizer_config.json")
    else:
        raise MissingFileError(
            f"{folder} holds no tokenizer; accepted: tokenizer.json, or BERT's vocab.txt. Copy it from the model's "
            "origin"
        )
    if do_lower_case:
        _lower_case_first(rust)
    return rust, path


def _bert_tokenizer(vocabulary: Path, config: Path) -> RustTokenizer:
    settings = read_json(config) if has(config) else {}
    switches = {name: settings.get(name) for name in ("tokenize_chinese_chars", "strip_accents", "do_lower_case")}
    for name, value in switches.items():
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"{config}: {name} is {shown(value)}; accepted: true, false or null")
    try:
        lines = read_bytes(vocabulary, MAX_TOKENIZER_BYTES, "a vocabulary").decode("utf-8").split("\n")
    except ValueError as error:
        raise CheckpointError(f"{vocabulary} is not UTF-8 ({error}); download it again") from error
    if lines and not lines[-1]:
        lines.pop()
    tokens = {token.rstrip("\r"): index for index, token in enumerate(lines)}
    needed = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in tokens]
    if needed:
        raise CheckpointError(f"{vocabulary} lacks {', '.join(needed)}; accepted: a BERT vocabulary, one token a line")
    chinese, accents, lower = switches.values()
    return BertWordPieceTokenizer(
        tokens,
        handle_chinese_chars=chinese is not False,
        strip_accents=accents,
        lowercase=lower is not False,
    )._tokenizer


def _lower_case_first(rust: RustTokenizer) -> None:
    normalizer = rust.normalizer
    if normalizer is not None and getattr(normalizer, "lowercase", False):
        return
    parts = [normalizers.Lowercase()] + ([normalizer] if normalizer is not None else [])
    rust.normalizer = normalizers.Sequence(parts)
