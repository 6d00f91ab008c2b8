"""The page: one file that holds what was traced, loads nothing, and says what it leaves out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import sentcore
from browser import Browser, find_browser
from sentcore.errors import ArgumentValueError, NonFiniteError
from sentcore.explain import Attribution, EmbeddingTrace, LayerTrace, NormTrace, Trace, html_report
from sentcore.explain.payload import language

NASTY = "</script><script>alert('<b>bold</b>')</script> @@DATA@@ & \u2028 \"q\" 我"
TYPES = {"u8": np.uint8, "i8": np.int8, "f16": np.float16}


class Page(HTMLParser):
    """Elements and attributes of a page, and the text within its scripts and title."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.title, self._in = [], [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in == "title":
            self.title += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


def unpacked(blob):
    raw = np.frombuffer(zlib.decompress(base64.b64decode(blob["data"])), TYPES[blob["type"]])
    return raw.reshape(blob["shape"]).astype(np.float32)


def made_up(tokens, layers=12, heads=12, size=64, shown=None):
    """A trace of random values, as large as asked for."""
    hidden, shown, rows = heads * size, shown or tokens, torch.randn
    made = []
    for _ in range(layers):
        query, key, value = rows(3, heads, shown, size)
        attention = torch.rand(heads, shown, tokens).softmax(-1)[..., :shown]
        made.append(LayerTrace(query, key, value, attention, False))
    tables = EmbeddingTrace(*(rows(shown, hidden) for _ in range(5)))
    norms = [
        NormTrace(f"layer {i} {part}", rows(tokens).abs(), rows(tokens).abs())
        for i in range(layers)
        for part in ("attention", "feed-forward")
    ]
    names = [f"词{i}" if i % 2 else f"word{i}" for i in range(tokens)]
    pooling = {"mean": torch.full((tokens,), 1 / tokens)}
    states = [rows(shown, hidden) for _ in range(layers + 1)]
    return Trace(
        " ".join(names), names, names, list(range(tokens)), False, tables, states, made, norms, pooling, rows(hidden)
    )


@pytest.fixture(scope="module")
def pair(minilm):
    texts = ("A cat sits on the mat.", "我爱北京的猫")
    return [sentcore.trace(minilm, text) for text in texts], sentcore.attribution(minilm, *texts)


def test_the_page_holds_what_was_traced(pair):
    traces, attribution = pair
    page = Page(html_report(traces, attribution, model_name="minilm", layer=2, head=5))
    data = page.data
    assert data["chosen"] == [2, 5] and data["model"] == "minilm" and (data["layers"], data["heads"]) == (6, 12)
    for trace, text in zip(traces, data["texts"], strict=True):
        assert text["tokens"] == trace.labels and text["ids"] == trace.token_ids and text["count"] == len(trace.tokens)
        maps = torch.stack([layer.attention for layer in trace.layers]).numpy()
        assert np.abs((unpacked(text["maps"]) / 255) ** 2 - maps).max() < 0.005
        values = unpacked(text["values"]) * np.array(text["values"]["scale"]).reshape(6, 3, 12, 1, 1)
        wanted = torch.stack([torch.stack((layer.query, layer.key, layer.value)) for layer in trace.layers]).numpy()
        assert np.abs(values - wanted).max() <= np.abs(wanted).max() / 250
        np.testing.assert_allclose(unpacked(text["feature"]["values"]), trace.feature, atol=1e-3)
        assert [norm["name"] for norm in text["norms"]] == [norm.name for norm in trace.norms]
        assert text["norms"][3]["before"][0] == pytest.approx(float(trace.norms[3].before.mean()), rel=1e-5)
        assert text["pooling"][0]["weights"] == pytest.approx(trace.pooling["mean"].tolist(), rel=1e-5)
    np.testing.assert_allclose(unpacked(data["attribution"]["matrix"]), attribution.matrix, atol=1e-3)
    assert data["attribution"]["score"] == pytest.approx(attribution.score)
    assert [text["lang"] for text in data["texts"]] == ["", "zh-Hans"]


