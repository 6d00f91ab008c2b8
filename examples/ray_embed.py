"""Embed a parquet file with Ray Data, on this machine or on a cluster, and write parquet with the features beside the texts.

    python examples/ray_embed.py --input corpus.parquet --column text --output vectors
    python examples/ray_embed.py                     # a sample of its own, written first

Needs the extra [ray]. On a cluster, start it with `ray job submit` or name the cluster with --address; input and output are then
paths that every node sees, such as s3://bucket/corpus.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import ray

from sentcore.integrations.ray import embed

LINES = [
    "Refunds are paid within five working days.",
    "Parcels can be returned free of charge for 30 days.",
    "The library opens at nine in the morning.",
    "退款将在五个工作日内到账。",
    "图书馆早上九点开门。",
]


def write_sample(folder: Path) -> Path:
    """A parquet file of a few texts with their numbers."""
    path = folder / "sample.parquet"
    table = pyarrow.table({"id": list(range(len(LINES))), "text": LINES})
    pyarrow.parquet.write_table(table, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", help="a parquet file or a folder of them; default: a sample written for this run")
    parser.add_argument("--column", default="text", help="the one that holds the texts (default: text)")
    parser.add_argument("--output", help="folder for the parquet files; default: show the first rows")
    parser.add_argument("-m", "--model", default="minilm")
    parser.add_argument("--num-gpus", type=float, default=0, help="GPUs of one actor (default: 0, CPUs)")
    parser.add_argument("--concurrency", type=int, default=1, help="actors, each with the model in memory")
    parser.add_argument("--address", help='of a cluster, or "auto"; default: this machine')
    options = parser.parse_args()

    ray.init(address=options.address, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = ray.data.read_parquet(options.input or str(write_sample(Path(folder))))
        rows = embed(
            rows,
            model=options.model,
            column=options.column,
            num_gpus=options.num_gpus,
            concurrency=options.concurrency,
            normalize_embeddings=True,
        )
        if options.output:
            rows.write_parquet(options.output)
            print(f"wrote {options.output}")
        else:
            for row in rows.take(5):
                print(
                    f"{row[options.column]}: {row['embedding'].shape[0]} numbers, the first {row['embedding'][0]:.4f}"
                )


if __name__ == "__main__":
    main()
