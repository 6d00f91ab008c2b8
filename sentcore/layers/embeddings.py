"""Token ids to the first hidden state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sentcore.config import EncoderConfig
from sentcore.ops.backends import ops_of
from sentcore.ops.plain import is_plain
from sentcore.packed import PackedBatch


class Embeddings(nn.Module):
    """LayerNorm(word + position + token type), then dropout (Devlin et al. 2018, section 3.2).

    Models with rotary or ALiBi positions have no position table, some no token types; factorised tables (Lan et al. 2020,
    section 3.1) are projected to the hidden size at the end.
    """

    def __init__(self, config: EncoderConfig, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.position_offset = config.position_offset
        dropout_p = config.embedding_dropout_prob
        self.dropout_p = config.hidden_dropout_prob if dropout_p is None else dropout_p
        size = config.embedding_size or config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = self.token_type_embeddings = self.projection = None
        if config.position_embedding_type == "absolute":
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps, bias=config.norm_bias)
        if config.embedding_size is not None:
            self.projection = nn.Linear(size, config.hidden_size)

    def forward(self, batch: PackedBatch, words: torch.Tensor | None = None) -> torch.Tensor:
        """[T] ids -> [T, H] in the weights' dtype; `words` [T, H] (E where tables are factorised) stand in the word table's place."""
        ops = ops_of(self.backend)
        positions, types = self.position_embeddings, self.token_type_embeddings
        rows = None
        if positions is not None:
            rows = batch.position_ids + self.position_offset if self.position_offset else batch.position_ids
        tables = [table for table in (self.word_embeddings, positions, types) if table is not None]
        # A table's row for padding has no gradient in torch's own lookup, which a plain read of its rows would give it.
        lookup = torch.is_grad_enabled() and any(getattr(table, "padding_idx", None) is not None for table in tables)
        if words is None and is_plain(*tables, self.layer_norm) and not lookup:
            out = self._gathered(batch, rows)
        else:
            out = self.word_embeddings(batch.token_ids) if words is None else words
            for table, index in ((positions, rows), (types, batch.token_type_ids)):
                if table is not None:
                    out = out + table(index)
            out = self.layer_norm(out)
        if self.training:
            out = F.dropout(out, self.dropout_p)
        if self.projection is None:
            return out
        if not is_plain(self.projection):
            return self.projection(out)
        return ops.linear(out, self.projection.weight, self.projection.bias)

    def _gathered(self, batch: PackedBatch, rows: torch.Tensor | None) -> torch.Tensor:
        positions, types = self.position_embeddings, self.token_type_embeddings
        return ops_of(self.backend).embedding_layer_norm(
            batch.token_ids,
            rows,
            None if types is None else batch.token_type_ids,
            self.word_embeddings.weight,
            None if positions is None else positions.weight,
            None if types is None else types.weight,
            self.layer_norm.weight,
            self.layer_norm.bias,
            eps=self.layer_norm.eps,
        )
