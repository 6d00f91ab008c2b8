"""`sentcore encode`: what comes out where, the exit status, and that nothing is left half done."""

import gzip
import json
import sys

import numpy as np
import pytest

from sentcore.cli import choices
from sentcore.inputs.chunks import CHUNK_MODES
from sentcore.outputs import PRECISIONS, quantize
from sentcore.placement import DTYPES

TEXTS = ["我爱北京天安门", "hello", "", "🎉 emoji", "a\ttab", "שלום", "last"]


def rows_of(out):
    return [json.loads(line) for line in out.splitlines()]


def expected(tiny, texts=TEXTS):
    return np.stack([tiny.row(text) for text in texts])


def test_texts_become_json_lines_on_stdout(tiny, sentcore_command):
    status, out, err = sentcore_command("encode", *TEXTS)
    assert status == 0
    assert [row["text"] for row in rows_of(out)] == TEXTS
    found = np.array([row["embedding"] for row in rows_of(out)], dtype=np.float32)
    np.testing.assert_array_equal(found, expected(tiny))  # every bit survives the decimals
    assert "我爱北京天安门" in out
    assert err == ""


def test_texts_may_stand_between_options(tiny, sentcore_command):
    status, out, _ = sentcore_command("encode", "a", "-m", "some", "b", "--truncate-dim", 2)
    assert status == 0
    assert [row["text"] for row in rows_of(out)] == ["a", "b"]
    assert len(rows_of(out)[0]["embedding"]) == 2
    assert tiny.made[0]["model"] == "some"


def test_options_reach_the_encoder(tiny, sentcore_command):
    status, _, _ = sentcore_command(
        *("encode", "a", "--dtype", "bfloat16", "--device", "cpu", "--backend", "reference"),
        *("--max-length", 9, "--local-files-only", "--prompt-name", "q", "--normalize"),
        *("--batch-tokens", 77, "--chunk", "max", "--chunk-overlap", 0),
    )
    assert status == 0
    assert tiny.made[0] == {
        "model": "minilm",
        "device": "cpu",
        "dtype": "bfloat16",
        "backend": "reference",
        "max_length": 9,
        "local_files_only": True,
    }
    assert tiny.made[1] == {
        "prompt": None,
        "prompt_name": "q",
        "batch_tokens": 77,
        "show_progress_bar": False,
        "normalize_embeddings": True,
        "chunk": "max",
        "chunk_overlap": 0,
        "devices": None,
    }


@pytest.mark.parametrize("output", [[], ["-o", "out.npy"]])
def test_workers_are_devices(tiny, sentcore_command, monkeypatch, tmp_path, output):
    monkeypatch.chdir(tmp_path)
    assert sentcore_command("encode", "a", "--workers", 2, *output)[0] == 0
    assert tiny.made[1]["devices"] == ["cpu", "cpu"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_files_in_npy_out(tiny, sentcore_command, tmp_path, kind, compressed):
    texts = TEXTS + (["two\nlines, quoted"] if kind != "txt" else [])
    if kind == "txt":
        content = "".join(text + "\r\n" for text in texts)
    elif kind == "jsonl":
        content = "\n\n".join(json.dumps({"id": 1, "text": text}) for text in texts)
    else:
        content = "id,text\n" + "".join(f'1,"{text}"\n' for text in texts)
    data = b"\xef\xbb\xbf" + content.encode()
    path = tmp_path / (f"in.{kind}.gz" if compressed else f"in.{kind}")
    path.write_bytes(gzip.compress(data) if compressed else data)
    status, out, err = sentcore_command("encode", "--input", path, "-o", tmp_path / "out.npy")
    assert (status, out) == (0, "")
    assert "wrote" in err
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(tiny, texts))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out.npy"])


def test_column_names_the_field(tiny, sentcore_command, tmp_path):
    (tmp_path / "in.csv").write_text("a,b\n1,x\n2,y\n")
    status, out, _ = sentcore_command("encode", "--input", tmp_path / "in.csv", "--column", "b")
    assert status == 0
    assert [row["text"] for row in rows_of(out)] == ["x", "y"]


