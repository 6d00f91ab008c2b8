"""What a model computes on its way from a text to its feature, and which tokens carry the similarity of two texts."""

from sentcore.explain.attribution import METHODS, Attribution, attribution
from sentcore.explain.data import EmbeddingTrace, LayerTrace, NormTrace, Trace
from sentcore.explain.payload import SHOWN, chosen_head
from sentcore.explain.report import html_report
from sentcore.explain.trace import trace

__all__ = [
    "METHODS",
    "SHOWN",
    "Attribution",
    "EmbeddingTrace",
    "LayerTrace",
    "NormTrace",
    "Trace",
    "attribution",
    "chosen_head",
    "html_report",
    "trace",
]
