"""Token ids to the first hidden state: gather, add and LayerNorm in one pass."""

from __future__ import annotations

import torch

from sentcore.errors import ArgumentTypeError, ArgumentValueError
from sentcore.ops.autocast import autocast_to
from sentcore.ops.checks import check_device, check_input, check_parameter, check_shape, needs_grad
from sentcore.ops.embedding_layer_norm import register  # noqa: F401  declares sentcore::embedding_layer_norm


@autocast_to("given")
def embedding_layer_norm(
    token_ids: torch.Tensor,
    position_ids: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    word: torch.Tensor,
    position: torch.Tensor | None,
    token_type: torch.Tensor | None,
    weight: torch.Tensor,
    norm_bias: torch.Tensor | None,
    *,
    eps: float,
) -> torch.Tensor:
    """LayerNorm(word[token_ids] + token_type[token_type_ids] + position[position_ids]).

    Args:
        token_ids: [T] int64.
        position_ids: [T] int64, with position; None for neither.
        token_type_ids: [T] int64, with token_type; None for neither.
        word: [V, H] float32, bfloat16, float16 or float64.
        position: [P, H], word's dtype, or None.
        token_type: [Y, H], word's dtype, or None.
        weight: [H], word's dtype, or float32 beside a half-precision one: LayerNorm's scale.
        norm_bias: [H], weight's dtype, or None: LayerNorm's shift.
        eps: added to the variance.

    Returns:
        [T, H] in word's dtype. On a GPU an id outside its table gives a row of NaN: looking would wait for the device.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy; on CPUs also an id outside
        its table.

    Source: Devlin et al. 2018, section 3.2 (https://arxiv.org/abs/1810.04805). The definition is reference.py.
    """
    check_input("word", word, ("V", "H"))
    _check_ids("token_ids", token_ids, "word", word, word)
    if token_ids is None:
        raise ArgumentTypeError("token_ids is None; accepted: [T] int64. Pass the ids")
    for ids_name, ids, name, table in (
        ("position_ids", position_ids, "position", position),
        ("token_type_ids", token_type_ids, "token_type", token_type),
    ):
        if (ids is None) != (table is None):
            given, missing = (ids_name, name) if table is None else (name, ids_name)
            raise ArgumentTypeError(f"{given} is given and {missing} is None; accepted: both, or neither. Pass both")
        if table is not None:
            check_parameter(name, table, ("rows", word.shape[1]), word)
            _check_ids(ids_name, ids, name, table, word)
            check_shape(ids_name, ids, (token_ids.shape[0],))
    check_parameter("weight", weight, (word.shape[1],), word, float32_too=True)
    check_parameter("norm_bias", norm_bias, (word.shape[1],), weight, optional=True)
    save = needs_grad(word, position, token_type, weight, norm_bias)
    return torch.ops.sentcore.embedding_layer_norm.default(
        token_ids, position_ids, token_type_ids, word, position, token_type, weight, norm_bias, eps, save
    )[0]


def _check_ids(name: str, ids: torch.Tensor | None, table_name: str, table: torch.Tensor, like: torch.Tensor) -> None:
    if not isinstance(ids, torch.Tensor) or ids.dtype != torch.int64:
        found = getattr(ids, "dtype", type(ids).__name__)
        raise ArgumentTypeError(f"{name} is of {found}; accepted: an int64 tensor [T]. Convert it, e.g. {name}.long()")
    check_shape(name, ids, ("T",))
    check_device(name, ids, like)
    if ids.is_cpu and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(value) for value in torch.aminmax(ids))
        if low < 0 or high >= table.shape[0]:
            raise ArgumentValueError(
                f"{name} holds {low if low < 0 else high}; accepted: 0 to {table.shape[0] - 1}, the rows of {table_name}. The "
                "ids come from another model's tokenizer"
            )
