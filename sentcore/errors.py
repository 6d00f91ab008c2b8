"""The errors sentcore raises.

Each is also the built-in kind a caller would catch, and each message names the argument, the value found, what is
accepted and the remedy.
"""

from __future__ import annotations


class SentcoreError(Exception):
    """Base of every error raised by sentcore."""


class ArgumentTypeError(SentcoreError, TypeError):
    """An argument has a type (or a tensor a dtype) that is not accepted."""


class ArgumentValueError(SentcoreError, ValueError):
    """An argument has the right type but a value (or a tensor a shape or device) that is not accepted."""


class CheckpointError(SentcoreError, ValueError):
    """A model folder holds something that is damaged, contradictory or not supported."""


class MissingFileError(SentcoreError, FileNotFoundError):
    """A file or folder that is needed is not there."""


class BackendError(SentcoreError, RuntimeError):
    """A backend was asked for that this installation or machine cannot give."""


class MissingPackageError(SentcoreError, ImportError):
    """An optional package is needed for what was asked and is not installed."""


class WorkerError(SentcoreError, RuntimeError):
    """A worker process failed, and so would another in its place."""


class TruncationWarning(UserWarning):
    """Texts were cut at the model's maximum length; what lies behind has no part in their features."""


class NonFiniteError(SentcoreError, ArithmeticError):
    """A weight or a result is NaN or infinite."""
