"""The encoder's architecture as data."""

from __future__ import annotations

from dataclasses import dataclass

from sentcore.errors import ArgumentTypeError, ArgumentValueError

HIDDEN_ACTS = ("gelu", "gelu_tanh", "relu")
POSITION_EMBEDDING_TYPES = ("absolute",)

_POSITIVE_INTEGERS = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_COUNTS = ("num_hidden_layers", "type_vocab_size", "pad_token_id")
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@dataclass(frozen=True)
class EncoderConfig:
    """A BERT-architecture encoder (Devlin et al. 2018, https://arxiv.org/abs/1810.04805). Names are Hugging Face's.

    Attributes:
        vocab_size: V, rows of the word embedding table.
        hidden_size: H, width of a token's feature.
        num_hidden_layers: Transformer layers.
        num_attention_heads: N; the head size is D = H / N.
        intermediate_size: F, width inside the feed-forward network.
        hidden_act: "gelu" (erf), "gelu_tanh" or "relu".
        max_position_embeddings: rows of the position table, the longest sentence in tokens.
        type_vocab_size: rows of the token type table; 0 for a model that has none.
        layer_norm_eps: added to the variance in every LayerNorm.
        hidden_dropout_prob: dropout on embeddings, attention output and feed-forward output while training.
        attention_probs_dropout_prob: dropout on attention probabilities while training.
        pad_token_id: the id that fills padding in (input_ids, attention_mask) batches.
        position_embedding_type: "absolute".
        initializer_range: standard deviation of freshly initialised weights.

    Raises:
        ArgumentTypeError, ArgumentValueError: a field that no encoder can be built from, by name.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    pad_token_id: int = 0
    position_embedding_type: str = "absolute"
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in _POSITIVE_INTEGERS:
            self._check_integer(name, minimum=1)
        for name in _COUNTS:
            self._check_integer(name, minimum=0)
        for name in (*_PROBABILITIES, "layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ArgumentTypeError(f"{name} is {value!r} of type {type(value).__name__}; a number is accepted")
        for name in _PROBABILITIES:
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ArgumentValueError(f"{name} is {getattr(self, name)!r}; accepted is a probability in [0, 1)")
        if not 0.0 < self.layer_norm_eps < float("inf"):
            raise ArgumentValueError(
                f"layer_norm_eps is {self.layer_norm_eps!r}; accepted is a positive number, usually 1e-12 to 1e-5"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ArgumentValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}; "
                "every head has hidden_size / num_attention_heads channels, so change one of the two"
            )
        self._check_choice("hidden_act", HIDDEN_ACTS)
        self._check_choice("position_embedding_type", POSITION_EMBEDDING_TYPES)

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    def _check_integer(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArgumentTypeError(f"{name} is {value!r} of type {type(value).__name__}; an integer is accepted")
        if value < minimum:
            raise ArgumentValueError(f"{name} is {value}; accepted is an integer of at least {minimum}")

    def _check_choice(self, name: str, accepted: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in accepted:
            raise ArgumentValueError(
                f"{name} is {value!r}; accepted: {', '.join(accepted)}. "
                "A model trained with another one would give wrong features, so it is refused"
            )
