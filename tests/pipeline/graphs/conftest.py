"""An encoder with what stands in for CUDA graphs on a CPU."""

import pytest

from folders import make_bert_folder
from sentcore import SentenceEncoder
from sentcore.pipeline.graphs import EagerCapture, GraphRunner


@pytest.fixture
def encoder(tmp_path):
    encoder = SentenceEncoder(make_bert_folder(tmp_path), device="cpu")
    encoder.graphs = GraphRunner(EagerCapture)
    return encoder
