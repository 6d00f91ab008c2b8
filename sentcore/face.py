"""What SentenceEncoder and CrossEncoder say alike of the model that they hold."""

from __future__ import annotations

import torch
from torch import nn

from sentcore.checkpoint.cross_encoder import CrossEncoderCheckpoint
from sentcore.checkpoint.load import Checkpoint
from sentcore.checkpoint.max_length import pick_max_length


class Face:
    """For a module that has `model` and `checkpoint`, and sets its `max_seq_length`, where None stands for the folder's."""

    model: nn.Module
    checkpoint: Checkpoint | CrossEncoderCheckpoint
    _max_length: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.encoder.embeddings.word_embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the encoder's linear layers compute in."""
        return self.model.encoder.dtype

    @property
    def max_seq_length(self) -> int:
        """Tokens a text, or a pair of them, is cut at, special tokens included."""
        return self._max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self._max_length = pick_max_length(value, self.checkpoint)
