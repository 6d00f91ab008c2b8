"""bench.report: what it calls slower, what it leaves to noise, and the page."""

from __future__ import annotations

import json
import random
import re
import statistics

import pytest

from bench.report.__main__ import main
from bench.report.judge import SMALLEST, compare
from bench.report.read import ReportError, read_run, yardsticks_of

OPS = [f"op{number}" for number in range(8)]


def write(
    path, seed, slower=(), machine=1.0, brand="CPU", rounds=30, noise=0.05, leave_out=(), names=("op", "reference")
):
    """A file as pytest-benchmark writes it: for every op sentcore's time and a yardstick's, noise that only adds time.

    Args:
        slower: op -> factor on sentcore's time; machine: factor on all times, beside 2% of each benchmark's own.
    """
    draw = random.Random(seed)
    entries = []
    for op in OPS:
        for name in names:
            own = 1e-3 * machine * draw.uniform(0.98, 1.02) * (dict(slower).get(op, 1.0) if name == "op" else 1.0)
            data = sorted(own * (1 + draw.expovariate(1 / noise)) for _ in range(rounds))
            first, _, third = statistics.quantiles(data, n=4) if rounds > 1 else data * 3
            stats = {"median": statistics.median(data), "iqr": third - first, "min": data[0], "rounds": rounds}
            fullname = f"bench/ops/test_{op}.py::test_forward[{name}-H384]"
            if op not in leave_out:
                entries.append({"fullname": fullname, "group": op, "stats": stats})
    info = {"cpu": {"brand_raw": brand}, "threads": 2, "versions": {"torch": "2.13.0"}}
    found = {
        "machine_info": info,
        "commit_info": {"id": "0123456789ab", "dirty": False},
        "datetime": "2026-01-02T03:04:05",
    }
    path.write_text(json.dumps(found | {"benchmarks": entries}))
    return path


def runs(tmp_path, seed, **changed):
    before = read_run(write(tmp_path / "before.json", 2 * seed))
    return compare(before, read_run(write(tmp_path / "after.json", 2 * seed + 1, **changed)))


def test_equal_runs_show_nothing_as_often_as_the_rule_says(tmp_path):
    alarms = sum(bool(runs(tmp_path, seed).slower) for seed in range(60))
    assert alarms <= 6  # 3 expected of 60


def test_a_slower_machine_is_no_regression(tmp_path):
    found = runs(tmp_path, 1, machine=1.6)
    assert found.slower == [] and abs(found.drift - 0.47) < 0.03 and found.yardsticks == len(OPS)


@pytest.mark.parametrize("machine", [1.0, 1.6])
def test_a_slower_op_is_found_whatever_the_machine_does(tmp_path, machine):
    for seed in range(10):
        found = runs(tmp_path, seed, machine=machine, slower={"op3": 1.4}.items())
        assert [change.after.group for change in found.slower] == ["op3"]
        assert found.changes[0].after.group == "op3"


def test_a_faster_op_is_no_failure(tmp_path):
    found = runs(tmp_path, 3, slower={"op2": 0.6}.items())
    assert found.slower == [] and found.changes[-1].verdict == "faster"


def test_other_work_that_hits_some_rounds_is_noise(tmp_path):
    """The medians move and the fastest rounds do not: nothing of sentcore's became slower."""
    before = read_run(write(tmp_path / "before.json", 0))
    path = write(tmp_path / "after.json", 1)
    found = json.loads(path.read_text())
    for entry in found["benchmarks"]:
        if "op5" in entry["fullname"] and "[op" in entry["fullname"]:
            entry["stats"]["median"] *= 1.5
    path.write_text(json.dumps(found))
    change = next(change for change in compare(before, read_run(path)).changes if change.after.group == "op5")
    assert change.change > change.noise and change.verdict == "same"


def test_few_rounds_are_not_judged_and_few_yardsticks_widen_the_noise(tmp_path):
    found = runs(tmp_path, 4, slower=dict.fromkeys(OPS, 2.0).items(), rounds=3)
    assert {change.verdict for change in found.changes} == {"too few rounds"}
    alone = read_run(write(tmp_path / "alone.json", 8, names=("op",)))
    again = read_run(write(tmp_path / "again.json", 9, names=("op",)))
    assert min(change.noise for change in compare(alone, again).changes) > 0.2
    assert all(change.noise >= SMALLEST for change in runs(tmp_path, 4).changes)


def test_noise_that_would_hide_a_doubling_is_said(tmp_path, capsys):
    found = compare(*(read_run(write(tmp_path / f"{seed}.json", seed, noise=3.0, rounds=6)) for seed in (1, 2)))
    assert found.slower == [] and sum(change.verdict == "too noisy" for change in found.changes) > 3
    files = [str(write(tmp_path / f"{seed}.json", seed, noise=3.0, rounds=6, leave_out=OPS[1:])) for seed in (1, 2)]
    assert main([*files, "-o", str(tmp_path / "report.html")]) == 0
    assert "1 that cannot be judged" in capsys.readouterr().out


def test_a_yardstick_of_the_same_work_is_found(tmp_path):
    run = read_run(write(tmp_path / "run.json", 0))
    ours = run.timings["bench/ops/test_op1.py::test_forward[op-H384]"]
    assert [other.name for other in yardsticks_of(ours, run)] == ["bench/ops/test_op1.py::test_forward[reference-H384]"]


def test_the_page_stands_alone_and_says_what_happened(tmp_path, capsys):
    few = {"leave_out": OPS[2:6]}  # a picture takes its time
    before = write(tmp_path / "before.json", 0, **few)
    after = write(tmp_path / "after.json", 1, slower={"op0": 2.0}.items(), leave_out=OPS[2:])
    other = write(tmp_path / "<other>.json", 2, machine=3.0, brand="Another & CPU", **few)
    out = tmp_path / "pages" / "report.html"
    assert main([str(before), str(after), str(other), "-o", str(out)]) == 1
    page = out.read_text(encoding="utf-8")
    assert "slower: test_op0: test_forward[op-H384]" in capsys.readouterr().out
    assert "1 of 2 became slower" in page and "Only in before: test_op6" in page
    assert "&lt;other&gt;" in page and "Another &amp; CPU" in page and "<other>" not in page
    assert page.count("<svg") == 1 + 4  # one comparison (the other machine has none), one picture a group
    assert not re.search(
        r"<(script|link|img|iframe)\b|@import|url\(", page.replace("url(#", "")
    )  # url(#...): within the page


def test_a_run_against_itself_is_no_failure(tmp_path, capsys):
    run = str(write(tmp_path / "run.json", 0, leave_out=OPS[1:]))
    assert main([run, run, "-o", str(tmp_path / "report.html")]) == 0
    assert "0 slower" in capsys.readouterr().out


def test_bad_files_are_named(tmp_path, capsys):
    for name, text in (("a.json", "{"), ("b.json", "{}"), ("c.json", "[]"), ("d.json", '{"benchmarks": []}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ReportError, match=name):
            read_run(tmp_path / name)
    assert main([str(tmp_path / "absent.json")]) == 2
    assert "absent.json cannot be read" in capsys.readouterr().err
