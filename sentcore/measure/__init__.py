"""How fast a model is on this machine, by each way of computing it, and whether all ways give the same features."""

from sentcore.measure.machine import cpu, machine
from sentcore.measure.methods import LeftOut, Method, load_methods
from sentcore.measure.report import Report
from sentcore.measure.texts import LOOKED_AT, chosen_texts, sample_texts, tokens_of
from sentcore.measure.timing import LEAST_COSINES, Measurement

__all__ = [
    "LEAST_COSINES",
    "LOOKED_AT",
    "LeftOut",
    "Measurement",
    "Method",
    "Report",
    "chosen_texts",
    "cpu",
    "load_methods",
    "machine",
    "sample_texts",
    "tokens_of",
]
