"""One encoder in many threads, in forked processes, and while the interpreter goes down."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from folders import make_bert_folder

import sentcore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("threads") / "model")


def test_eight_threads_at_once(folder):
    encoder = sentcore.SentenceEncoder(folder, device="cpu")
    # Long texts too: whether tokenization cuts is a state of the tokenizer.
    texts = [["the cat sat on " * (1 + (i * k) % 90) for i in range(40)] for k in range(1, 17)]
    wanted = [encoder.encode(some) for some in texts]
    fresh = sentcore.SentenceEncoder(folder, device="cpu")  # weights are packed at the first call, here by all at once
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(fresh.encode, texts))
        chunked = list(threads.map(lambda some: fresh.encode(some, chunk="mean"), texts))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for ours, some in zip(chunked, texts, strict=True):
        np.testing.assert_allclose(ours, encoder.encode(some, chunk="mean"), atol=1e-6)


def run(code, folder, **options):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forks_after_the_encoder_was_used(folder):
    run(
        """
        import os, sys, threading, time
        import numpy as np, sentcore
        model = sentcore.SentenceEncoder(sys.argv[1], device="cpu")
        texts = ["the cat sat on " * (1 + i % 60) for i in range(200)]
        wanted = model.encode(texts)
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                model.encode(texts)
        thread = threading.Thread(target=busy)
        thread.start()
        for _ in range(3):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                right = np.allclose(model.encode(texts), wanted, atol=1e-6)
                os._exit(0 if right else 3)
            limit = time.monotonic() + 30
            while True:
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() > limit:
                    os.kill(child, 9)
                    stop.set()
                    sys.exit("the forked process hangs")
                time.sleep(0.01)
            if status:
                stop.set()
                sys.exit(f"status {status}")
        stop.set()
        thread.join()
        """,
        folder,
    )


def test_a_thread_encodes_on_after_the_main_one_has_ended(folder):
    done = run(
        """
        import sys, threading, time
        import sentcore
        model = sentcore.SentenceEncoder(sys.argv[1], device="cpu")
        def work():
            time.sleep(0.2)
            rows = sum(len(rows) for _, rows in model.encode_iter(["the cat"] * 500, window=50))
            print(rows, flush=True)
        threading.Thread(target=work).start()
        """,
        folder,
    )
    assert done.stdout == "500\n"


def test_exit_while_a_daemon_thread_encodes(folder):
    done = run(
        """
        import sys, threading
        import sentcore
        model = sentcore.SentenceEncoder(sys.argv[1], device="cpu")
        begun = threading.Event()
        def work():
            while True:
                model.encode(["the cat sat on the dog"] * 100)
                begun.set()
        threading.Thread(target=work, daemon=True).start()
        begun.wait()
        """,
        folder,
    )
    assert not any(word in done.stderr for word in ("Fatal", "terminate", "Segmentation", "core dumped"))
