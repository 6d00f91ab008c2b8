"""Long work: windows of texts, batches by token budget, progress."""

from sentcore.pipeline.batches import check_batch_tokens, run_batches, windows
from sentcore.pipeline.progress import progress_bar

__all__ = ["check_batch_tokens", "progress_bar", "run_batches", "windows"]
