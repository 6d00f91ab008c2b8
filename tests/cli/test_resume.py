"""A run that is cut off anywhere goes on to the same bytes, each row once; another run is refused with what differs."""

import gzip
import itertools
import json
import os

import numpy as np
import pytest

from sentcore.cli import main
from sentcore.pipeline.corpus import parts

ROWS = 16  # six shards of three, the last one short


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": f"text {i}"}) + "\n" * (1 + i % 2) for i in range(ROWS)))
    return path


def command(corpus, output, *more):
    return ["encode", "--input", str(corpus), "-o", str(output), "--quiet", *more]


def cut_off(argv, step, calls):
    """Runs the command in a process that ends without a word at the step-th call of those that change the disk."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        counter = itertools.count(1)

        def dying(call):
            def called(*args, **kwargs):
                if next(counter) == step:
                    os._exit(137)
                return call(*args, **kwargs)

            return called

        for name in calls:
            setattr(os, name, dying(getattr(os, name)))
        status = main(argv)
        os._exit(status)
    except BaseException:
        os._exit(99)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize(
    ("kind", "options", "stride"), [("npy", [], 2), ("jsonl", ["--id", "id", "--precision", "int8"], 7)]
)
def test_a_kill_at_any_step(tiny, corpus, tmp_path, kind, options, stride):
    whole = tmp_path / f"whole.{kind}"
    assert main(command(corpus, whole, *options)) == 0
    wanted = whole.read_bytes()
    output = tmp_path / f"out.{kind}"
    for step in itertools.count(1, stride):
        status = cut_off(command(corpus, output, *options), step, ("fsync", "replace", "rename", "unlink"))
        assert status in (0, 137)
        if output.exists():
            assert output.read_bytes() == wanted  # never half a file under its name
        if status == 0:
            break
        if step % 4 == 1:  # and once more while it goes on
            assert cut_off(command(corpus, output, *options, "--resume"), 6, ("fsync", "replace")) in (0, 137)
        assert main(command(corpus, output, *options, "--resume")) == 0
        assert output.read_bytes() == wanted
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([corpus.name, whole.name, output.name])
        output.unlink()
    assert step > 30


def encoded_texts(tiny, monkeypatch):
    seen = []
    row = tiny.row
    monkeypatch.setattr(tiny, "row", staticmethod(lambda text: (seen.append(text), row(text))[1]))
    return seen


def cut_after(tiny, monkeypatch, count, error=KeyboardInterrupt):
    """Makes the encoder stop after some shards."""
    whole = tiny.encode_windows

    def cut(self, lists, **options):
        yield from itertools.islice(whole(self, lists, **options), count)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tiny, "encode_windows", cut)
        yield


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "parquet"])
def test_what_is_done_is_not_computed_again(tiny, sentcore_command, monkeypatch, tmp_path, kind, compressed):
    texts = [f"text {i}" + ("\nof two lines" if kind in ("csv", "parquet") and i % 3 == 0 else "") for i in range(ROWS)]
    path = tmp_path / f"in.{kind}{'.gz' * compressed}"
    if kind == "parquet":
        if compressed:
            pytest.skip("parquet compresses by itself")
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"text": texts}), path, row_group_size=5)
    else:
        if kind == "txt":
            data = "\r\n".join(texts)
        elif kind == "csv":
            data = "id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(texts))
        else:
            data = "\n\n".join(json.dumps({"text": text}) for text in texts)
        path.write_bytes(gzip.compress(data.encode()) if compressed else data.encode())
    output = tmp_path / "out.npy"
    for _ in cut_after(tiny, monkeypatch, 3):
        status, _, err = sentcore_command(*command(path, output))
    assert status == 130
    assert err.startswith("sentcore: 9 rows are done and kept in ")
    assert err.endswith("--resume goes on from there\nsentcore: interrupted\n")
    assert not output.exists()
    seen = encoded_texts(tiny, monkeypatch)
    assert sentcore_command(*command(path, output, "--resume"))[0] == 0
    assert seen == texts[9:]
    np.testing.assert_array_equal(np.load(output), np.stack([tiny.row(text) for text in texts]))


def test_leftovers_name_both_remedies(tiny, sentcore_command, monkeypatch, corpus, tmp_path):
    output = tmp_path / "out.npy"
    for _ in cut_after(tiny, monkeypatch, 1):
        sentcore_command(*command(corpus, output))
    status, _, err = sentcore_command(*command(corpus, output))
    assert status == 2
    assert "out.npy.parts holds 1 shards" in err and "--resume" in err and "delete that folder" in err
    assert err.count("\n") == 1
    assert sentcore_command(*command(corpus, output, "--resume"))[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--truncate-dim", "4"], "options.truncate_dim was absent and is 4"),
        (["--normalize"], "options.normalize was False and is True"),
        (["--id", "id"], "options.keep was [] and is ['id']"),
        (["--precision", "int8"], "options.precision was 'float32' and is 'int8'"),
        (["--prompt", "p"], "options.prompt was absent and is 'p'"),
    ],
)
def test_other_options_are_refused(tiny, sentcore_command, monkeypatch, corpus, tmp_path, options, said):
    output = tmp_path / "out.jsonl"
    for _ in cut_after(tiny, monkeypatch, 2):
        sentcore_command(*command(corpus, output))
    status, _, err = sentcore_command(*command(corpus, output, *options, "--resume"))
    assert status == 2
    assert said in err
    assert sentcore_command(*command(corpus, output, "--resume", "--batch-tokens", "99"))[0] == 0  # changes no bits


def test_another_model_is_refused(tiny, sentcore_command, monkeypatch, corpus, tmp_path):
    from types import SimpleNamespace

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(tiny, "checkpoint", SimpleNamespace(folder=model))
    output = tmp_path / "out.npy"
    for _ in cut_after(tiny, monkeypatch, 2):
        sentcore_command(*command(corpus, output))
    (model / "model.safetensors").write_bytes(b"other weights")
    status, _, err = sentcore_command(*command(corpus, output, "--resume"))
    assert status == 2
    assert "model.model.safetensors was" in err and "config" not in err


def test_another_input_is_refused_and_a_touched_one_is_read_again(
    tiny, sentcore_command, monkeypatch, corpus, tmp_path
):
    output = tmp_path / "out.npy"
    for _ in cut_after(tiny, monkeypatch, 2):
        sentcore_command(*command(corpus, output))
    content = corpus.read_bytes()
    corpus.write_bytes(content + b'{"text": "more"}\n')
    status, _, err = sentcore_command(*command(corpus, output, "--resume"))
    assert status == 2 and "input.size was" in err
    monkeypatch.setattr("sentcore.pipeline.corpus.identity._ENDS", 10)
    corpus.write_bytes(content)
    for _ in cut_after(tiny, monkeypatch, 1):
        (tmp_path / "out.npy.parts" / "manifest.json").exists()
        for path in (tmp_path / "out.npy.parts").iterdir():
            path.unlink()
        sentcore_command(*command(corpus, output))
    corpus.write_bytes(content.replace(b'text 1"', b'text X"'))  # neither size, head nor tail tell
    os.utime(corpus, ns=(1, 1))
    status, _, err = sentcore_command(*command(corpus, output, "--resume"))
    assert status == 2 and "has changed since" in err and "line 1" in err
    corpus.write_bytes(content)
    os.utime(corpus, ns=(2, 2))
    assert sentcore_command(*command(corpus, output, "--resume"))[0] == 0


def test_a_shard_that_is_short_is_made_again_and_a_damaged_one_too(
    tiny, sentcore_command, monkeypatch, corpus, tmp_path
):
    output, whole = tmp_path / "out.npy", tmp_path / "whole.npy"
    sentcore_command(*command(corpus, whole))
    for _ in cut_after(tiny, monkeypatch, 4):
        sentcore_command(*command(corpus, output))
    shard = tmp_path / "out.npy.parts" / "00000001.shard"
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    status, _, err = sentcore_command(*command(corpus, output, "--resume"))
    assert status == 1 and "00000001.shard is damaged" in err and "--resume" in err
    shard = tmp_path / "out.npy.parts" / "00000000.shard"
    shard.write_bytes(shard.read_bytes()[:-1])
    status, _, err = sentcore_command(*command(corpus, output, "--resume"))
    assert status == 0 and "not there whole" in err
    assert output.read_bytes() == whole.read_bytes()


def test_two_runs_at_once_are_refused(tiny, sentcore_command, corpus, tmp_path):
    held = parts.Parts(tmp_path / "out.npy")
    held.begin()
    status, _, err = sentcore_command(*command(corpus, tmp_path / "out.npy"))
    assert status == 1 and "in use by another run" in err
    held.release()
    assert sentcore_command(*command(corpus, tmp_path / "out.npy"))[0] == 0


def test_a_folder_that_is_not_ours_is_left_alone(tiny, sentcore_command, corpus, tmp_path):
    folder = tmp_path / "out.npy.parts"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    status, _, err = sentcore_command(*command(corpus, tmp_path / "out.npy"))
    assert status == 1 and "thesis.tex" in err
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_says_so_and_what_is_done_stays(tiny, sentcore_command, monkeypatch, corpus, tmp_path):
    output, whole = tmp_path / "out.npy", tmp_path / "whole.npy"
    sentcore_command(*command(corpus, whole))
    with monkeypatch.context() as patch:
        fsync, calls = os.fsync, itertools.count()

        def full(handle):
            if next(calls) > 12:
                raise OSError(28, "No space left on device")
            fsync(handle)

        patch.setattr(os, "fsync", full)
        status, _, err = sentcore_command(*command(corpus, output))
    assert status == 1
    assert "out.npy.parts: No space left on device" in err.splitlines()[1] and "--resume" in err.splitlines()[0]
    assert not list((tmp_path / "out.npy.parts").glob("*.tmp"))
    assert sentcore_command(*command(corpus, output, "--resume"))[0] == 0
    assert output.read_bytes() == whole.read_bytes()


def test_done_already(tiny, sentcore_command, monkeypatch, corpus, tmp_path):
    """Killed while the shards of a finished file are removed."""
    output = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "remove_finished", lambda self: None)
        assert sentcore_command(*command(corpus, output))[0] == 0
    seen = encoded_texts(tiny, monkeypatch)
    status, _, err = sentcore_command(*[a for a in command(corpus, output, "--resume") if a != "--quiet"])
    assert status == 0 and "was finished already" in err
    assert seen == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.npy"]
