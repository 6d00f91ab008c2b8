"""Long work: windows of texts, batches by token budget, progress, results by sentence."""

from sentcore.pipeline.ahead import one_ahead
from sentcore.pipeline.batches import check_batch_tokens, checked_windows, run_batches, windows
from sentcore.pipeline.chunks import CutTexts, encode_chunked
from sentcore.pipeline.modes import in_training
from sentcore.pipeline.progress import progress_bar
from sentcore.pipeline.results import items_of, report_non_finite

__all__ = [
    "CutTexts",
    "check_batch_tokens",
    "checked_windows",
    "encode_chunked",
    "in_training",
    "items_of",
    "one_ahead",
    "progress_bar",
    "report_non_finite",
    "run_batches",
    "windows",
]