def test_nothing_of_a_text_becomes_markup_and_nothing_is_loaded(minilm):
    html = html_report([sentcore.trace(minilm, NASTY)], model_name="<i>m</i>")
    page = Page(html)
    assert page.data["texts"][0]["text"] == NASTY and page.data["model"] == "<i>m</i>"
    assert NASTY[:40] == page.title
    names = [name for name, _ in page.elements]
    assert names.count("script") == 2 and "b" not in names and "i" not in names
    for name, attributes in page.elements:
        assert name not in ("link", "img", "iframe", "object") and not {"src", "href"} & set(attributes), name
    addresses = set(re.findall(r"\bhttps?://[^\s'\"]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}  # SVG's name, which nothing is loaded from
    assert "@import" not in html and "url(" not in html
    policy = next(a["content"] for n, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(("layers", "tokens", "shown"), [(12, 64, 64), (12, 300, 102)])
def test_a_page_stays_below_3_megabytes(layers, tokens, shown):
    html = html_report([made_up(tokens, layers, shown=min(tokens, 128))])
    assert len(html.encode()) <= 3_000_000
    text = Page(html).data["texts"][0]
    assert text["count"] == tokens and len(text["tokens"]) == shown == unpacked(text["maps"]).shape[2]


def test_models_without_layers_or_pooling():
    trace = made_up(3, layers=0)
    bare = Trace(**{**vars(trace), "pooling": {}, "feature": None})
    data = Page(html_report([bare])).data
    assert data["texts"][0]["feature"] is None and data["texts"][0]["maps"] is None


def test_what_is_refused(pair):
    traces, attribution = pair
    with pytest.raises(ArgumentValueError, match="layer is 6; accepted for this model: 0 to 5"):
        html_report(traces, attribution, layer=6)
    with pytest.raises(ArgumentValueError, match="traces holds 3"):
        html_report([*traces, traces[0]])
    broken = Trace(**{**vars(traces[0]), "feature": torch.full((4,), float("nan"))})
    with pytest.raises(NonFiniteError, match="first at 'feature'"):
        html_report([broken])


@pytest.mark.parametrize(
    ("text", "tag"), [("abc", ""), ("我", "zh-Hans"), ("日本の", "ja"), ("한국", "ko"), ("𠀀", "zh-Hans")]
)
def test_language(text, tag):
    assert language(text) == tag


# ---- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    command = find_browser()
    if command is None:
        pytest.skip("no Chromium here (apt install chromium): the page is not opened")
    with Browser(command) as found:
        yield found


def test_every_panel_is_drawn(browser, pair, minilm, tmp_path):
    traces, attribution = pair
    page = tmp_path / "report.html"
    page.write_text(html_report(traces, attribution, model_name="minilm", layer=1, head=3), encoding="utf-8")
    for width, dark in ((1280, False), (390, True)):
        browser.open(page, width, dark=dark)
        assert browser.problems == []
        assert browser.run("document.documentElement.scrollWidth") == width  # nothing sticks out sideways
        heads = browser.run("[...document.querySelectorAll('h2')].map((h) => h.textContent.slice(0, 5))")
        assert heads == ["Simil", "1. To", "2. Em", "3. At", "4. Qu", "5. Re", "6. Po", "7. Fe"]
        assert (
            browser.run(
                "[...document.querySelectorAll('canvas')].filter((c) => !c.clientWidth || !c.clientHeight).length"
            )
            == 0
        )
        assert browser.run("document.querySelectorAll('.heads button').length") == 72
        assert browser.run("document.querySelector('.score').textContent") == f"{attribution.score:.4f}"
    # Choosing a map by a click, and reading a cell of it by the keyboard.
    browser.run("document.querySelectorAll('.heads button')[2 * 12 + 7].click()")
    assert browser.run("document.querySelector('select').value") == "2"
    assert browser.run("document.querySelector('.heads button[aria-pressed=true]').title") == "layer 2, head 7"
    canvas = "document.querySelector('canvas[aria-label^=\"Attention of layer 2, head 7\"]')"
    browser.run(
        f"['ArrowDown', 'ArrowRight', 'ArrowRight'].forEach((key) => {canvas}.dispatchEvent(new KeyboardEvent('keydown', {{ key }})))"
    )
    said = browser.run(f"{canvas}.closest('.heat').nextSibling.textContent")
    assert said.startswith("a (1) → cat (2): ")
    assert float(said.rsplit(" ", 1)[1]) == pytest.approx(
        float(traces[0].layers[2].attention[7, 1, 2]), rel=0.05, abs=0.001
    )
    # A pointer over it.
    browser.run(f"{canvas}.scrollIntoView()")
    x, y = browser.run(
        f"(() => {{ const box = {canvas}.getBoundingClientRect(); return [box.left + 5, box.top + 5]; }})()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert browser.run("document.getElementById('tip').textContent").startswith("[CLS] (0) → [CLS] (0): ")
    # The other text.
    browser.run("document.querySelectorAll('input[type=radio]')[1].click()")
    assert "北" in browser.run("document.getElementById('steps').textContent")
    assert browser.run("document.querySelector('.heads button[aria-pressed=true]').title") == "layer 2, head 7"
    assert browser.problems == []


def test_a_text_of_markup_stays_a_text(browser, minilm, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(html_report([sentcore.trace(minilm, NASTY)]), encoding="utf-8")
    browser.open(page, 390)
    assert browser.problems == []
    assert browser.run("document.querySelector('blockquote').textContent") == NASTY
    assert browser.run("document.querySelectorAll('b').length") == 0


def test_a_large_page_opens_fast(browser, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(html_report([made_up(64)]), encoding="utf-8")
    browser.call("Performance.enable", timeDomain="threadTicks")  # the page's own time, whatever else the machine does
    browser.open(page, 1280)
    metrics = {metric["name"]: metric["value"] for metric in browser.call("Performance.getMetrics")["metrics"]}
    assert 0 < metrics["TaskDuration"] <= 2.0
    assert browser.problems == []


def test_attribution_is_data():
    found = Attribution("exact", (["a"], ["b", "c"]), 0.5, torch.tensor([[0.2, 0.3]]), (0.0, 0.0), 0.0)
    assert [sums.tolist() for sums in found.token_sums] == [[0.5], pytest.approx([0.2, 0.3])]
