"""Text on its way into the encoder: which sentences share a batch, and the batch itself."""

from sentcore.inputs.packing import pack_batch
from sentcore.inputs.planning import plan_batches

__all__ = ["pack_batch", "plan_batches"]
