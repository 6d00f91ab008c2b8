"""A file of texts of any size to a file of features: readers, shards that outlive a kill, and what puts them together."""

from sentcore.pipeline.corpus.identity import file_identity, folder_identity
from sentcore.pipeline.corpus.job import Job
from sentcore.pipeline.corpus.lines import read_standard_input
from sentcore.pipeline.corpus.parts import Parts
from sentcore.pipeline.corpus.rows import SHARD_ROWS, BadRows, InputError, Shard
from sentcore.pipeline.corpus.sinks import make_sink
from sentcore.pipeline.corpus.sources import ListSource, open_source, read_file

__all__ = [
    "SHARD_ROWS",
    "BadRows",
    "InputError",
    "Job",
    "ListSource",
    "Parts",
    "Shard",
    "file_identity",
    "folder_identity",
    "make_sink",
    "open_source",
    "read_file",
    "read_standard_input",
]
