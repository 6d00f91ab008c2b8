"""Files in, files out: carried columns and their types, bad rows, features that are no numbers."""

import json

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = ["eins", "zwei 二", "", "vier", "fünf"]


def encode(sentcore_command, source, output, *more):
    return sentcore_command("encode", "--input", source, "-o", output, *more)


def features(table):
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def expected(tiny, texts=TEXTS):
    return np.stack([tiny.row(text) for text in texts])


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("float32", pa.float32()), ("int8", pa.int8()), ("uint8", pa.uint8()), ("ubinary", pa.uint8())],
)
def test_parquet_to_parquet_keeps_columns_and_types(tiny, sentcore_command, tmp_path, precision, kind):
    from sentcore.outputs import quantize

    when = pa.array([0, 1, None, 3, 4], pa.timestamp("ns"))
    names = pa.array(["a", "b", "a", None, "b"]).dictionary_encode()
    table = pa.table({"id": pa.array(range(5), pa.uint64()), "when": when, "body": TEXTS, "name": names, "left": TEXTS})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    options = ("--column", "body", "--id", "id", "--keep", "when,name", "--precision", precision)
    status, _, err = encode(sentcore_command, tmp_path / "in.parquet", tmp_path / "out.parquet", *options)
    assert status == 0, err
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["id", "when", "name", "embedding"]
    assert found.select(["id", "when"]).equals(table.select(["id", "when"]))
    assert found.column("name").to_pylist() == table.column("name").to_pylist()
    columns = 1 if precision == "ubinary" else 8
    assert found.schema.field("embedding").type == pa.list_(pa.field("element", kind), columns)
    np.testing.assert_array_equal(features(found), quantize(expected(tiny), precision))
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 2  # a shard each


