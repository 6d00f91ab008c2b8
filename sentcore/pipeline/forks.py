"""Processes forked from one that has computed."""

from __future__ import annotations

import os

import torch


def _alone() -> None:
    torch.set_num_threads(1)


# A fork has none of the threads that OpenMP believes it has, and would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)
