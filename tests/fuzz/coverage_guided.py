"""The same property, with bytes that Atheris chooses by the lines they reach in sentcore (pip install atheris).

    python tests/fuzz/coverage_guided.py --seconds 300

An input's first byte picks the file that the rest becomes. A fault ends the run, and its input lies in ./crash-*: run it again with
`python tests/fuzz/coverage_guided.py crash-...`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import atheris

with atheris.instrument_imports(
    include=[
        "sentcore.checkpoint",
        "sentcore.model_files",
        "sentcore.inputs",
        "sentcore.cli",
        "sentcore.pipeline.corpus",
    ]
):
    from sentcore.checkpoint import load_checkpoint, load_cross_encoder
    from sentcore.errors import SentcoreError
    from sentcore.inputs.tokenizer import Tokenizer
    from sentcore.pipeline.corpus import read_file

from fuzz.seeds import INPUTS, MODELS

FILES = [
    ("sentence-bert", "config.json"),
    ("sentence-bert", "modules.json"),
    ("sentence-bert", "1_Pooling/config.json"),
    ("sentence-bert", "2_Dense/config.json"),
    ("sentence-bert", "sentence_bert_config.json"),
    ("sentence-bert", "config_sentence_transformers.json"),
    ("sentence-bert", "tokenizer_config.json"),
    ("sentence-bert", "vocab.txt"),
    ("sentence-bert", "model.safetensors"),
    ("sharded", "model.safetensors.index.json"),
    ("pickled", "pytorch_model.bin"),
    ("cross-encoder", "config.json"),
    ("bge-m3", "sparse_linear.pt"),
    ("bge-m3", "tokenizer.json"),
    ("modernbert", "config.json"),
    ("nomic_bert", "config.json"),
    ("gte", "config.json"),
]
NAMES = sorted(INPUTS)


def try_bytes(root: Path, data: bytes) -> None:
    """One input; whatever is no SentcoreError is for Atheris to report."""
    if not data:
        return
    which, data = data[0] % (len(FILES) + len(NAMES)), data[1:]
    try:
        if which >= len(FILES):
            path = root / "inputs" / NAMES[which - len(FILES)]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            for _ in read_file(path, "text"):
                pass
            return
        seed, name = FILES[which]
        folder = root / seed
        held = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
        try:
            load = load_cross_encoder if seed == "cross-encoder" else load_checkpoint
            found = load(folder)
            Tokenizer.from_folder(found.tokenizer_folder, found.max_length, vocab_size=found.config.vocab_size).encode(
                ["the x"]
            )
        finally:
            (folder / name).write_bytes(held)
    except SentcoreError:
        pass


def main() -> None:
    """Runs until the time is over, or a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    args, others = parser.parse_known_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in {seed for seed, _ in FILES}:
            MODELS[name](root / name)
        corpus = root / "corpus"
        corpus.mkdir()
        for which, (seed, name) in enumerate(FILES):
            (corpus / str(which)).write_bytes(bytes([which]) + (root / seed / name).read_bytes())
        for which, name in enumerate(NAMES, len(FILES)):
            (corpus / str(which)).write_bytes(bytes([which]) + INPUTS[name]())
        limits = [f"-max_total_time={args.seconds}", "-timeout=30", "-rss_limit_mb=4096", "-max_len=20000"]
        inputs = others or [str(corpus)]
        atheris.Setup([sys.argv[0], *limits, *inputs], lambda data: try_bytes(root, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
