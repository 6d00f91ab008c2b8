"""Bad rows are named by file and line."""

import gzip

import pytest

from sentcore.pipeline.corpus import InputError, read_file


@pytest.mark.parametrize(
    ("name", "data", "line", "said"),
    [
        ("in.txt", b"ok\nok\n\xff\xfe\n", 3, "not UTF-8"),
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', 2, "not JSON"),
        ("in.jsonl", b'{"text": "a"}\n\n{"body": "b"}\n', 3, "'body'"),
        ("in.jsonl", b'{"text": null}\n', 1, "null"),
        ("in.jsonl", b'{"text": true}\n', 1, "boolean"),
        ("in.jsonl", b'{"text": 3.5}\n', 1, "number"),
        ("in.jsonl", b'{"text": ["a"]}\n', 1, "array"),
        ("in.jsonl", b'"a"\n', 1, "string"),
        ("in.jsonl", b'{"text": "\\ud800"}\n', 1, "U+D800"),
        ("in.jsonl", b"[" * 200_000 + b"\n", 1, "not JSON"),
        ("in.csv", b"a,b\n1,2\n", 1, "'a', 'b'"),
        ("in.csv", b"text,text\n1,2\n", 1, "2 columns"),
        ("in.csv", b"a,text\n1,2\n\n3\n", 4, "complete the row"),
        ("in.csv", b'a,text\n1,"x\ny"\n3,4,5\n', 4, "3 fields"),
        ("in.csv", b'text\n"never closed\n', 2, "not CSV"),
    ],
)
def test_a_bad_row_is_named(tmp_path, name, data, line, said):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        list(read_file(path, "text"))
    assert f"{path}, line {line}:" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"no gzip at all"])
def test_damaged_gzip_is_named(tmp_path, damage):
    path = tmp_path / "in.txt.gz"
    path.write_bytes(damage(gzip.compress(bytes(range(32, 127)) * 999)))
    with pytest.raises(InputError, match="gzip data is damaged"):
        list(read_file(path, "text"))


def test_a_line_without_an_end_is_refused_before_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("sentcore.pipeline.corpus.lines.LONGEST_LINE", 1000)
    path = tmp_path / "in.txt.gz"
    for first, number in ((1000, 1), (999, 2)):
        path.write_bytes(gzip.compress(b"x" * first + b"\n" + b"x" * 10**6))
        with pytest.raises(InputError, match=f"line {number}: more than 1000 bytes"):
            list(read_file(path, "text"))


def test_a_line_of_a_megabyte_and_odd_line_ends_stay_whole(tmp_path):
    long = "x" * 1_000_000
    (tmp_path / "in.txt").write_bytes(f"{long}\r\na\u2028b\x85c\rd\n".encode())
    assert list(read_file(tmp_path / "in.txt", "text")) == [long, "a\u2028b\x85c\rd"]
    (tmp_path / "in.csv").write_bytes(f'text\n"{long}"\n'.encode())
    assert list(read_file(tmp_path / "in.csv", "text")) == [long]
