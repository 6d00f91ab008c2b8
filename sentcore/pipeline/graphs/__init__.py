"""CUDA graphs for small batches: a captured pass for each size a batch is rounded up to."""

from sentcore.pipeline.graphs.buckets import Bucket, bucket_of
from sentcore.pipeline.graphs.capture import CudaCapture, EagerCapture
from sentcore.pipeline.graphs.holder import HoldsGraphs
from sentcore.pipeline.graphs.runner import GraphRunner

__all__ = ["Bucket", "CudaCapture", "EagerCapture", "GraphRunner", "HoldsGraphs", "bucket_of"]
