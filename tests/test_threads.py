"""One encoder in many threads, in forked processes, and while the interpreter goes down."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sentcore
from folders import make_bert_folder


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
def test_exits_and_forks_of_a_process_that_has_computed(folder):
    """In one process, as starting one takes longer than all that is looked at here."""
    done = run(
        """
        import os, sys, threading, time
        import numpy as np, sentcore
        model = sentcore.SentenceEncoder(sys.argv[1], device="cpu")
        texts = ["the cat sat on the dog " * (1 + i % 3) for i in range(200)]
        wanted = model.encode(texts)
        with open(os.devnull, "w") as nowhere:
            for kind in ("fork", "daemon", "thread"):
                child = os.fork()
                if child == 0:
                    break
                limit = time.monotonic() + 60
                pid = status = 0
                while not pid and time.monotonic() < limit:
                    time.sleep(0.01)
                    pid, status = os.waitpid(child, os.WNOHANG)
                if not pid:
                    os.kill(child, 9)
                    sys.exit(f"{kind}: the forked process hangs")
                if status:
                    sys.exit(f"{kind}: status {status}")
            else:
                sys.exit(0)
        def check():
            for _ in range(3):
                rows = np.concatenate([rows for _, rows in model.encode_iter(texts, window=40)])
                if not np.allclose(rows, wanted, atol=1e-6):
                    os._exit(3)
        if kind == "fork":
            check()
            os._exit(0)
        elif kind == "daemon":  # still at work when the interpreter goes down
            begun = threading.Event()
            def work():
                while True:
                    model.encode(texts)
                    begun.set()
            threading.Thread(target=work, daemon=True).start()
            begun.wait()
        else:  # the main thread has ended, and this one goes on
            def work():
                time.sleep(0.1)
                check()
                print("done", flush=True)
            threading.Thread(target=work).start()
        """,
        folder,
    )
    assert done.stdout == "done\n"
    assert not any(word in done.stderr for word in ("Fatal", "terminate", "Segmentation", "hangs"))
