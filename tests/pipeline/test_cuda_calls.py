"""The calls into torch.cuda, on a stand-in that takes what torch's own takes and writes down what it was asked."""

from __future__ import annotations

import contextlib
import inspect
import threading
import time

import pytest
import torch

from folders import make_bert_folder
from graphs_of import BATCH
from lanes import TOKENS, assert_same, expected, features
from sentcore import SentenceEncoder
from sentcore.pipeline import TokenBudget
from sentcore.pipeline.graphs import CudaCapture, GraphRunner, capture
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import Lane
from sentcore.pipeline.streams import CudaStreams

CPU = torch.device("cpu")


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda on a CPU: every stream does its work at once, and a graph's replay does it again."""
    said = []

    class Stream:
        made = 0

        def __init__(self, device=None, priority=0):
            Stream.made += 1
            self.name, self.priority = f"stream {Stream.made}", priority

        def wait_stream(self, other):
            said.append(f"{self.name} after {other.name}")

        def wait_event(self, event):
            said.append(f"{self.name} after event of {event.stream}")

    main = Stream()
    main.name = "main"
    now = threading.local()  # as in CUDA, a thread's own

    def current_stream(device=None):
        return getattr(now, "stream", main)

    class Event:
        def __init__(self, enable_timing=False, blocking=False, interprocess=False):
            assert blocking
            self.stream = None

        def record(self, stream):
            self.stream = stream.name

        def synchronize(self):
            said.append(f"host after event of {self.stream}")

    @contextlib.contextmanager
    def stream(which):
        before = current_stream()
        now.stream = which
        try:
            yield
        finally:
            now.stream = before

    class Graph:
        def replay(self):
            assert not graph.under_way
            said.append("replay")

        def reset(self):
            said.append("reset")

    class graph:  # as torch's, it leaves its stream the current one where the capture cannot be ended
        under_way = 0

        def __init__(self, cuda_graph, pool=None, stream=None, capture_error_mode="global"):
            self.stream, self.told = stream, f"capture on {stream.name} into {pool}, {capture_error_mode}"

        def __enter__(self):
            assert not torch.is_inference_mode_enabled()
            self.before, now.stream = current_stream(), self.stream
            graph.under_way += 1
            assert graph.under_way == 1
            said.append(self.told)

        def __exit__(self, kind, error, trace):
            graph.under_way -= 1
            if "not permitted" in str(error):
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            now.stream = self.before

    assert "priority" in inspect.signature(torch.cuda.Stream.__new__).parameters
    real = inspect.signature(torch.cuda.graph.__init__).parameters
    assert {"cuda_graph", "pool", "stream", "capture_error_mode"} <= set(real)
    stand_in = {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": graph,
        "stream": stream,
        "current_stream": current_stream,
        "graph_pool_handle": lambda: "a pool",
        "memory_reserved": lambda device=None: 0,
        "is_current_stream_capturing": lambda: False,
        "empty_cache": lambda: said.append("empty_cache"),
        "synchronize": lambda device=None: said.append("synchronize"),
    }
    for name, value in stand_in.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, value)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **kw: empty(*size, **kw))
    copy = torch.Tensor.copy_

    def copied(target, source, non_blocking=False):
        if non_blocking:
            said.append(f"copy on {current_stream().name}")
        return copy(target, source)

    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    monkeypatch.setattr(capture, "_streams", {})
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        call = lambda device, pool, name=name: said.append(f"{name.removeprefix('_cuda_')} {pool}")  # noqa: E731
        monkeypatch.setattr(torch._C, name, call, raising=False)
    return said


def test_a_batch_on_its_way(cuda):
    streams = CudaStreams(CPU)
    into, out = (streams._streams[name].name for name in ("in", "out"))
    assert_same(
        [
            (i.tolist(), n, rows.clone())
            for i, n, rows in run_in_flight(TOKENS, TokenBudget(300), Lane(streams), features)
        ],
        expected(),
    )
    copies = [line for line in cuda if line.startswith("copy")]
    assert copies.count(f"copy on {into}") == copies.count(f"copy on {out}") == len(copies) // 2 == len(expected())
    first = cuda.index(f"copy on {into}")
    assert cuda[first - 1] == f"{into} after main"  # memory that "compute" may have used before
    assert cuda[first : first + 4] == [
        f"copy on {into}",
        f"main after event of {into}",
        f"{out} after event of main",
        f"copy on {out}",
    ]
    assert cuda.count(f"{into} after event of main") == len(expected()) - 3  # three places, used in turn
    assert cuda.count(f"host after event of {out}") == len(expected())