def test_pandas_and_datasets_read_it(tiny, sentcore_command, tmp_path):
    pd = pytest.importorskip("pandas")
    (tmp_path / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    assert encode(sentcore_command, tmp_path / "in.txt", tmp_path / "out.parquet")[0] == 0
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert frame["text"].tolist() == TEXTS
    np.testing.assert_array_equal(np.stack(frame["embedding"]), expected(tiny))
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(np.array(rows["embedding"], dtype=np.float32), expected(tiny))


def test_types_of_json_fields(tiny, sentcore_command, tmp_path):
    rows = [
        {"text": "a", "whole": 1, "real": 1, "yes": True, "mixed": 1, "nested": {"b": [1]}, "none": None},
        {"text": "b", "whole": 2, "real": 0.5, "yes": None, "mixed": "x", "nested": {"c": 2}, "none": None},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keep = ("--keep", "whole,real,yes,mixed,nested,none")
    assert encode(sentcore_command, tmp_path / "in.jsonl", tmp_path / "out.parquet", *keep)[0] == 0
    found = pq.read_table(tmp_path / "out.parquet").drop_columns(["embedding"])
    kinds = [pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.string(), pa.string()]
    assert found.schema.types == kinds
    assert found.to_pylist()[1] == {
        **{"whole": 2, "real": 0.5, "yes": None, "mixed": '"x"', "nested": '{"c": 2}', "none": None}
    }


@pytest.mark.parametrize("on_error", ["fail", "skip", "null"])
def test_a_field_of_another_type_later_on_is_a_bad_row(tiny, sentcore_command, tmp_path, on_error):
    lines = [json.dumps({"text": f"t{i}", "id": "x" if i == 4 else i}) for i in range(7)]  # a shard has three
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    output = tmp_path / "out.parquet"
    status, _, err = encode(sentcore_command, tmp_path / "in.jsonl", output, "--id", "id", "--on-error", on_error)
    assert "in.jsonl, line 5: 'id' is \"x\", of another type" in err
    if on_error == "fail":
        assert status == 1 and "3 rows are done and kept" in err
        return
    ids = pq.read_table(output).column("id").to_pylist()
    assert ids == ([0, 1, 2, 3, 5, 6] if on_error == "skip" else [0, 1, 2, 3, None, 5, 6])


BAD = {
    "jsonl": (
        b'{"text": "a", "id": 0}\n{"text": null, "id": 1}\nno json\n{"text": "d", "id": 3}\n\xff\n{"id": 5}\n{"text": "g", "id": 6}\n',
        [2, 3, 5, 6],
        ["a", "d", "g"],
        [0, 1, None, 3, None, 5, 6],
    ),
    "csv": (
        b'id,text\n0,a\n1,b,2\n2,"c\n\xffc"\n3,d\n4,"e"e\n5\n6,g\n',
        [3, 4, 7, 8],
        ["a", "d", "g"],
        ["0", "1", None, "3", None, "5", "6"],
    ),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("ending", ["npy", "jsonl", "parquet"])
@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_bad_rows_are_named_and_counted(tiny, sentcore_command, tmp_path, kind, ending, on_error):
    data, lines, good, ids = BAD[kind]
    (tmp_path / f"in.{kind}").write_bytes(data)
    output = tmp_path / f"out.{ending}"
    more = () if ending == "npy" else ("--id", "id")
    status, _, err = encode(sentcore_command, tmp_path / f"in.{kind}", output, "--on-error", on_error, *more)
    assert status == 0, err
    named = [line for line in err.splitlines() if "bad row, " in line]
    assert [int(line.split("line ")[1].split(":")[0]) for line in named] == lines
    assert f"warning: {len(lines)} bad rows, {'left out' if on_error == 'skip' else 'null'}" in err
    wanted = expected(tiny, good)
    places = [0, 3, 6]
    if ending == "npy":
        found = np.load(output)
        if on_error == "null":
            assert found.shape == (7, 8)
            assert np.isnan(np.delete(found, places, axis=0)).all()
            found = found[places]
        np.testing.assert_array_equal(found, wanted)
        return
    if ending == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        rows = pq.read_table(output).to_pylist()
    if on_error == "skip":
        assert [str(row["id"]) for row in rows] == ["0", "3", "6"]
    else:
        assert [row["id"] for row in rows] == ids
        assert [i for i, row in enumerate(rows) if row["embedding"] is not None] == places
    given = [row["embedding"] for row in rows if row["embedding"] is not None]
    np.testing.assert_array_equal(np.array(given, dtype=np.float32), wanted)


def test_null_in_parquet(tiny, sentcore_command, tmp_path):
    pq.write_table(pa.table({"id": range(5), "text": ["a", None, "c", None, "e"]}), tmp_path / "in.parquet")
    status, _, err = encode(sentcore_command, tmp_path / "in.parquet", tmp_path / "o.jsonl", "--id", "id")
    assert status == 1 and "in.parquet, row 1: column 'text' is null" in err
    options = ("--id", "id", "--on-error", "skip")
    assert encode(sentcore_command, tmp_path / "in.parquet", tmp_path / "o.parquet", *options)[0] == 0
    assert pq.read_table(tmp_path / "o.parquet").column("id").to_pylist() == [0, 2, 4]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_features_that_are_no_numbers(tiny, sentcore_command, monkeypatch, tmp_path, on_error):
    row = tiny.row
    monkeypatch.setattr(tiny, "row", staticmethod(lambda text: row(text) * (np.nan if text == "d" else 1)))
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\ne\n")
    status, _, err = encode(sentcore_command, tmp_path / "in.txt", tmp_path / "out.npy")
    assert status == 0 and "warning: 1 features are NaN or infinite" in err
    assert np.isnan(np.load(tmp_path / "out.npy")[3]).all()
    options = ("--precision", "int8", "--on-error", on_error)
    status, _, err = encode(sentcore_command, tmp_path / "in.txt", tmp_path / "out8.npy", *options)
    assert "NaN or infinite" in err
    if on_error == "fail":
        assert status == 1 and "row 0 from" in err and "in.txt, line 4" in err
    else:
        assert np.load(tmp_path / "out8.npy").shape == (4, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--column", "nothing"], "no column 'nothing' among 'id', 'text'"),
        (["--column", "id"], "is of type int64; accepted: string"),
        (["--keep", "nothing"], "name one with --keep"),
    ],
)
def test_wrong_columns_of_parquet_are_named_before_a_model_is_loaded(tiny, sentcore_command, tmp_path, options, said):
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "in.parquet")
    status, _, err = encode(sentcore_command, tmp_path / "in.parquet", tmp_path / "out.jsonl", *options)
    assert status == 1 and said in err
    assert tiny.made == []
    (tmp_path / "in.parquet").write_bytes(b"PAR1 not at all")
    status, _, err = encode(sentcore_command, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert status == 1 and "no parquet file" in err


def test_an_empty_corpus(tiny, sentcore_command, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"")
    for precision in ("float32", "int8"):
        assert encode(sentcore_command, tmp_path / "in.txt", tmp_path / "o.parquet", "--precision", precision)[0] == 0
        found = pq.read_table(tmp_path / "o.parquet")
        assert (len(found), found.column_names) == (0, ["text", "embedding"])
