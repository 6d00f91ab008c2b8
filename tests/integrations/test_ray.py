"""Ray Data on a real cluster of two nodes on this machine, one of which is killed while it computes."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from compare import SAME_FEATURES_FLOAT32
from sentcore import SentenceEncoder
from sentcore.errors import ArgumentTypeError, ArgumentValueError, MissingPackageError
from sentcore.integrations.ray import embed


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sentcore\[ray\]'"):
        embed(object())


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """(cluster, head, worker), one CPU each, and this process connected to them."""
    reason = "Ray is not installed; pip install '.[test,ray]' to run this"
    ray = pytest.importorskip("ray", reason=reason)
    pytest.importorskip("pyarrow", reason=reason)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_AUTH_MODE", "disabled"
    )  # a cluster of this machine alone, and no file in the home folder
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    worker = cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, cluster.head_node, worker
    ray.shutdown()
    cluster.shutdown()


def rows_of(nodes, count, parts=1):
    import pyarrow
    import ray

    table = pyarrow.table(
        {
            "id": list(range(count)),
            "text": [f"sentence {i} " * (i % 7 + 1) for i in range(count)],
            "rank": pyarrow.array([None if i % 3 else i for i in range(count)], pyarrow.int64()),
        }
    )
    step = -(-count // parts)
    return table, ray.data.from_arrow([table.slice(first, step) for first in range(0, count, step)])


def alive_on(node_id: str) -> bool:
    """Whether an actor of ours runs there."""
    from ray._private import state

    actors = state.actors().values()
    return any(actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == node_id for actor in actors)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (
            {"column": "body"},
            ArgumentValueError,
            "column is 'body'; accepted: one of the dataset's, 'id', 'text', 'rank'",
        ),
        ({"output_column": "rank"}, ArgumentValueError, "output_column is 'rank', which the dataset has already"),
        ({"concurrency": 0}, ArgumentValueError, "concurrency is 0"),
        ({"concurrency": (3, 2)}, ArgumentValueError, r"concurrency is \(3, 2\)"),
        ({"batch_size": 0}, ArgumentValueError, "batch_size is 0"),
        ({"precision": "int8"}, ArgumentValueError, "without ranges"),
        ({"device": "cpu"}, ArgumentTypeError, "device is no option here"),
    ],
)
def test_a_bad_argument_is_named_before_any_work(nodes, given, kind, said):
    _, dataset = rows_of(nodes, 4)
    with pytest.raises(kind, match=said):
        embed(dataset, **given)


def test_what_is_no_dataset_is_named(nodes):
    with pytest.raises(ArgumentTypeError, match=r"dataset is of type list; accepted: a ray\.data\.Dataset"):
        embed(["a text"])


def test_a_node_that_is_killed_loses_no_row(nodes):
    """All rows, each once, with the other columns and the encoder's own values."""
    cluster, _, worker = nodes
    table, dataset = rows_of(nodes, 600, parts=30)
    # More than half a CPU, so that a node holds one actor.
    found = embed(dataset, num_cpus=0.8, concurrency=2, batch_size=20, normalize_embeddings=True)
    parts = []
    killed = False
    for part in found.iter_batches(batch_size=20, batch_format="numpy", prefetch_batches=0):
        parts.append(part)
        if not killed:
            begin = time.monotonic()
            while not alive_on(worker.node_id) and time.monotonic() - begin < 180:
                time.sleep(0.2)
            assert alive_on(worker.node_id), "the second node computes nothing, so killing it would show nothing"
            cluster.remove_node(worker, allow_graceful=False)
            killed = True
    assert killed and not alive_on(worker.node_id)
    ids = np.concatenate([part["id"] for part in parts])
    rows = np.concatenate([part["embedding"] for part in parts])
    assert sorted(ids.tolist()) == list(range(600))
    assert rows.dtype == np.float32 and rows.shape == (600, 384)
    texts = table.column("text").to_pylist()
    assert [text for part in parts for text in part["text"]] == [texts[place] for place in ids]
    expected = SentenceEncoder("minilm", device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(rows, expected[ids], rtol=0, atol=SAME_FEATURES_FLOAT32)
