"""The build backend: setuptools, asking for torch only when this machine will compile against one that it lacks."""

from __future__ import annotations

from setuptools import build_meta as _setuptools
from setuptools.build_meta import *  # noqa: F403

from build_support.errors import BuildError
from build_support.native import parallel_jobs
from build_support.plan import decide
from build_support.stage import OLDEST_TORCH, find_torch


def _requirements() -> list[str]:
    try:
        plan = decide()
        parallel_jobs()
    except BuildError as error:
        raise SystemExit(f"sentcore: {error}") from None
    if plan.kind == "none":
        return []
    needed = ["pybind11>=2.12", "ninja", "cmake>=3.24"]
    return needed if find_torch() else [*needed, f"torch>={'.'.join(map(str, OLDEST_TORCH))}"]


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    # First, so that a build which cannot be done says so before setuptools prints its pages.
    ours = _requirements()
    return [*_setuptools.get_requires_for_build_wheel(config_settings), *ours]


def get_requires_for_build_editable(config_settings=None) -> list[str]:
    ours = _requirements()
    return [*_setuptools.get_requires_for_build_editable(config_settings), *ours]
