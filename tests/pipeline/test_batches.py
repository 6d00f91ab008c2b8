"""How many tokens are computed at once where nobody says so."""

import pytest
import torch

from sentcore import EncoderConfig
from sentcore.pipeline.batches import CPU_BATCH_TOKENS, check_batch_tokens, default_batch_tokens

CPU = torch.device("cpu")
FEWEST, MOST = CPU_BATCH_TOKENS


def config(layers, hidden):
    return EncoderConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 32, intermediate_size=4 * hidden
    )


@pytest.mark.parametrize(("layers", "hidden"), [(2, 32), (6, 384), (12, 384), (12, 768), (24, 1024)])
def test_a_batch_on_a_cpu_is_about_as_much_work_for_every_model(layers, hidden):
    tokens = default_batch_tokens(CPU, config(layers, hidden))
    work = tokens * 12 * hidden**2 * layers
    assert FEWEST <= tokens <= MOST
    assert work <= 2**37 or tokens == FEWEST
    assert work > 2**36 or tokens == MOST


def test_what_is_asked_for_counts():
    assert check_batch_tokens(100, CPU, config(6, 384)) == 100
    assert check_batch_tokens(None, CPU, config(24, 1024)) == FEWEST
    assert default_batch_tokens(torch.device("cuda"), config(24, 1024)) == 32_768
