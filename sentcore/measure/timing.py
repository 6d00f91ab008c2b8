"""Methods timed in turn, on the same texts, after their features were compared."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from sentcore.errors import TruncationWarning
from sentcore.integrations.layer_parity import Distance
from sentcore.integrations.parity import ACCEPTED
from sentcore.measure.methods import Method
from sentcore.placement import dtype_name

# What a feature's cosine to float32's may be, by dtype: what parity accepts.
LEAST_COSINES = {dtype_name(dtype): smallest for dtype, (_, smallest) in ACCEPTED.items()}
BLOCKS = 3  # of calls of one sentence, a method's in a row and the methods in turn
CALLS = 10  # in a block
_PAUSE = 0.05  # seconds: the threads of one method spin for a while after its last call, not into the next one's


@dataclass
class Timed:
    """What is known of one method by now.

    Attributes:
        method: which.
        min_cosine, max_abs_difference: of its features and float32's of ours; None before they were compared.
        seconds: of all texts, by round.
        sentence_seconds: of one sentence, by call.
    """

    method: Method
    min_cosine: float | None = None
    max_abs_difference: float | None = None
    seconds: list[float] = field(default_factory=list)
    sentence_seconds: list[float] = field(default_factory=list)

    @property
    def least_cosine(self) -> float:
        """What min_cosine may be."""
        return LEAST_COSINES[self.method.dtype]

    @property
    def agrees(self) -> bool:
        """Whether the features are those of float32; written so that NaN is not."""
        return self.min_cosine is not None and self.min_cosine >= self.least_cosine


class Measurement:
    """Methods on texts; what is done stays when it is cut off.

    Args:
        methods: the first one's features are what the others' are compared with.
        device: whose clock is read; of a GPU only when it is done.
        texts: of the throughput.
        sentence: of the latency.
    """

    def __init__(self, methods: Sequence[Method], device: torch.device, texts: list[str], sentence: str) -> None:
        self.timed = [Timed(method) for method in methods]
        self._device, self._texts, self._sentence = device, texts, sentence

    def steps(self, rounds: int) -> int:
        """How often `run` tells of a step, at most."""
        return len(self.timed) * (1 + rounds + BLOCKS)

    def run(self, rounds: int, step: Callable[[str], None]) -> None:
        """Compares, then times those that agree; `step` is told of each step as it begins."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # the report says how many are cut
            self._compare(step)
            good = [timed for timed in self.timed if timed.agrees]
            for number in range(rounds):
                for timed in good:
                    step(f"round {number + 1} of {rounds}, {timed.method.name}")
                    timed.seconds.append(self._seconds(timed.method, self._texts))
            for _ in range(BLOCKS):
                for timed in good:
                    step(f"one sentence, {timed.method.name}")
                    time.sleep(_PAUSE)
                    self._seconds(timed.method, [self._sentence])  # the first after a pause is not like the others
                    for _ in range(CALLS):
                        timed.sentence_seconds.append(self._seconds(timed.method, [self._sentence]))

    def _compare(self, step: Callable[[str], None]) -> None:
        """It is the warm-up too: every method computes every batch once."""
        expected = None
        for timed in self.timed:
            step(f"comparing, {timed.method.name}")
            rows = torch.from_numpy(timed.method.encode(self._texts))
            expected = rows if expected is None else expected
            found = Distance(math.nan, cosine=math.nan)
            if rows.shape == expected.shape:
                found = Distance().add(rows, expected)
            timed.min_cosine, timed.max_abs_difference = found.cosine, found.difference

    def _seconds(self, method: Method, texts: list[str]) -> float:
        self._wait()
        begin = time.perf_counter()
        method.encode(texts)
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
