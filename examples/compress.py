"""Compress: a model distilled to fewer layers, and both in 8 bits: size, speed and quality side by side.

    python examples/compress.py --data corpus.txt --layers 3 --out compressed

The file holds a text a line; some lines are kept aside to compare on. distill.py trains the student. Size is that of the weights in
memory; speed is of this machine, the best of three runs; quality is Spearman's correlation of the similarities of all pairs of
those lines with the teacher's in float32, and the share of lines whose nearest neighbour stays the same. int8 needs no training,
and no folder of its own: it is SentenceEncoder(folder, dtype="int8"). Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import existing_file
from distill import main as distill
from distill import rank_correlation, read_texts, similarities
from tqdm import tqdm

import sentcore
from sentcore.checkpoint import resolve

SAMPLE = Path(__file__).parent / "data" / "lines.txt"


def nearest(features: torch.Tensor) -> torch.Tensor:
    """[B, E] -> the row [B] that is most like each, itself left out."""
    cosines = F.normalize(features, dim=1) @ F.normalize(features, dim=1).T
    return cosines.fill_diagonal_(-2).argmax(dim=1)


def measure(folder: Path, dtype: str, texts: list[str], wanted: torch.Tensor | None) -> tuple[dict, torch.Tensor]:
    """Size, speed and quality of a model in `dtype`; and its features [B, E], which are `wanted` where that is None."""
    model = sentcore.SentenceEncoder(folder, dtype=dtype)
    features = model.encode(texts, convert_to_tensor=True).cpu()
    wanted = features if wanted is None else wanted
    repeated = texts * max(1, 256 // len(texts))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.encode(repeated)
        seconds.append(time.perf_counter() - start)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    column = {
        "size (MB)": size / 1e6,
        "texts/s": len(repeated) / min(seconds),
        "similarity correlation": rank_correlation(similarities(features), similarities(wanted)),
        "same nearest line": (nearest(features) == nearest(wanted)).float().mean().item(),
    }
    return column, features


def draw(table: dict[str, dict[str, float]], path: Path) -> None:
    """Speed against quality, the area of a circle for size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.6, 3.6))
    for place, (name, column) in enumerate(table.items()):
        x, y = column["texts/s"], column["similarity correlation"]
        axis.scatter(x, y, s=6 * column["size (MB)"], alpha=0.5)
        text = f"{name}, {column['size (MB)']:.0f} MB"
        axis.annotate(text, (x, y), (0, -22 if place % 2 else 16), textcoords="offset points", ha="center", fontsize=8)
    axis.margins(0.25)
    axis.set(xlabel="texts/s on this machine", ylabel="correlation with the teacher")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"saved {path}")


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help="a text a line")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the lines that is kept to compare on")
    parser.add_argument("--model", default="minilm", help='the teacher: "minilm", a folder or a hub id')
    parser.add_argument("--layers", type=int, default=3, help="layers of the student")
    parser.add_argument("--steps", type=int, default=100, help="of distilling")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("compressed"), help="folder for the student, table and picture"
    )
    parser.add_argument("--no-accelerate", action="store_true", help="compute padding, as transformers does")
    options = parser.parse_args(arguments)

    texts = read_texts(options.data)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(options.seed)).tolist()
    kept = max(3, round(options.held_out * len(texts)))
    if len(texts) < kept + 4:
        sys.exit(
            f"{options.data}: {len(texts)} lines with text leave {len(texts) - kept} to train on; accepted: at least 4"
        )
    test, train = [texts[place] for place in order[:kept]], [texts[place] for place in order[kept:]]
    options.out.mkdir(parents=True, exist_ok=True)
    student = options.out / "student"
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "train.txt"
        lines.write_text("\n".join(train), encoding="utf-8")
        given = {"--data": lines, "--held-out": 0.01, "--model": options.model, "--layers": options.layers}
        given |= {"--steps": options.steps, "--learning-rate": options.learning_rate, "--seed": options.seed}
        given |= {"--out": student}
        distill([str(part) for pair in given.items() for part in pair] + ["--no-accelerate"] * options.no_accelerate)

    teacher = resolve(options.model)
    dtypes = ["float32", "int8"]
    ways = {
        f"{name} {dtype}": (folder, dtype)
        for name, folder in (("teacher", teacher), ("student", student))
        for dtype in dtypes
    }
    table, wanted = {}, None
    for name, (folder, dtype) in tqdm(ways.items(), desc="measure"):
        table[name], features = measure(folder, dtype, test, wanted)
        wanted = features if wanted is None else wanted
    print(f"{len(test)} lines to compare on, of which the student saw none")
    print(f"{'':<16}" + "".join(f"{name:>24}" for name in next(iter(table.values()))))
    for name, column in table.items():
        print(f"{name:<16}" + "".join(f"{value:>24.3f}" for value in column.values()))
    (options.out / "results.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    try:
        draw(table, options.out / "compress.png")
    except ImportError:
        print("no picture: pip install matplotlib")
    return table


if __name__ == "__main__":
    main()