@pytest.mark.parametrize("option", [["--input", "-"], []])
def test_standard_input_a_text_a_line(tiny, sentcore_command, option):
    status, out, _ = sentcore_command("encode", *option, stdin=b"eins\n\nzwei")
    assert status == 0
    assert [row["text"] for row in rows_of(out)] == ["eins", "", "zwei"]


def test_nothing_to_read_on_a_terminal(tiny, sentcore_command):
    status, out, err = sentcore_command("encode", terminal=True)
    assert (status, out) == (2, "")
    assert "--input" in err


def test_no_texts_give_an_empty_array_and_a_note(tiny, sentcore_command, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"")
    arguments = ("encode", "--input", tmp_path / "in.txt", "-o", tmp_path / "out.npy")
    status, _, err = sentcore_command(*arguments, "--truncate-dim", 5)
    assert status == 0
    assert "no texts" in err
    assert np.load(tmp_path / "out.npy").shape == (0, 5)
    assert sentcore_command(*arguments, "--quiet")[2] == ""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["npy", "jsonl"])
def test_precision_is_over_all_rows(tiny, sentcore_command, tmp_path, precision, kind):
    # Shortest and longest lie in the second of three blocks.
    texts = ["bb", "ccc", "dddd", "", "x" * 50, "e", "f"]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    output = tmp_path / f"out.{kind}"
    status, _, _ = sentcore_command("encode", "--input", tmp_path / "in.txt", "-o", output, "--precision", precision)
    assert status == 0
    wanted = quantize(expected(tiny, texts), precision)
    if kind == "npy":
        found = np.load(output)
    else:
        rows = rows_of(output.read_text(encoding="utf-8"))
        assert [row["text"] for row in rows] == texts
        found = np.array([row["embedding"] for row in rows], dtype=wanted.dtype)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_nan_is_null_in_json(tiny, sentcore_command, monkeypatch):
    bad = np.array([1.0, np.nan, np.inf], dtype=np.float32)
    monkeypatch.setattr(tiny, "row", staticmethod(lambda text: bad))
    status, out, _ = sentcore_command("encode", "a")
    assert status == 0
    assert rows_of(out)[0]["embedding"] == [1.0, None, None]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["encode", "a", "--dtype", "int3"], "int3"),
        (["encode", "a", "--batch-tokens", "0"], "at least 1"),
        (["encode", "a", "--truncate-dim", "x"], "at least 1"),
        (["encode", "a", "--norm"], "--norm"),
        (["encode", "a", "--device", "moon"], "moon"),
        (["encode", "a", "--input", "f.txt"], "both"),
        (["encode", "a", "--prompt", "p", "--prompt-name", "q"], "both"),
        (["encode", "a", "--column", "c"], "--column"),
        (["encode", "a", "-o", "out.bin"], ".npy"),
        (["encode", "--input", "in.parquet.gz"], ".parquet"),
        (["encode", "a", "--resume"], "--resume"),
        (["encode", "a", "--on-error", "skip"], "--output"),
        (["encode", "a", "-o", "out.npy", "--resume"], "--input FILE"),
        (["encode", "a", "--keep", "b"], "--keep"),
        (["encode", "--input", "in.txt", "-o", "o.jsonl", "--id", "b"], "--id"),
        (["encode", "--input", "in.csv", "-o", "o.jsonl", "--keep", "b,b"], "each once"),
        (["encode", "a", "-o", "o.npy", "--on-error", "null", "--precision", "int8"], "no value"),
        (["encode", "--input", "in.pdf"], ".jsonl"),
        (["encode", "--input", "in.txt", "--column", "c"], "no columns"),
        (["encode", "half \ud83d"], "U+D83D"),
    ],
)
def test_bad_use_is_2(tiny, sentcore_command, monkeypatch, tmp_path, argv, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = sentcore_command(*argv)
    assert (status, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["--input", "no.txt"], ["a", "-o", "no/out.npy"]])
