"""The installed command in its own process, on the real default model."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

# Without the working directory on the path: the installed package, not a checkout that happens to be the working directory.
COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.path[:] = [p for p in sys.path if p]; from sentcore.cli import main; sys.exit(main())",
]


def run(*argv, **options):
    return subprocess.run([*COMMAND, *map(str, argv)], capture_output=True, timeout=300, **options)


def test_two_texts_on_the_default_model():
    # An ASCII locale must not harm the JSON.
    done = run("encode", "我爱北京天安门", "hello", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [row["text"] for row in rows] == ["我爱北京天安门", "hello"]
    lengths = np.linalg.norm([row["embedding"] for row in rows], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert len(rows[0]["embedding"]) == 384


def test_a_reader_that_goes_away_is_no_complaint(tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("text\n" * 20_000)
    with subprocess.Popen(
        [*COMMAND, "encode", "--input", str(source), "--max-length", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_reader_that_is_gone_before_the_last_flush_is_no_complaint():
    # Buffered, so that something is left to flush when Python exits.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, "info", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_while_reading():
    with subprocess.Popen(
        [*COMMAND, "encode", "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell may have started the tests with SIGINT ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        # One whole window of texts comes back, so the command is at work for sure.
        process.stdin.write(b"a\n" * 8192 + b"b\n" * 8192)
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err == b"sentcore: interrupted\n"


def test_a_folder_without_a_model_is_1_without_a_traceback(tmp_path):
    done = run("encode", "a", "-m", tmp_path)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1
