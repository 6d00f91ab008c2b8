"""What reading, tokenizing, planning, shards and the file cost beside the model's own compute, by alternation on a CPU."""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

LIMIT = 0.05


def read(path: Path, count: int) -> list[str]:
    """Texts out of lines, or of JSON objects with `title` and `body`."""
    texts = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            if path.suffixes[-2:] == [".jsonl", ".gz"] or path.suffix == ".jsonl":
                row = json.loads(line)
                body = row["body"]
                line = f"{row['title']}. {body if isinstance(body, str) else ' '.join(body)}"
            texts.append(line.strip())
            if len(texts) == count:
                break
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--num-texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import numpy as np
    import torch

    import sentcore
    from sentcore.inputs.packing import pack_batch
    from sentcore.inputs.planning import plan_batches
    from sentcore.pipeline.batches import default_batch_tokens
    from sentcore.pipeline.corpus import BadRows, Job, Parts, make_sink, open_source

    torch.set_num_threads(options.threads)
    model = sentcore.SentenceEncoder("minilm", device="cpu")
    texts = read(options.texts, options.num_texts)
    tokens = model.tokenizer(texts)
    order, starts = plan_batches(tokens.lengths, default_batch_tokens(model.device, model.model.encoder.config))
    batches = [pack_batch(tokens, order[a:b], device="cpu") for a, b in pairwise(starts)]

    def compute() -> float:
        start = time.process_time()
        with torch.inference_mode():
            for batch in batches:
                model.model.sentence_embedding(batch, 0)
        return time.process_time() - start

    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "in.jsonl", Path(name) / "out.parquet"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

        def whole() -> float:
            start = time.process_time()
            parts = Parts(output)
            parts.begin()
            sink = make_sink(".parquet", ("text",), "float32", 384)
            job = Job(open_source(source, "text", ("text",), typed=True), sink, parts, BadRows("fail"))
            job.prepare(None, {"options": {}, "input": {}}, print)
            job.run(lambda lists: model.encode_windows(lists))
            return time.process_time() - start

        compute(), whole()
        pairs = [(compute(), whole()) for _ in range(options.rounds)]
    bare, all_of_it = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [whole / bare - 1 for bare, whole in pairs]
    overhead = statistics.median(ratios)
    print(
        f"{len(texts)} texts, {int(np.sum(tokens.lengths))} tokens, CPU seconds of all threads: the model alone {bare:.2f}, "
        f"file to file {all_of_it:.2f}; overhead {overhead:.1%} (median of {options.rounds} pairs, "
        f"{min(ratios):.1%} to {max(ratios):.1%})"
    )
    return int(overhead > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
