"""What turns token features into sentence features."""

from sentcore.outputs.classification import ClassificationHead
from sentcore.outputs.colbert import Colbert
from sentcore.outputs.dense import Dense
from sentcore.outputs.layer_pooling import hidden_states_needed
from sentcore.outputs.normalize import Normalize, unit_rows
from sentcore.outputs.pooling import Pooling
from sentcore.outputs.quantize import PRECISIONS, calibration_ranges, check_precision, check_ranges, quantize
from sentcore.outputs.rows import RowForm, is_pooling_alone, opened
from sentcore.outputs.sparse import SparseLinear, SparseRows
from sentcore.outputs.specs import (
    ClassificationHeadSpec,
    DenseSpec,
    Heads,
    LinearSpec,
    NormalizeSpec,
    OutputSpec,
    PoolingSpec,
    SpladeSpec,
)
from sentcore.outputs.splade import Splade

__all__ = [
    "PRECISIONS",
    "ClassificationHead",
    "ClassificationHeadSpec",
    "Colbert",
    "Dense",
    "DenseSpec",
    "Heads",
    "LinearSpec",
    "Normalize",
    "NormalizeSpec",
    "OutputSpec",
    "Pooling",
    "PoolingSpec",
    "RowForm",
    "SparseLinear",
    "SparseRows",
    "Splade",
    "SpladeSpec",
    "calibration_ranges",
    "check_precision",
    "check_ranges",
    "hidden_states_needed",
    "is_pooling_alone",
    "opened",
    "quantize",
    "unit_rows",
]
