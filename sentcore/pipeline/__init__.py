"""Long work: windows of texts, batches by token budget, progress, results by sentence."""

from sentcore.pipeline.ahead import one_ahead
from sentcore.pipeline.batches import check_batch_tokens, checked_windows, run_batches, windows
from sentcore.pipeline.chunks import CutTexts, encode_chunked
from sentcore.pipeline.modes import evaluating
from sentcore.pipeline.progress import progress_bar
from sentcore.pipeline.results import hand_over, report_non_finite
from sentcore.pipeline.window import WindowOutputs, run_window

__all__ = [
    "CutTexts",
    "WindowOutputs",
    "check_batch_tokens",
    "checked_windows",
    "encode_chunked",
    "evaluating",
    "hand_over",
    "one_ahead",
    "progress_bar",
    "report_non_finite",
    "run_batches",
    "run_window",
    "windows",
]
