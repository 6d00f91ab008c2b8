"""Sentence features by captured graphs where that gives the same, and as always where not."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable

import torch

from sentcore.errors import SentcoreError
from sentcore.model import SentenceModel
from sentcore.packed import PackedBatch
from sentcore.pipeline.graphs.buckets import Bucket, bucket_of
from sentcore.pipeline.graphs.buffers import StaticBatch
from sentcore.pipeline.graphs.capture import CudaCapture
from sentcore.pipeline.graphs.state import ModelState
from sentcore.pipeline.memory import is_out_of_memory

MOST_GRAPHS = 64
MOST_BYTES = 2**30  # of their inputs and of the memory they compute in
_SEEN_BEFORE = 1  # times that a size was computed as always until it is captured, which takes as long as many passes


class GraphRunner:
    """[B, E] of small batches: the batch is rounded up to a bucket, and the bucket's graph replayed.

    Rows are independent of what stands beside them in a batch, so that what fills a bucket up changes none. Anything that a
    graph would not see is computed as always: gradients, training mode, autocast, forward hooks, torch.compile and dispatch
    modes. A change of the model (another tensor, a write to one, an adapter, a mode, a move) drops all graphs.

    Args:
        capture: `CudaCapture`, or what stands in its place in tests.
        most_graphs, most_bytes: beyond, the graph that was not used for the longest time is dropped.
        seen_before: how often a size is computed as always until it is captured.
    """

    def __init__(
        self,
        capture: type = CudaCapture,
        most_graphs: int = MOST_GRAPHS,
        most_bytes: int = MOST_BYTES,
        seen_before: int = _SEEN_BEFORE,
    ) -> None:
        self._options = (capture, most_graphs, most_bytes, seen_before)
        self._capture, self.most_graphs, self.most_bytes, self._seen_before = self._options
        self._lock = threading.Lock()
        self._graphs: OrderedDict[tuple, _Graph] = OrderedDict()  # the last one used is the last one
        self._seen: dict[tuple, int] = {}
        self._state: ModelState | None = None
        self._pool = self._previous = None
        self.counts = {"captured": 0, "replayed": 0, "eager": 0, "dropped": 0}

    def __call__(
        self, model: SentenceModel, batch: PackedBatch, prompt_length: int = 0, *, every_row: bool = False
    ) -> torch.Tensor:
        """[B, E] of a batch on the model's device.

        Args:
            prompt_length: tokens that a pooling without prompts leaves out.
            every_row: as `model(batch)` computes, which sentences without tokens need; else as `model.sentence_embedding`.
        """
        bucket = None
        device = batch.token_ids.device
        if device == model.encoder.embeddings.word_embeddings.weight.device and self._may_replay(device):
            longest = model.encoder.config.max_length
            bucket = bucket_of(batch.num_tokens, batch.num_sentences, batch.max_seqlen, longest)
        if bucket is not None:
            with self._lock:
                found = self._replayed(model, batch, (bucket, prompt_length, every_row))
            if found is not None:
                return found
        self.counts["eager"] += 1
        try:
            return _computed(model, batch, prompt_length, every_row)
        except Exception as error:
            if is_out_of_memory(error):  # the batch is tried again in parts, which may want what graphs hold
                self.drop()
            raise

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def bytes(self) -> int:
        """What all graphs hold."""
        return sum(graph.bytes for graph in self._graphs.values())

    def drop(self) -> None:
        """Lets go of all graphs; they are captured anew as they are used."""
        with self._lock:
            self._drop()

    def drop_outdated(self) -> None:
        """Lets go of graphs, and of the weights they read, where the model has changed."""
        with self._lock:
            if self._state is not None and not self._state.is_current():
                self._drop()

    def _may_replay(self, device: torch.device) -> bool:
        return not (
            torch.is_grad_enabled()
            or torch.is_autocast_enabled(device.type)
            or torch.compiler.is_compiling()
            or torch._C._len_torch_dispatch_stack()
        ) and self._capture.takes(device)

    def _replayed(self, model: SentenceModel, batch: PackedBatch, key: tuple) -> torch.Tensor | None:
        """[B, E], or None where it has to be computed as always."""
        if self._state is not None and self._state.model is not model:
            self._drop()
        graph = self._graphs.get(key)
        device = batch.token_ids.device
        if graph is not None and graph.device != device:
            graph = None
        if graph is not None:
            self._graphs.move_to_end(key)
            out = self._run(graph, batch)
            # Looked at while the device computes; what an outdated graph gave is thrown away.
            if self._state.is_current():
                self.counts["replayed"] += 1
                return out
            del out
            self._drop()
        elif self._state is not None and not self._state.is_current():
            self._drop()
        if self._state is None:
            self._state = ModelState(model)
        seen = self._seen.get(key, 0)
        self._seen[key] = seen + 1
        if self._state.why_not is not None or seen < self._seen_before:
            return None
        graph = self._captured(model, batch, key)
        return None if graph is None else self._run(graph, batch)

    def _run(self, graph: _Graph, batch: PackedBatch) -> torch.Tensor:
        self._previous = self._capture.in_turn(graph.device, self._previous)
        return graph(batch)

    def _captured(self, model: SentenceModel, batch: PackedBatch, key: tuple) -> _Graph | None:
        bucket, prompt_length, every_row = key
        device = batch.token_ids.device
        if self._pool is None:
            self._pool = self._capture.new_pool()
        self._previous = self._capture.in_turn(device, self._previous)

        try:
            with torch.inference_mode():
                graph = _Graph(
                    bucket,
                    batch,
                    lambda static: _computed(model, static, prompt_length, every_row),
                    lambda run: self._capture(run, device, self._pool),
                )
        except SentcoreError:  # the batch's fault
            raise
        except Exception as error:
            self._drop()
            if not is_out_of_memory(error):
                self._state = ModelState(model)
                self._state.why_not = "a failed capture"
                warnings.warn(
                    f"cuda_graphs: a pass of {bucket} could not be captured ({type(error).__name__}: {error}); this model is "
                    "computed without graphs until it changes. Features are the same",
                    RuntimeWarning,
                    stacklevel=6,
                )
            return None
        self.counts["captured"] += 1
        self._graphs[key] = graph
        while len(self._graphs) > 1 and (len(self._graphs) > self.most_graphs or self.bytes > self.most_bytes):
            _, oldest = self._graphs.popitem(last=False)
            self._capture.finish(oldest.device)
            oldest.drop()
            self.counts["dropped"] += 1
        return graph

    def _drop(self) -> None:
        graphs = list(self._graphs.values())
        for graph in graphs[:1]:
            self._capture.finish(graph.device)
        for graph in graphs:
            graph.drop()
        self.counts["dropped"] += len(graphs)
        self._graphs.clear()
        self._seen.clear()
        self._state = self._pool = self._previous = None

    # Copies and pickles are of the encoder around it; they capture anew.
    def __deepcopy__(self, memo: dict) -> GraphRunner:
        return GraphRunner(*self._options)

    def __reduce__(self) -> tuple:
        return GraphRunner, self._options


class _Graph:
    """One bucket's inputs and the pass that reads them."""

    def __init__(
        self,
        bucket: Bucket,
        batch: PackedBatch,
        run: Callable[[PackedBatch], torch.Tensor],
        capture: Callable[[Callable[[], torch.Tensor]], CudaCapture],
    ) -> None:
        self.device = batch.token_ids.device
        self._inputs = StaticBatch(bucket, self.device)
        self._inputs.fill(batch)  # for what is run before the capture
        static = self._inputs.batch
        self._pass = capture(lambda: run(static))
        self.bytes = self._inputs.bytes + self._pass.bytes

    def __call__(self, batch: PackedBatch) -> torch.Tensor:
        """[B, E], a copy: the next replay of any graph writes over the output."""
        with torch.inference_mode():  # in which all of it was made
            self._inputs.fill(batch)
            self._pass.replay()
        return self._pass.output[: batch.num_sentences].clone()

    def drop(self) -> None:
        """Gives its memory back."""
        self._pass.drop()


def _computed(model: SentenceModel, batch: PackedBatch, prompt_length: int, every_row: bool) -> torch.Tensor:
    if every_row:
        return model(batch, prompt_length).sentence_embedding
    return model.sentence_embedding(batch, prompt_length)
