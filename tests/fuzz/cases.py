"""One case: a copy of a seed, changed, and what reading it came to."""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz.mutations import mutate, rows
from fuzz.tensors import CANARY
from sentcore import CrossEncoder, SentenceEncoder
from sentcore.cli.files import check_input
from sentcore.errors import SentcoreError
from sentcore.pipeline.corpus import read_file

TEXTS = ["the cat", "", "x y 我爱 [SEP] zebra-42 " * 9]
SECONDS = 10.0


class Outcome(NamedTuple):
    """What a case came to.

    Attributes:
        kind: "loaded", "refused" or "fault".
        detail: the error's class, or for a fault what was wrong.
        said: seed and mutation.
    """

    kind: str
    detail: str
    said: str


def use_model(folder: Path, cross_encoder: bool) -> None:
    """Loads a folder and computes something with it."""
    if cross_encoder:
        CrossEncoder(folder, device="cpu", local_files_only=True).predict([("the cat", "x"), ("", TEXTS[2])])
        return
    model = SentenceEncoder(folder, device="cpu", local_files_only=True)
    heads = {
        "sentence_embedding": bool(model.model.outputs),
        "sparse": model.model.sparse,
        "colbert": model.model.colbert,
    }
    model.encode(TEXTS, output_value=[name for name, there in heads.items() if there], show_progress_bar=False)


def model_case(seeds: Path, work: Path, rng: Random) -> Outcome:
    """A model folder."""
    name = rng.choice(sorted(path.name for path in (seeds / "models").iterdir()))
    folder = work / "model"
    with _fresh(work):
        shutil.copytree(seeds / "models" / name, folder)
        said, must_refuse = mutate(folder, rng)
        cross_encoder = (name == "cross-encoder") != (rng.random() < 0.05)
        outcome = _judge(lambda: use_model(folder, cross_encoder), f"{name}: {said}")
        if (work / CANARY).exists():
            return outcome._replace(kind="fault", detail="code of the folder ran")
        if must_refuse and outcome.kind == "loaded":
            return outcome._replace(kind="fault", detail="loaded what it had to refuse")
        return outcome


def input_case(seeds: Path, work: Path, rng: Random) -> Outcome:
    """An input file of the command line."""
    seed = rng.choice(sorted((seeds / "inputs").iterdir()))
    with _fresh(work):
        path = Path(shutil.copyfile(seed, work / seed.name))
        said = rows(path, rng)

        def read() -> None:
            for _ in islice(read_file(check_input(path, None), "text"), 10_000):
                pass

        return _judge(read, said)


def run_case(seeds: Path, work: Path, number: int) -> Outcome:
    """The case of a number: the same whenever it is run."""
    rng = Random(number)
    return (input_case if rng.random() < 0.15 else model_case)(seeds, work, rng)


def _judge(use: Callable[[], None], said: str) -> Outcome:
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use()
        outcome = Outcome("loaded", "", said)
    except SentcoreError as error:
        long = len(str(error)) > 5000
        outcome = Outcome(
            "fault" if long else "refused", f"a message of {len(str(error))}" if long else type(error).__name__, said
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = [frame for frame in traceback.extract_tb(error.__traceback__) if "sentcore" in frame.filename]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(last[-3:]))
        return Outcome("fault", f"{type(error).__name__}: {error!s:.200} at {where}", said)
    if (seconds := time.process_time() - begin) > SECONDS:
        return outcome._replace(kind="fault", detail=f"took {seconds:.1f} s of a CPU")
    return outcome


@contextlib.contextmanager
def _fresh(work: Path) -> Iterator[None]:
    work.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(work)
