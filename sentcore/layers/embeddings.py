"""Token ids to the first hidden state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.ops.backends import ops_of
from sentcore.packed import PackedBatch


class Embeddings(nn.Module):
    """LayerNorm(word + position + token type), then dropout (Devlin et al. 2018, section 3.2)."""

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.dropout_p = config.hidden_dropout_prob
        hidden = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, hidden)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, hidden)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        else:
            self.token_type_embeddings = None
        self.layer_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """[T] ids -> [T, H] in the weights' dtype."""
        types = self.token_type_embeddings
        out = ops_of(self.backend).embedding_layer_norm(
            batch.token_ids,
            batch.position_ids,
            None if types is None else batch.token_type_ids,
            self.word_embeddings.weight,
            self.position_embeddings.weight,
            None if types is None else types.weight,
            self.layer_norm.weight,
            self.layer_norm.bias,
            eps=self.layer_norm.eps,
        )
        return F.dropout(out, self.dropout_p, self.training) if self.training else out
