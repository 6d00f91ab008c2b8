"""bench/ratios.py: the committed ratios are those that are measured, and only a gross loss fails."""

from __future__ import annotations

import json
import time

from bench import ratios


def test_the_committed_ratios_are_those_that_are_measured():
    committed = json.loads(ratios.BASELINE.read_text())
    assert committed.keys() == ratios.MEASURED.keys()
    assert all(ratio > 1 for ratio in committed.values())


def test_only_a_gross_loss_fails():
    baseline = {"encode": 2.0, "attention": 1.5}
    assert ratios.lost({"encode": 1.1, "attention": 9.0}, baseline) == []
    assert len(ratios.lost({"encode": 0.9, "attention": 1.5}, baseline)) == 1
    assert ratios.lost({"encode": 2.0}, baseline) == ["attention: measured or committed, not both; run --write"]


def test_a_loss_is_measured(monkeypatch, capsys):
    def pair():
        return lambda: time.sleep(0.002), lambda: time.sleep(0.02)

    monkeypatch.setattr(ratios, "MEASURED", dict.fromkeys(ratios.MEASURED, pair))
    assert ratios.main([]) == (1 if ratios.sentcore.build_info()["extension"]["built"] else 2)
    assert "encode: 0." in "".join(capsys.readouterr()) or not ratios.sentcore.build_info()["extension"]["built"]
