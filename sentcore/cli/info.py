"""What is compiled in, which devices are seen, and what every op runs on here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `sentcore info`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints it; always 0."""
    from sentcore import _kernels
    from sentcore._extension import build_info

    found = build_info()
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(found, _kernels.chosen(), len(_kernels.rows()))))
    return 0


def _lines(found: dict[str, Any], mode: str, measured: int) -> Iterator[str]:
    extension = found["extension"]
    yield f"sentcore {found['version']}, torch {found['torch']}"
    if not extension["built"]:
        yield f"extension: absent: {extension['why_absent']}"
    else:
        parts = [f"CPU kernels ({extension['cpu_isa']})"] if extension["cpu"] else []
        if extension["cuda"]:
            parts.append(f"CUDA kernels (toolkit {extension['cuda_toolkit']}: {', '.join(extension['archs'])})")
        yield f"extension: {' and '.join(parts) or 'no kernels'}"
        if extension["sm_90a"]:
            when = {
                "measured": f"in {measured} measured cases",
                "portable": "nowhere",
                "sm_90a": "wherever they can run",
            }
            yield f"  kernels of compute capability 9.0's own are taken {when[mode]} (SENTCORE_KERNELS={mode})"
        yield f"  file: {extension['file']}"
        yield f"  compiler: {extension['compiler']}, for torch {extension['torch_target']} and later"
    if extension["why_not_more"]:
        yield f"  why not more: {extension['why_not_more']}"
    for device in found["devices"]:
        major, minor = device["capability"]
        runs = "native kernels" if device["runs_native"] else f"plain PyTorch: {device['why_not']}"
        yield f"{device['device']}: {device['name']} (compute capability {major}.{minor}), {runs}"
    if not found["devices"]:
        yield "no CUDA device is seen"
    yield "ops:"
    width = max(map(len, found["ops"]), default=0)
    for op, kinds in found["ops"].items():
        cells = "   ".join(f"{kind}: {entry['runs']:<13}" for kind, entry in kinds.items())
        yield f"  {op:<{width}}   {cells}".rstrip()
    yield from _reasons(found["ops"])


def _reasons(ops: dict[str, Any]) -> Iterator[str]:
    """Every reason once, with the ops it holds for."""
    holds: dict[str, list[str]] = {}
    for op, kinds in ops.items():
        for kind, entry in kinds.items():
            if entry["why_not_native"]:
                holds.setdefault(entry["why_not_native"], []).append(f"{op} ({kind})")
    if holds:
        yield "why no native kernel:"
    for reason, where in holds.items():
        yield f"  {', '.join(where)}: {reason}"
