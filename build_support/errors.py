"""What can go wrong in a build: each is a sentence for the person who runs it, not a traceback."""

from __future__ import annotations


class BuildError(Exception):
    """The build that was asked for cannot be done; the message names what is missing and the remedy."""


class Unusable(Exception):
    """A compiler is absent or does not work here, so less is built; the message says which and why."""
