"""Translate: an encoder-decoder of transformers whose attention is sentcore's, trained from a random start on parallel text.

    python examples/translate.py --data pairs.tsv --out my-translator "I like this book."

A line of the file is a text and its translation, parted by a tab. The model is transformers' Marian, small and untrained, with a
tokenizer trained on the file. Its self-attention runs on `sentcore.ops.varlen_attention` (causal in the decoder) and its cross
attention on `varlen_cross_attention`, on real tokens alone; the first batch is compared with transformers' own attention. Enough
to see that it learns what it is shown: a few hundred pairs teach no language. Needs the extra `[train]`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import torch
from arguments import existing_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

from sentcore.ops import varlen_attention, varlen_cross_attention

SAMPLE = Path(__file__).parent / "data" / "parallel.tsv"
CJK = "\u3000-\u303f\u3400-\u9fff\uff00-\uffef"


def cu_seqlens(lengths: torch.Tensor) -> torch.Tensor:
    """[B] -> [B+1] int32, where each sentence begins among the packed tokens."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()


def packed_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    """What transformers calls: query [B, N, Sq, D], key and value [B, N, Sk, D], mask [B, Sk] or None -> [B, Sq, N, D]."""
    query, kv = query.transpose(1, 2), torch.stack([key, value], dim=1).permute(0, 3, 1, 2, 4)  # [B, Sk, 2, N, D]
    batch, asked = query.shape[:2]
    real = kv.new_ones(kv.shape[:2]).bool() if attention_mask is None else attention_mask.bool()
    lengths, options = real.sum(dim=1), {"scale": scaling, "causal": module.is_causal, "dropout_p": dropout}
    crosses = module.is_decoder and not module.is_causal
    if crosses or asked != kv.shape[1]:  # from decoder to encoder, or one new token to those before it
        every = torch.full_like(lengths, asked)
        out = varlen_cross_attention(
            query.flatten(0, 1), kv[real], cu_seqlens(every), cu_seqlens(lengths), asked, int(lengths.max()), **options
        )
        return out.unflatten(0, (batch, asked)), None
    qkv = torch.cat([query[:, :, None], kv], dim=2)[real]  # [T, 3, N, D]
    out = varlen_attention(qkv, cu_seqlens(lengths), int(lengths.max()), **options)
    padded = torch.zeros_like(query)
    padded[real] = out
    return padded, None


AttentionInterface.register("sentcore", packed_attention)
# The mask as it is given, [B, Sk]; that the decoder is causal, attention knows by itself.
AttentionMaskInterface.register("sentcore", lambda attention_mask=None, **_: attention_mask)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(text, translation) of every line; an error names the line."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            parts = [part.strip() for part in line.split("\t")]
            if len(parts) != 2 or not all(parts):
                sys.exit(f"{path}, line {number}: {len(parts)} columns; accepted: a text, a tab, its translation")
            pairs.append((parts[0], parts[1]))
    if len(pairs) < 2:
        sys.exit(f"{path}: {len(pairs)} pairs; accepted: at least 2")
    return pairs


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Word pieces of both languages; a Chinese character is a word."""
    rust = Tokenizer(models.WordPiece(unk_token="<unk>"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece()
    special = ["<pad>", "</s>", "<unk>"]
    rust.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    rust.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def tensors(tokenizer, pairs: list[tuple[str, str]], device) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels (-100 at padding), [B, S]."""
    source = tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt")
    target = tokenizer([text for _, text in pairs], padding=True, return_tensors="pt")
    labels = target.input_ids.masked_fill(target.attention_mask == 0, -100)
    given = {"input_ids": source.input_ids, "attention_mask": source.attention_mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in given.items()}


@torch.inference_mode()
def translate(model, tokenizer, texts: list[str]) -> list[str]:
    """Greedy translations; the spaces around Chinese characters are taken out."""
    model.eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    ids = model.generate(batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=60, num_beams=1)
    return [joined(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def joined(text: str) -> str:
    return re.sub(rf"(?<=[{CJK}]) | (?=[{CJK}])", "", text)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="*", help="texts to translate in the end")
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help="a text, a tab, its translation a line")
    parser.add_argument("--out", type=Path, default=Path("translator"), help="folder to save (transformers)")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the pairs that is kept aside")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2, help="of the encoder, and of the decoder")
    parser.add_argument("--vocab-size", type=int, default=2000, help="word pieces, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    torch.manual_seed(options.seed)
    pairs = read_pairs(options.data)
    order = torch.randperm(len(pairs)).tolist()
    kept = max(1, round(options.held_out * len(pairs)))
    test, train = [pairs[place] for place in order[:kept]], [pairs[place] for place in order[kept:]]
    tokenizer = train_tokenizer([text for pair in train for text in pair], options.vocab_size)
    config = MarianConfig(
        vocab_size=len(tokenizer), d_model=options.hidden_size, encoder_layers=options.layers, decoder_layers=options.layers,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=2 * options.hidden_size,
        decoder_ffn_dim=2 * options.hidden_size, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        forced_eos_token_id=None, dropout=0.0, max_position_embeddings=256, scale_embedding=True,
    )  # fmt: skip
    model = MarianMTModel(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).eval()

    batch = tensors(tokenizer, train[: options.batch_size], device)
    with torch.inference_mode():
        own = model(**batch).logits
        model.set_attn_implementation("sentcore")
        difference = (model(**batch).logits - own)[batch["labels"] != -100].abs().max().item()
        unseen = tensors(tokenizer, test, device)
        loss_before = model(**unseen).loss.item()
    print(f"largest difference to transformers' own attention: {difference:.1e}")

    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    warmup = max(1, options.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (options.steps - step) / max(1, options.steps - warmup))
    )
    model.train()
    losses = []
    bar = tqdm(range(options.steps), desc="train")
    for _ in bar:
        drawn = [train[place] for place in torch.randperm(len(train))[: options.batch_size].tolist()]
        loss = model(**tensors(tokenizer, drawn, device)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{loss.item():.3f}")

    found = translate(model, tokenizer, [text for text, _ in train])
    wanted = [joined(tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)) for _, text in train]
    exact = sum(a == b for a, b in zip(found, wanted, strict=True))
    with torch.inference_mode():
        loss_after = model(**unseen).loss.item()
    print(f"{len(train)} pairs to train on: loss {losses[0]:.3f} to {losses[-1]:.3f}, {exact} translated exactly")
    print(f"{len(test)} pairs kept aside: loss {loss_before:.3f} to {loss_after:.3f}; two of them:")
    shown = [text for text, _ in test[:2]] + options.text
    for text, translation in zip(shown, translate(model, tokenizer, shown), strict=True):
        print(f"  {text}  {translation}")
    model.set_attn_implementation("eager")  # the folder must load where this file is not
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"saved {options.out}")
    return {"first_loss": losses[0], "last_loss": losses[-1], "exact": exact / len(train), "difference": difference}


if __name__ == "__main__":
    main()
