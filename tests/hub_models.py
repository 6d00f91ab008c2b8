"""Checkpoints as Nomic, Alibaba-NLP and Jina publish them, random, each with its model in plain padded PyTorch.

Written from the papers (https://arxiv.org/abs/2402.01613, 2407.19669, 2310.19923) and the names in their files. transformers
builds none of them as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
LAYERS, VOCAB = 3, 100


@dataclass
class HubModel:
    """config.json, tensors by their published names, and hidden states [B, S, H] of every layer by `forward(ids, mask)`."""

    config: dict
    tensors: Tensors
    forward: Callable[[torch.Tensor, torch.Tensor], list[torch.Tensor]]

    def save(self, folder: Path, prefix: str = "", rename: Callable[[str], str] = str) -> Path:
        """The folder, every tensor's name with a prefix and changed by `rename`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        named = {prefix + rename(name): value.contiguous() for name, value in self.tensors.items()}
        save_file(named, folder / "model.safetensors", {"format": "pt"})
        return folder


def nomic(heads: int = 4, head_size: int = 16, inner: int = 96, biases: bool = False, base: float = 1000.0) -> HubModel:
    """nomic-ai's own form: LayerNorm behind the residual, rotary positions, fc2(fc11(x) * silu(fc12(x)))."""
    width = heads * head_size
    config = {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "n_embd": width,
        "n_head": heads,
        "n_layer": LAYERS,
        "n_inner": inner,
        "n_positions": 512,
        "vocab_size": VOCAB,
        "type_vocab_size": 2,
        "layer_norm_epsilon": 1e-4,
        "activation_function": "swiglu",
        "rotary_emb_base": base,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "qkv_proj_bias": biases,
        "mlp_fc1_bias": biases,
        "mlp_fc2_bias": biases,
        "prenorm": False,
        "causal": False,
        "parallel_block": False,
        "use_rms_norm": False,
        "max_trained_positions": 2048,
        "pad_vocab_size_multiple": 4,
        "scale_attn_weights": True,
    }
    t = _table("embeddings.word_embeddings", VOCAB, width) | _table("embeddings.token_type_embeddings", 2, width)
    t |= _norm("emb_ln", width)
    for layer in range(LAYERS):
        at = f"encoder.layers.{layer}."
        t |= _linear(at + "attn.Wqkv", 3 * width, width, biases) | _linear(at + "attn.out_proj", width, width, biases)
        t |= _linear(at + "mlp.fc11", inner, width, biases) | _linear(at + "mlp.fc12", inner, width, biases)
        t |= _linear(at + "mlp.fc2", width, inner, biases) | _norm(at + "norm1", width) | _norm(at + "norm2", width)

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        x = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.token_type_embeddings.weight"][0]
        states = [_normed(x, t, "emb_ln", 1e-4)]
        frequencies = [base ** (-2 * i / head_size) for i in range(head_size // 2)]
        for layer in range(LAYERS):
            at, x = f"encoder.layers.{layer}.", states[-1]
            # three * heads * head_size rows
            q, k, v = _apply(x, t, at + "attn.Wqkv").unflatten(-1, (3, heads, head_size)).unbind(2)
            q, k = _rotated(q, frequencies), _rotated(k, frequencies)
            x = _normed(x + _apply(_attended(q, k, v, mask), t, at + "attn.out_proj"), t, at + "norm1", 1e-4)
            gate = _apply(x, t, at + "mlp.fc12")
            inner_state = _apply(x, t, at + "mlp.fc11") * (gate * torch.sigmoid(gate))
            states.append(_normed(x + _apply(inner_state, t, at + "mlp.fc2"), t, at + "norm2", 1e-4))
        return states

    return HubModel(config, t, forward)


def new(heads: int = 4, head_size: int = 16, inner: int = 96, types: int = 1, factor: float | None = 2.0) -> HubModel:
    """Alibaba-NLP's "new": [up, gate] = up_gate_proj(x), down_proj(gelu(gate) * up), NTK-scaled rotary positions."""
    width, theta = heads * head_size, 160_000.0
    config = {
        "model_type": "new",
        "architectures": ["NewModel"],
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": LAYERS,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "vocab_size": VOCAB,
        "type_vocab_size": types,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-4,
        "layer_norm_type": "layer_norm",
        "position_embedding_type": "rope",
        "rope_theta": theta,
        "rope_scaling": None if factor is None else {"factor": factor, "type": "ntk"},
        "logn_attention_scale": False,
        "logn_attention_clip1": False,
        "pack_qkv": True,
        "unpad_inputs": False,
        "use_memory_efficient_attention": False,
    }
    t = _table("embeddings.word_embeddings", VOCAB, width) | _norm("embeddings.LayerNorm", width)
    if types:
        t |= _table("embeddings.token_type_embeddings", types, width)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        t |= _linear(at + "attention.qkv_proj", 3 * width, width) | _linear(at + "attention.o_proj", width, width)
        t |= _linear(at + "mlp.up_gate_proj", 2 * inner, width, False) | _linear(at + "mlp.down_proj", width, inner)
        t |= _norm(at + "attn_ln", width) | _norm(at + "mlp_ln", width)

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        x = t["embeddings.word_embeddings.weight"][ids]
        if types:
            x = x + t["embeddings.token_type_embeddings.weight"][0]
        states = [_normed(x, t, "embeddings.LayerNorm", 1e-4)]
        scale = 1.0 if factor is None else factor
        frequencies = [
            (theta * scale) ** (-2 * i / head_size) / scale ** (2 / head_size) for i in range(head_size // 2)
        ]
        for layer in range(LAYERS):
            at, x = f"encoder.layer.{layer}.", states[-1]
            q, k, v = (
                part.unflatten(-1, (heads, head_size))
                for part in _apply(x, t, at + "attention.qkv_proj").split(width, dim=-1)
            )
            q, k = _rotated(q, frequencies), _rotated(k, frequencies)
            x = _normed(x + _apply(_attended(q, k, v, mask), t, at + "attention.o_proj"), t, at + "attn_ln", 1e-4)
            up, gate = _apply(x, t, at + "mlp.up_gate_proj").split(inner, dim=-1)
            states.append(_normed(x + _apply(_gelu(gate) * up, t, at + "mlp.down_proj"), t, at + "mlp_ln", 1e-4))
        return states

    return HubModel(config, t, forward)


def jina(heads: int = 4, head_size: int = 16, inner: int = 96) -> HubModel:
    """jina-bert-v2: no positions but -slope * |i - j| on the scores, wo(gelu(first half) * second half)."""
    width = heads * head_size
    config = {
        "model_type": "bert",
        "architectures": ["JinaBertForMaskedLM"],
        "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": LAYERS,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "feed_forward_type": "geglu",
        "emb_pooler": "mean",
        "vocab_size": VOCAB,
        "type_vocab_size": 2,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-4,
        "position_embedding_type": "alibi",
    }
    t = _table("embeddings.word_embeddings", VOCAB, width) | _table("embeddings.token_type_embeddings", 2, width)
    t |= _norm("embeddings.LayerNorm", width)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            t |= _linear(f"{at}attention.{name}", width, width)
        t |= _linear(at + "mlp.gated_layers", 2 * inner, width, False) | _linear(at + "mlp.wo", width, inner)
        t |= _norm(at + "attention.output.LayerNorm", width) | _norm(at + "mlp.layernorm", width)
    t |= _linear("pooler.dense", width, width)

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        x = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.token_type_embeddings.weight"][0]
        states = [_normed(x, t, "embeddings.LayerNorm", 1e-4)]
        places = torch.arange(ids.shape[1])
        bias = -torch.tensor(slopes(heads))[:, None, None] * (places[:, None] - places).abs()
        for layer in range(LAYERS):
            at, x = f"encoder.layer.{layer}.", states[-1]
            q, k, v = (
                _apply(x, t, f"{at}attention.self.{name}").unflatten(-1, (heads, head_size))
                for name in ("query", "key", "value")
            )
            attended = _apply(_attended(q, k, v, mask, bias), t, at + "attention.output.dense")
            x = _normed(x + attended, t, at + "attention.output.LayerNorm", 1e-4)
            both = _apply(x, t, at + "mlp.gated_layers")
            out = _apply(_gelu(both[..., :inner]) * both[..., inner:], t, at + "mlp.wo")
            states.append(_normed(x + out, t, at + "mlp.layernorm", 1e-4))
        return states

    return HubModel(config, t, forward)


def slopes(heads: int) -> list[float]:
    """ALiBi's: geometric from 2^(-8/n) for n = 2^k heads; the rest from the odd places of 2n's."""
    closest = 1
    while 2 * closest <= heads:
        closest *= 2
    found = [math.pow(2.0, -8.0 * place / closest) for place in range(1, closest + 1)]
    return found + [math.pow(2.0, -8.0 * (2 * extra + 1) / (2 * closest)) for extra in range(heads - closest)]


def _attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """[B, S, N, D] each, keys where mask [B, S] is not zero, bias [N, S, S] -> [B, S, N D]."""
    scores = torch.einsum("bqnd,bknd->bnqk", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    scores = scores.masked_fill(mask[:, None, None, :] == 0, -torch.inf)
    return torch.einsum("bnqk,bknd->bqnd", scores.softmax(dim=-1), v).flatten(2)


def _rotated(x: torch.Tensor, frequencies: list[float]) -> torch.Tensor:
    """[B, S, N, D], pair i of channels (i, i + D/2) turned by position * frequency i, as complex numbers."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None, :]
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * turn
    return torch.cat((turned.real, turned.imag), dim=-1).float()


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def _apply(x: torch.Tensor, t: Tensors, name: str) -> torch.Tensor:
    return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))


def _normed(x: torch.Tensor, t: Tensors, name: str, eps: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps)


def _table(name: str, rows: int, width: int) -> Tensors:
    return {f"{name}.weight": 0.7 * torch.randn(rows, width)}


def _linear(name: str, out: int, into: int, bias: bool = True) -> Tensors:
    weight = {f"{name}.weight": 1.2 / into**0.5 * torch.randn(out, into)}
    return weight | {f"{name}.bias": 0.2 * torch.randn(out)} if bias else weight


def _norm(name: str, width: int) -> Tensors:
    return {f"{name}.weight": 1.0 + 0.2 * torch.randn(width), f"{name}.bias": 0.2 * torch.randn(width)}
