"""The encoder's architecture as data."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from sentcore.errors import ArgumentTypeError, ArgumentValueError

HIDDEN_ACTS = ("gelu", "gelu_tanh", "relu")
GATED_ACTS = {"gelu": "geglu", "silu": "swiglu"}  # hidden_act of a gated feed-forward -> the linear op's activation
POSITION_EMBEDDING_TYPES = ("absolute", "rotary", "alibi")
LAYER_TYPES = ("full", "sliding")

_POSITIVE_INTEGERS = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "relative_attention_max_distance",
)
_COUNTS = (
    "num_hidden_layers",
    "type_vocab_size",
    "pad_token_id",
    "position_offset",
    "relative_attention_num_buckets",
)
_PROBABILITIES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "intermediate_dropout_prob",
    "embedding_dropout_prob",
)
_POSITIVE_NUMBERS = ("layer_norm_eps", "rope_theta", "rope_ntk_factor", "local_rope_theta")
_NOT_NEGATIVE = ("initializer_range",)
_OPTIONAL_NUMBERS = ("embedding_dropout_prob", "local_rope_theta")
_OPTIONAL_INTEGERS = ("embedding_size", "num_hidden_groups", "sliding_window")

MOST_LAYERS = 1024
# What no model comes near, so that the number of a table's elements is a size, and what is built comes to an end.
_LARGEST = {"num_hidden_layers": MOST_LAYERS, "hidden_size": 2**20, "intermediate_size": 2**22, "embedding_size": 2**20}
_LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True)
class EncoderConfig:
    """A Transformer encoder (Devlin et al. 2018, https://arxiv.org/abs/1810.04805) and its variants; defaults are BERT's.

    Attributes:
        vocab_size: V, rows of the word embedding table.
        hidden_size: H, width of a token's feature.
        num_hidden_layers: Transformer layers.
        num_attention_heads: N; the head size is D = H / N.
        intermediate_size: F, width inside the feed-forward network.
        hidden_act: "gelu" (erf), "gelu_tanh" or "relu"; of a gated feed-forward network "gelu" or "silu".
        max_position_embeddings: rows of the position table, or without one the longest sentence in tokens.
        type_vocab_size: rows of the token type table; 0 for a model that has none.
        layer_norm_eps: added to the variance in every LayerNorm.
        hidden_dropout_prob: dropout on embeddings, attention output and feed-forward output while training.
        attention_probs_dropout_prob: dropout on attention probabilities while training.
        pad_token_id: the id that fills padding in (input_ids, attention_mask) batches.
        position_embedding_type: "absolute" (a table), "rotary" (Su et al. 2021, https://arxiv.org/abs/2104.09864) or
            "alibi" (Press et al. 2022, https://arxiv.org/abs/2108.12409, on both sides).
        initializer_range: standard deviation of freshly initialised weights.
        position_offset: the table's row of a sentence's first token; RoBERTa keeps pad_token_id + 1 rows free.
        embedding_size: width of the embedding tables, projected to H behind their LayerNorm; None for H itself.
        num_hidden_groups: sets of weights that the layers share evenly (ALBERT); None for one set a layer.
        norm_first: LayerNorm before attention and feed-forward instead of after, none before the first attention, and one
            at the end (ModernBERT).
        gated: the feed-forward is down(act(a) * b) with [a, b] = up(x) (Shazeer 2020, https://arxiv.org/abs/2002.05202).
        attention_bias, attention_output_bias, up_bias, down_bias, norm_bias: whether these have biases.
        rope_theta: base of the rotary angles; local_rope_theta: of sliding layers, None for the same.
        rope_ntk_factor: stretches the rotary angles to so many times the trained length (GTE's "ntk" scaling).
        layer_types: "full" or "sliding" for each layer; None for all full.
        sliding_window: keys on either side that a sliding layer's query sees.
        relative_attention_num_buckets: of a learned bias on distances that all layers share (MPNet); 0 for none.
        relative_attention_max_distance: from where on distances share the last bucket.
        intermediate_dropout_prob: dropout inside the feed-forward network while training.
        embedding_dropout_prob: dropout on embeddings while training; None for hidden_dropout_prob.

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
    position_offset: int = 0
    embedding_size: int | None = None
    num_hidden_groups: int | None = None
    norm_first: bool = False
    gated: bool = False
    attention_bias: bool = True
    attention_output_bias: bool = True
    up_bias: bool = True
    down_bias: bool = True
    norm_bias: bool = True
    rope_theta: float = 10_000.0
    local_rope_theta: float | None = None
    rope_ntk_factor: float = 1.0
    layer_types: tuple[str, ...] | None = None
    sliding_window: int | None = None
    relative_attention_num_buckets: int = 0
    relative_attention_max_distance: int = 128
    intermediate_dropout_prob: float = 0.0
    embedding_dropout_prob: float | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE_INTEGERS:
            self._check_integer(name, minimum=1)
        for name in _COUNTS:
            self._check_integer(name, minimum=0)
        for name in _OPTIONAL_INTEGERS:
            if getattr(self, name) is not None:
                self._check_integer(name, minimum=1)
        self._check_numbers()
        if self.hidden_size % self.num_attention_heads:
            raise ArgumentValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}; "
                "every head has hidden_size / num_attention_heads channels, so change one of the two"
            )
        self._check_choice("hidden_act", tuple(GATED_ACTS) if self.gated else HIDDEN_ACTS)
        self._check_choice("position_embedding_type", POSITION_EMBEDDING_TYPES)
        self._check_layers()

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_length(self) -> int:
        """Tokens of the longest sentence."""
        return self.max_position_embeddings - self.position_offset

    @property
    def uncounted_id(self) -> int | None:
        """The id that takes no position of its own: the padding id of models with a position offset, as RoBERTa counts."""
        return self.pad_token_id if self.position_offset else None

    @property
    def activation(self) -> str:
        """What the linear op applies between up and down."""
        return GATED_ACTS[self.hidden_act] if self.gated else self.hidden_act

    @property
    def is_bert(self) -> bool:
        """Whether its layers are BERT's own, whatever its embeddings are."""
        plain = self.position_embedding_type == "absolute" and not self.relative_attention_num_buckets
        return plain and not (self.norm_first or self.gated or self.layer_types) and self.norm_bias

    def group_of(self, layer: int) -> int:
        """Which set of weights a layer uses."""
        groups = self.num_hidden_groups
        return layer if groups is None else layer * groups // self.num_hidden_layers

    def is_sliding(self, layer: int) -> bool:
        """Whether a layer sees only the keys within sliding_window."""
        return self.layer_types is not None and self.layer_types[layer] == "sliding"

    def _check_layers(self) -> None:
        if self.position_embedding_type == "rotary" and self.head_size % 2:
            raise ArgumentValueError(
                f"hidden_size / num_attention_heads is {self.head_size}; accepted with rotary positions: an even number"
            )
        if self.position_offset >= self.max_position_embeddings:
            raise ArgumentValueError(
                f"position_offset is {self.position_offset}; accepted: less than max_position_embeddings, "
                f"{self.max_position_embeddings}"
            )
        if self.num_hidden_groups is not None and self.num_hidden_groups > max(1, self.num_hidden_layers):
            raise ArgumentValueError(
                f"num_hidden_groups is {self.num_hidden_groups}; accepted: at most num_hidden_layers, "
                f"{self.num_hidden_layers}"
            )
        if self.layer_types is None:
            return
        wrong = sorted({str(kind) for kind in self.layer_types if kind not in LAYER_TYPES})
        if wrong or len(self.layer_types) != self.num_hidden_layers:
            raise ArgumentValueError(
                f"layer_types holds {len(self.layer_types)} entries{f', {wrong} among them' if wrong else ''}; accepted: one of "
                f"{', '.join(LAYER_TYPES)} for each of the {self.num_hidden_layers} layers"
            )
        if "sliding" in self.layer_types and self.sliding_window is None:
            raise ArgumentValueError("sliding_window is None beside sliding layers; accepted: a positive integer")

    def _check_numbers(self) -> None:
        absent = {name for name in _OPTIONAL_NUMBERS if getattr(self, name) is None}
        for name in (*_PROBABILITIES, *_POSITIVE_NUMBERS, *_NOT_NEGATIVE):
            if name in absent:
                continue
            self._check_number(name)
            value = getattr(self, name)
            if name in _PROBABILITIES and not 0.0 <= value < 1.0:
                raise ArgumentValueError(f"{name} is {value!r}; accepted is a probability in [0, 1)")
            if name in _POSITIVE_NUMBERS and not 0.0 < value <= sys.float_info.max:
                usual = ", usually 1e-12 to 1e-5" if name == "layer_norm_eps" else ""
                raise ArgumentValueError(f"{name} is {value!r}; accepted is a positive number{usual}")
            if name in _NOT_NEGATIVE and not 0.0 <= value <= sys.float_info.max:
                raise ArgumentValueError(f"{name} is {value!r}; accepted is a number of at least 0")

    def _check_integer(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArgumentTypeError(f"{name} is {value!r} of type {type(value).__name__}; an integer is accepted")
        if value < minimum:
            raise ArgumentValueError(f"{name} is {value}; accepted is an integer of at least {minimum}")
        if value > (largest := _LARGEST.get(name, _LARGEST_INTEGER)):
            raise ArgumentValueError(f"{name} is {value}; accepted is an integer of at most {largest}")

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ArgumentTypeError(f"{name} is {value!r} of type {type(value).__name__}; a number is accepted")

    def _check_choice(self, name: str, accepted: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in accepted:
            raise ArgumentValueError(
                f"{name} is {value!r}; accepted: {', '.join(accepted)}. "
                "A model trained with another one would give wrong features, so it is refused"
            )
