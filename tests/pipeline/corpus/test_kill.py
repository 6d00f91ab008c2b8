"""SIGKILL at random moments, and a disk that is full, with a real encoder."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

from folders import make_bert_folder
from sentcore.cli import main

pytest.importorskip("pyarrow")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """(output, *more) -> argv, for twenty shards."""
    import sentcore.pipeline.corpus.sources as sources

    monkeypatch.setattr(sources, "SHARD_ROWS", 100)
    folder = make_bert_folder(tmp_path / "model")
    rows = [json.dumps({"id": i, "text": f"the cat {'sat on ' * (i % 5)}{i}"}) for i in range(2000)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    files = ["--input", str(tmp_path / "in.jsonl"), "-m", str(folder), "--device", "cpu"]
    return lambda output, *more: ["encode", *files, "-o", str(output), "--id", "id", "--quiet", *more]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_three_kills_at_random_moments(command, tmp_path):
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    start = time.perf_counter()
    assert main(command(whole)) == 0
    lasts = time.perf_counter() - start
    draw = random.Random()
    for _ in range(3):
        delay = draw.uniform(0, lasts)
        child = os.fork()
        if child == 0:
            try:
                os._exit(main(command(output)))
            finally:
                os._exit(99)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert main(command(output, "--resume")) == 0
        assert output.read_bytes() == whole.read_bytes(), f"killed after {delay} s"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "model", "out.parquet", "whole.parquet"]
        output.unlink()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(command, small_disk, tmp_path, capsys):
    whole = tmp_path / "whole.npy"
    argv = [part for part in command(whole) if part not in ("--id", "id")]
    assert main(argv) == 0
    output = small_disk / "out.npy"
    argv[argv.index(str(whole))] = str(output)
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "out.npy.parts" in said and "--resume" in said
    assert not output.exists()
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    assert main([*argv, "--resume"]) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in small_disk.iterdir()] == ["out.npy"]
