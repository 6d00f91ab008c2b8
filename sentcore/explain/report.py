"""A trace, and perhaps an attribution, as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from sentcore.explain.attribution import Attribution
from sentcore.explain.data import Trace
from sentcore.explain.payload import payload

_SCRIPTS = ("bytes.js", "colour.js", "elements.js", "heat.js", "panels.js", "attention.js", "similarity.js", "main.js")


def html_report(
    traces: Sequence[Trace],
    attribution: Attribution | None = None,
    *,
    model_name: str = "",
    layer: int | None = None,
    head: int | None = None,
) -> str:
    """The page, UTF-8 text.

    It loads nothing: style, script and data stand in it, and its Content-Security-Policy lets this one script run alone. What
    came from a text is data in it, never markup.

    Args:
        traces: of one text, or of two.
        attribution: of these two texts.
        model_name: what the page calls the model.
        layer, head: what is shown large at first; None for the last layer's first head.

    Raises:
        ArgumentValueError: no trace or more than two; a layer or head that the model does not have.
        NonFiniteError: a trace holds NaN or an infinity.
    """
    found = payload(traces, attribution, model_name, layer, head)
    data = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    script = "(() => {\n'use strict';\n" + "\n".join(map(_read, _SCRIPTS)) + "\n})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    # "<" would let a text close the script element it lies in.
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    parts = {
        "TITLE": escape(_title(traces)),
        "STYLE": _read("report.css"),
        "DIGEST": digest,
        "SCRIPT": script,
        "DATA": data,
    }
    # In one go, so that a text that holds such a mark stays as it is.
    return re.sub("@@([A-Z]+)@@", lambda mark: parts[mark[1]], _read("report.html"))


def _title(traces: Sequence[Trace]) -> str:
    return " | ".join(trace.text[:40] for trace in traces)


def _read(name: str) -> str:
    return (files("sentcore.explain") / "page" / name).read_text(encoding="utf-8")
