"""What a trace holds. Tensors are float32 on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NormTrace:
    """Lengths of the rows that a LayerNorm was given and gave.

    Attributes:
        name: "embeddings", "layer 0 attention", "layer 0 feed-forward" and on, "final".
        before: [T], of the residual stream: the sum that goes into the LayerNorm.
        after: [T].
    """

    name: str
    before: torch.Tensor
    after: torch.Tensor


@dataclass(frozen=True)
class EmbeddingTrace:
    """The rows of the embedding tables, [t, E] each, where E is the tables' width.

    Attributes:
        word: of the word table.
        position: of the position table; None for a model without one (rotary, ALiBi).
        token_type: of the token type table; None for a model without one.
        sum: of all these.
        normed: the sum behind its LayerNorm; where E is not H, hidden_states[0] is its projection.
    """

    word: torch.Tensor
    position: torch.Tensor | None
    token_type: torch.Tensor | None
    sum: torch.Tensor
    normed: torch.Tensor


@dataclass(frozen=True)
class LayerTrace:
    """One layer.

    Attributes:
        query, key, value: [N, t, D], as the attention takes them: queries and keys already turned by rotary angles.
        attention: [N, t, t] probabilities, of query tokens (rows) and key tokens (columns); rows sum to 1 where t is T.
        sliding: whether it sees only the keys within the model's window.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attention: torch.Tensor
    sliding: bool


@dataclass(frozen=True)
class Trace:
    """Everything between a text and its feature; T tokens, of which the first t are kept where they are large.

    Attributes:
        text: with the prompt before it.
        tokens: T tokens of the vocabulary; labels: the same as a reader would write them; token_ids: their ids.
        truncated: whether the text was cut at the model's maximum length.
        embeddings: the rows of the tables.
        hidden_states: L + 1 of [t, H], behind the embeddings and every layer, the last behind the final LayerNorm where the
            model has one, as in transformers.
        layers: L layers.
        norms: every LayerNorm, in the order of computation.
        pooling: pooling mode -> [T], what each token's row is multiplied by; of "max" the share of columns in which the token
            has the largest value. Empty for a model without pooling.
        feature: [E], as `SentenceEncoder.encode` gives it; None for a model without pooling.
    """

    text: str
    tokens: list[str]
    labels: list[str]
    token_ids: list[int]
    truncated: bool
    embeddings: EmbeddingTrace
    hidden_states: list[torch.Tensor]
    layers: list[LayerTrace]
    norms: list[NormTrace]
    pooling: dict[str, torch.Tensor]
    feature: torch.Tensor | None

    @property
    def kept(self) -> int:
        """t."""
        return len(self.hidden_states[0])
