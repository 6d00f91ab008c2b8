"""sentcore.accelerate: models of other libraries compute on packed batches, in place, with their own parameters."""

from sentcore.integrations.acceleration.face import accelerate, restore

__all__ = ["accelerate", "restore"]
