"""Long work: windows of texts, batches by token budget, progress, results by sentence."""

from sentcore.pipeline.ahead import one_ahead
from sentcore.pipeline.batches import check_batch_tokens, checked_windows, run_batches, windows
from sentcore.pipeline.progress import progress_bar
from sentcore.pipeline.results import hand_over, report_non_finite
from sentcore.pipeline.window import WindowOutputs, evaluating, run_window

__all__ = [
    "WindowOutputs",
    "check_batch_tokens",
    "checked_windows",
    "evaluating",
    "hand_over",
    "one_ahead",
    "progress_bar",
    "report_non_finite",
    "run_batches",
    "run_window",
    "windows",
]
