"""The calls into torch.cuda, on a stand-in that takes what torch's own takes and writes down what it was asked."""

from __future__ import annotations

import contextlib
import inspect

import pytest
import torch

from folders import make_bert_folder
from graphs_of import BATCH
from lanes import TOKENS, assert_same, expected, features
from sentcore import SentenceEncoder
from sentcore.pipeline import TokenBudget
from sentcore.pipeline.graphs import CudaCapture, GraphRunner
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import Lane
from sentcore.pipeline.streams import CudaStreams

CPU = torch.device("cpu")


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda on a CPU: every stream does its work at once, and a graph's replay does it again."""
    said = []
    now = ["main"]

    class Stream:
        made = 0

        def __init__(self, device=None):
            Stream.made += 1
            self.name = f"stream {Stream.made}"

        def wait_stream(self, other):
            said.append(f"{self.name} after {other.name}")

        def wait_event(self, event):
            said.append(f"{self.name} after event of {event.stream}")

    main = Stream()
    main.name = "main"

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
        now.append(which.name)
        yield
        now.pop()

    class Graph:
        def replay(self):
            said.append("replay")

        def reset(self):
            said.append("reset")

    @contextlib.contextmanager
    def graph(cuda_graph, pool=None, stream=None, capture_error_mode="global"):
        said.append(f"capture on {stream.name} into {pool}, {capture_error_mode}")
        yield

    real = inspect.signature(torch.cuda.graph.__init__).parameters
    assert {"cuda_graph", "pool", "stream", "capture_error_mode"} <= set(real)
    stand_in = {
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": graph,
        "stream": stream,
        "current_stream": lambda device=None: main,
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
            said.append(f"copy on {now[-1]}")
        return copy(target, source)

    monkeypatch.setattr(torch.Tensor, "copy_", copied)
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
            f"main after {side}",
            "empty_cache",
            f"capture on {side} into a pool, thread_local",
            "replay",
            "replay",
            "replay",
        ]
        cuda.clear()
        encoder(type(BATCH).from_sequences([[5] * 20]))  # another size, and room for one
        assert cuda[-3:] == ["synchronize", "reset", "replay"]
        encoder.graphs.drop()
        assert cuda[-2:] == ["synchronize", "reset"] and len(encoder.graphs) == 0


@pytest.fixture
def encoder_on_cpu(tmp_path):
    return SentenceEncoder(make_bert_folder(tmp_path), device="cpu")


def test_where_a_graph_is_captured():
    assert not CudaCapture.takes(CPU)
