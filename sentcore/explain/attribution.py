"""attribution: which pairs of tokens carry the cosine similarity of two texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sentcore.errors import ArgumentValueError
from sentcore.explain.exact import exact_parts, is_linear, spreads
from sentcore.explain.integrated import integrated_parts
from sentcore.explain.passes import prepare
from sentcore.pipeline import evaluating, progress_bar
from sentcore.sentence_encoder import SentenceEncoder

METHODS = ("auto", "exact", "integrated_gradients")


@dataclass(frozen=True)
class Attribution:
    """The cosine of two features as a sum over pairs of tokens; Ta and Tb tokens.

    Attributes:
        method: "exact" or "integrated_gradients".
        labels: tokens of both texts, as a reader would write them.
        score: the cosine of what `encode` gives for the texts.
        matrix: [Ta, Tb] float32, what pairs of tokens add to the score.
        shared: what of the score belongs to no token and was spread evenly over those of the first text, and of the second: of
            integrated gradients the baseline's feature, of the exact method the bias of a Dense stage, 0 without one.
        delta: what the matrix adds up to, less the score.
    """

    method: str
    labels: tuple[list[str], list[str]]
    score: float
    matrix: torch.Tensor
    shared: tuple[float, float]
    delta: float

    @property
    def token_sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """[Ta] and [Tb]: what every token of one text adds to the score, together with all of the other text."""
        return self.matrix.sum(dim=1), self.matrix.sum(dim=0)


def attribution(
    model: SentenceEncoder,
    first: str,
    second: str,
    *,
    method: str = "auto",
    prompt_name: str | None = None,
    prompt: str | None = None,
    show_progress_bar: bool | None = None,
) -> Attribution:
    """Splits the cosine similarity of two texts over the pairs of their tokens.

    The features before their scaling to length 1 are sums of one part a token, g = Σ_i G_i, and so the score is the sum of
    G_i · G'_j / (|g| |g'|). The methods differ in these parts:

    "exact": G_i is the row of the last hidden state times its weight in the pooling. Exact for every pooling, where only linear
    stages follow it; but these rows have read the whole text, and of a model that pools one token all is that token's.

    "integrated_gradients": G_i is the gradient along token i's embedding, integrated on the straight line from a baseline, the
    text with every token but the special ones replaced by padding (Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365;
    for pairs Moeller et al. 2023, https://arxiv.org/abs/2310.05703), so that it goes back to the tokens themselves; the
    baseline's own feature is spread evenly over them. Directional derivatives are central differences; the steps are doubled, to
    160 at most, until the parts add up to the feature within 2 parts in 1000. `delta` says what is missing.

    Args:
        model: of any dtype for "exact"; of float32 or float64 for integrated gradients.
        first, second: the texts; each cut at max_seq_length with a TruncationWarning.
        method: "auto" takes "exact" where the pooling is a mean of all tokens' rows and only linear stages follow.
        prompt_name, prompt: as in `SentenceEncoder.encode`, for both texts.
        show_progress_bar: None shows one of integrated gradients on a terminal, in copies of the texts computed.

    Raises:
        ArgumentTypeError, ArgumentValueError: by argument, value found, what is accepted, remedy.
    """
    if method not in METHODS:
        raise ArgumentValueError(f"method is {method!r}; accepted: {', '.join(METHODS)}")
    texts = [prepare(model, text, name, prompt_name, prompt) for text, name in ((first, "first"), (second, "second"))]
    stages = model.model.outputs
    if not len(stages):
        raise ArgumentValueError(
            "model has no pooling, so its texts have no features to compare; accepted: a folder with pooling, or pooling='mean'"
        )
    if method == "exact" and not is_linear(stages):
        raise ArgumentValueError(
            "method is 'exact', but a stage behind the pooling is not linear; accepted for this model: 'integrated_gradients'"
        )
    if method == "auto":
        method = "exact" if is_linear(stages) and spreads(stages) else "integrated_gradients"
    if method == "integrated_gradients" and model.dtype not in (torch.float32, torch.float64):
        raise ArgumentValueError(
            f"method is 'integrated_gradients' with a model in {model.dtype}, whose roundings drown small differences; accepted: "
            "float32. Load it with dtype='float32', or use method='exact'"
        )
    with torch.no_grad(), evaluating(model, model.model):
        if method == "exact":
            split = [exact_parts(model, text) for text in texts]
        else:
            with progress_bar(None, show_progress_bar) as bar:
                split = [integrated_parts(model, text, bar.advance) for text in texts]
        features = [model.model.sentence_embedding(text.batch, text.prompt_length) for text in texts]
    features = [text.options.finish(rows)[0].double().cpu() for text, rows in zip(texts, features, strict=True)]
    score = float(torch.cosine_similarity(features[0], features[1], dim=0))
    keep = texts[0].options.truncate_dim
    parts, rests = zip(*(_unit(*each, keep) for each in split), strict=True)
    wholes = [each.sum(dim=0) for each in parts]
    matrix = parts[0] @ parts[1].T
    ids = [text.batch.token_ids.tolist() for text in texts]
    return Attribution(
        method=method,
        labels=(model.tokenizer.labels(ids[0]), model.tokenizer.labels(ids[1])),
        score=score,
        matrix=matrix.float(),
        shared=(float(rests[0] @ wholes[1]), float(rests[1] @ wholes[0])),
        delta=float(matrix.sum()) - score,
    )


def _unit(parts: torch.Tensor, rest: torch.Tensor, keep: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """([T, E'], [E']): the first columns of a feature of length 1, its rest spread over the tokens that have a part."""
    parts, rest = parts[:, :keep], rest[:keep]
    own = parts.abs().sum(dim=1) > 0
    if not bool(own.any()):  # a text that is its own baseline
        own = torch.ones_like(own)
    parts = parts + own[:, None] * rest / own.sum()
    length = parts.sum(dim=0).norm().clamp(min=1e-12)
    return parts / length, rest / length