class OnCpu(CudaCapture):
    @staticmethod
    def takes(device):
        return True


def test_a_graph(cuda, encoder_on_cpu):
    encoder = encoder_on_cpu
    encoder.graphs = GraphRunner(OnCpu, seen_before=0, most_graphs=1)
    with torch.inference_mode():
        wanted = encoder.model(BATCH).sentence_embedding
        for _ in range(3):
            torch.testing.assert_close(encoder(BATCH), wanted)
        side = next(line for line in cuda if line.startswith("capture")).split(" into ")[0].removeprefix("capture on ")
        assert cuda == [
            f"{side} after main",
            "empty_cache",
            f"capture on {side} into a pool, thread_local",
            f"main after {side}",
            "replay",
            "replay",
            "replay",
        ]
        cuda.clear()
        encoder(type(BATCH).from_sequences([[5] * 20]))  # another size, and room for one
        assert cuda[-3:] == ["synchronize", "reset", "replay"]
        assert f"capture on {side} into a pool, thread_local" in cuda  # memory of a pool belongs to a stream
        encoder.graphs.drop()
        assert cuda[-2:] == ["synchronize", "reset"] and len(encoder.graphs) == 0


@pytest.fixture
def encoder_on_cpu(tmp_path):
    return SentenceEncoder(make_bert_folder(tmp_path), device="cpu")


def test_where_a_graph_is_captured():
    assert not CudaCapture.takes(CPU)


# ---- captures that fail, and several at once ----


def test_a_capture_that_cannot_be_ended(cuda, encoder_on_cpu, monkeypatch):
    encoder = encoder_on_cpu
    forward = type(encoder.model).forward

    def waiting(*args, **options):
        if torch.cuda.current_stream().name != "main" and "thread_local" in cuda[-1]:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return forward(*args, **options)

    monkeypatch.setattr(type(encoder.model), "forward", waiting)
    encoder.graphs = GraphRunner(OnCpu, seen_before=0)
    with torch.inference_mode(), pytest.warns(RuntimeWarning, match="could not be captured"):
        for _ in range(2):
            torch.testing.assert_close(encoder(BATCH), encoder.model(BATCH).sentence_embedding)
            assert torch.cuda.current_stream().name == "main"
    first, ended, released, again, last = cuda[-5:]
    side = first.split(" into ")[0]
    assert first == f"{side} into a pool, thread_local"
    assert (ended, released) == ("endAllocateToPool a pool", "releasePool a pool")
    assert again == f"{side} into None, thread_local"  # whose end sets the generator right
    assert last == f"main after {side.removeprefix('capture on ')}"


def test_memory_that_runs_out_before_a_capture(cuda):
    """What was started reads the inputs, whose memory may be given away from then on."""

    def run():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        CudaCapture(run, CPU, "a pool")
    side, after = cuda[0].split(" after ")
    assert (after, cuda[-1], len(cuda)) == ("main", f"main after {side}", 2)


def test_threads_capture_and_replay_one_after_the_other(cuda):
    failures = []

    def run():
        assert torch.is_inference_mode_enabled()
        time.sleep(0.01)
        return torch.zeros(1)

    def capture_and_replay():
        try:
            with torch.inference_mode():
                captured = CudaCapture(run, CPU, "a pool")
                for _ in range(20):
                    captured.replay()
                    time.sleep(0.003)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=capture_and_replay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sum(line.startswith("capture") for line in cuda) == 4 and cuda.count("replay") == 80


def test_copies_share_no_stream_with_what_is_computed_or_captured(cuda):
    """Streams are handed out in turn from a pool for each priority."""
    CudaCapture(lambda: torch.zeros(1), CPU, "a pool")
    captures = {stream.priority for stream in capture._streams.values()}
    copies = {stream.priority for stream in CudaStreams(CPU)._streams.values()}
    assert captures == {0} and copies == {-1}
