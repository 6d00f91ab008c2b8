"""Long work: windows of texts, batches by token budget, progress, results by sentence."""

import sentcore.pipeline.forks  # noqa: F401  # registers itself
from sentcore.pipeline.ahead import one_ahead
from sentcore.pipeline.batches import check_batch_tokens, checked_lists, run_batches, windows
from sentcore.pipeline.call import Call
from sentcore.pipeline.graphs import HoldsGraphs
from sentcore.pipeline.in_flight import run_in_flight
from sentcore.pipeline.lane import Lane, lane_to
from sentcore.pipeline.memory import TokenBudget
from sentcore.pipeline.modes import evaluating
from sentcore.pipeline.notes import note_memory
from sentcore.pipeline.progress import Progress, progress_bar
from sentcore.pipeline.results import hand_over, report_non_finite
from sentcore.pipeline.workers import WorkerPool, as_workers, check_devices, window_sizes

__all__ = [
    "Call",
    "HoldsGraphs",
    "Lane",
    "Progress",
    "TokenBudget",
    "WorkerPool",
    "as_workers",
    "check_batch_tokens",
    "check_devices",
    "checked_lists",
    "evaluating",
    "hand_over",
    "lane_to",
    "note_memory",
    "one_ahead",
    "progress_bar",
    "report_non_finite",
    "run_batches",
    "run_in_flight",
    "window_sizes",
    "windows",
]
