"""What the examples' command lines share."""

from __future__ import annotations

import argparse
from pathlib import Path


def existing_file(name: str) -> Path:
    """The path of a file that is there."""
    path = Path(name)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}; check the path")
    return path
