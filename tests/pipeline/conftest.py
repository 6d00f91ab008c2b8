"""A lane on streams that threads stand in for."""

import pytest

from lanes import slow
from sentcore.pipeline.lane import Lane
from sentcore.pipeline.streams import ThreadStreams


@pytest.fixture
def lane():
    streams = ThreadStreams(slow())
    yield Lane(streams)
    streams.close()  # raises where there were races