def test_what_is_not_there_is_1_before_a_model_is_loaded(tiny, sentcore_command, argv):
    status, out, err = sentcore_command("encode", *argv)
    assert (status, out) == (1, "")
    assert "no" in err and err.count("\n") == 1
    assert tiny.made == []


def test_the_input_is_not_overwritten(tiny, sentcore_command, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n')
    status, _, err = sentcore_command("encode", "--input", path, "-o", path)
    assert status == 2 and "input file" in err
    assert path.read_text() == '{"text": "a"}\n'


@pytest.mark.parametrize("kind", ["npy", "jsonl"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tiny, sentcore_command, tmp_path, kind, precision):
    rows = [json.dumps({"text": str(i)}) for i in range(7)] + ['{"text": 8}']
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    output = tmp_path / f"out.{kind}"
    if kind == "jsonl":
        output.write_text("old")
    status, _, err = sentcore_command(
        *("encode", "--input", tmp_path / "in.jsonl", "-o", output, "--precision", precision)
    )
    assert status == 1
    assert "in.jsonl, line 8" in err
    left = {"in.jsonl"} | ({"out.jsonl"} if kind == "jsonl" else set())
    assert "6 rows are done and kept" in err
    left.add(f"out.{kind}.parts")
    assert {path.name for path in tmp_path.iterdir()} == left
    if kind == "jsonl":
        assert output.read_text() == "old"


def test_ctrl_c_is_130_and_one_line(tiny, sentcore_command, monkeypatch, tmp_path):
    def interrupted(self, lists, **options):
        yield np.zeros((len(next(iter(lists))), 8), dtype=np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "encode_windows", interrupted)
    status, _, err = sentcore_command("encode", "a", "b", "-o", tmp_path / "out.npy")
    assert status == 130
    assert err == "sentcore: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_out_of_memory_says_what_to_lower(tiny, sentcore_command, monkeypatch):
    def full(self, sentences, **options):
        raise MemoryError
        yield

    monkeypatch.setattr(tiny, "encode_iter", full)
    status, _, err = sentcore_command("encode", "a")
    assert status == 1
    assert "--max-length" in err


def test_memory_holds_one_block_of_texts(tiny, sentcore_command, monkeypatch, tmp_path):
    """The texts are taken from the file as they are encoded, and let go as they are written."""
    pulled, written = [], []

    def endless(path, column):
        for number in range(30):
            pulled.append(number)
            assert len(pulled) - len(written) <= tiny.window + 1
            yield str(number)

    class Counting:
        def __init__(self, file):
            pass

        def write(self, texts, rows):
            written.extend(texts)

    import sentcore.cli.writers as writers
    import sentcore.pipeline.corpus as corpus

    (tmp_path / "in.txt").write_text("a")
    monkeypatch.setattr(corpus, "read_file", endless)
    monkeypatch.setattr(writers, "JsonLinesWriter", Counting)
    assert sentcore_command("encode", "--input", tmp_path / "in.txt")[0] == 0
    assert written == [str(number) for number in range(30)]


def test_choices_are_those_of_the_library():
    assert choices.PRECISIONS == PRECISIONS
    assert tuple(DTYPES) == choices.DTYPES
    assert choices.CHUNK_MODES == CHUNK_MODES


@pytest.mark.parametrize(
    ("terminal", "quiet", "bar"), [(True, [], True), (True, ["--quiet"], False), (False, [], False)]
)
def test_a_progress_bar_on_a_terminal_only(tiny, sentcore_command, monkeypatch, tmp_path, terminal, quiet, bar):
    (tmp_path / "in.txt").write_text("a\nb\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    sentcore_command("encode", "--input", tmp_path / "in.txt", *quiet)
    assert tiny.made[1]["show_progress_bar"] is bar
