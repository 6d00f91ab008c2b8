"""Changes to a valid model folder, or to an input file, that know what they change."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

from fuzz import tensors
from fuzz.values import disturb, dump, odd

READ_ALWAYS = ("config.json", "modules.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json")


def files_of(folder: Path, *suffixes: str) -> list[Path]:
    """The ordinary files with one of the suffixes, in order; all where none is named."""
    every = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    readable = [path for path in every if path.stat().st_size < 2**26]  # not a sparse one, made before
    return sorted(path for path in readable if not suffixes or path.suffix in suffixes)


def json_value(folder: Path, rng: Random) -> str:
    """One value of a JSON file, of the small ones more often than of tokenizer.json."""
    files = files_of(folder, ".json")
    path = rng.choice(files)
    if path.name == "tokenizer.json" and rng.random() < 0.5:
        path = rng.choice(files)
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "nothing, as it is no JSON any more"
    said = disturb(tree, rng) if isinstance(tree, (dict, list)) else "nothing"
    path.write_bytes(dump(tree, rng))
    return f"{path.name}: {said}"


def json_text(folder: Path, rng: Random) -> str:
    """A JSON file that is no JSON, or more of it than a stack or a memory holds."""
    path = rng.choice(files_of(folder, ".json"))
    texts = {
        "empty": b"",
        "10,000 lists": b"[" * 10_000,
        "10,000 lists, closed": b"[" * 10_000 + b"]" * 10_000,
        "10,000 objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "10,000 objects in a field": b'{"model_type": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        "900 lists": b'{"model_type": ' + b"[" * 900 + b"]" * 900 + b"}",
        "100 lists": b'{"model_type": ' + b"[" * 100 + b"]" * 100 + b"}",
        "null": b"null",
        "5,000 digits": b'{"hidden_size": ' + b"9" * 5000 + b"}",
        "NaN": b'{"layer_norm_eps": NaN}',
        "half a character": b'{"model_type": "\\ud800"}',
        "not UTF-8": b'{"model_type": "\xff\xfe"}',
        "17 MB": b'{"a": "' + b"x" * (17 * 2**20) + b'"}',
        "a million lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    }
    said = rng.choice(sorted(texts))
    path.write_bytes(texts[said])
    return f"{path.name}: {said}"


def any_bytes(path: Path, rng: Random) -> str:
    """Bytes of a file: cut, changed, put in, taken out, repeated."""
    data = bytearray(path.read_bytes())
    how = rng.choice(("cut", "flip", "insert", "remove", "repeat", "tail"))
    at = rng.randrange(len(data) + 1)
    some = rng.randrange(1, 64)
    if how == "cut":
        del data[at:]
    elif how == "flip":
        for _ in range(rng.randrange(1, 9)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
    elif how == "insert":
        data[at:at] = rng.randbytes(some)
    elif how == "remove":
        del data[at : at + some]
    elif how == "repeat":
        data[at:at] = data[at : at + some] * rng.randrange(1, 40)
    else:
        data += rng.randbytes(some)
    path.write_bytes(data)
    return f"{path.name}: {how} at {at}"


def file_bytes(folder: Path, rng: Random) -> str:
    """Bytes of any file of the folder."""
    return any_bytes(rng.choice(files_of(folder)), rng)


def file_kind(folder: Path, rng: Random) -> str:
    """Something else in a file's place: nothing, a folder, a pipe, a socket, a device, a loop, eight sparse gigabytes."""
    path = rng.choice(files_of(folder))
    how = rng.choice(("nothing", "folder", "pipe", "socket", "/dev/zero", "loop", "dangling", "sparse"))
    if how == "sparse":
        os.truncate(path, 2**33)
        return f"{path.name}: {how}"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path may have about a hundred bytes
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.chdir(here)
    elif how == "/dev/zero":
        path.symlink_to(how)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nowhere")
    return f"{path.name}: {how}"


def link_out(folder: Path, rng: Random) -> str:
    """A file, or a module's folder, that is a link to a good one outside."""
    outside = folder.parent / "outside"
    shutil.copytree(folder, outside, dirs_exist_ok=True)
    there = [name for name in READ_ALWAYS if (folder / name).is_file()]
    name = rng.choice(there)
    path, target = folder / name, outside / name
    if "/" in name and rng.random() < 0.5:
        path, target = path.parent, target.parent
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target if rng.random() < 0.5 else os.path.relpath(target, path.parent))
    return f"{path.name}: a link to {target}"


def path_out(folder: Path, rng: Random) -> str:
    """A path in a file of the folder that leads to a good module or weights outside."""
    outside = folder.parent / "outside"
    shutil.copytree(folder, outside, dirs_exist_ok=True)
    (folder / "a").mkdir(exist_ok=True)
    climb = rng.choice(
        ("../outside", str(outside), "./../outside", "a/../../outside", "a/../../outside/.", "//" + str(outside))
    )
    modules, index = folder / "modules.json", folder / "model.safetensors.index.json"
    if modules.is_file():
        entries = json.loads(modules.read_bytes())
        entry = rng.choice(entries)
        entry["path"] = f"{climb}/{entry['path']}"
        modules.write_text(json.dumps(entries))
    elif index.is_file():
        values = json.loads(index.read_bytes())
        name = rng.choice(sorted(values["weight_map"]))
        values["weight_map"][name] = f"{climb}/{values['weight_map'][name]}"
        index.write_text(json.dumps(values))
    else:
        return link_out(folder, rng)
    return f"a path {climb}"


def rows(path: Path, rng: Random) -> str:
    """A row of an input file that is none, or none that is expected; or its bytes."""
    if path.suffix == ".gz" or rng.random() < 0.4:
        return any_bytes(path, rng)
    odd_rows = [
        json.dumps({"text": odd(rng)}).encode(),
        json.dumps(odd(rng)).encode(),
        b"[" * 10_000,
        b'{"text": ' * 10_000,
        b'{"text": "a", "text": 3}',
        b'{"text": "\\ud83d"}',
        b'{"text": ' + b"9" * 5000 + b"}",
        b'"never closed',
        b"a,b,c,d",
        b"\xff\xfe\x00",
        b'"' + b"x" * 200_000 + b'"',
        b"\0\0\0",
        b"\xef\xbb\xbf",
        b"\r",
        b'1,"a"b"',
    ]
    lines = path.read_bytes().split(b"\n")
    at = rng.randrange(len(lines) + 1)
    lines.insert(at, rng.choice(odd_rows))
    if rng.random() < 0.2:
        rng.shuffle(lines)
    path.write_bytes(b"\n".join(lines))
    return f"{path.name}: a row at {at}"


# mutation -> (how often, whether nothing but a refusal may follow)
OF_FOLDERS: dict[Callable[[Path, Random], str], tuple[int, bool]] = {
    json_value: (30, False),
    json_text: (4, False),
    file_bytes: (10, False),
    file_kind: (6, False),
    link_out: (4, True),
    path_out: (3, True),
    tensors.header: (12, False),
    tensors.safetensors: (10, False),
    tensors.pickled: (12, False),
    tensors.malicious: (4, True),
    tensors.tokenizer: (15, False),
}


def mutate(folder: Path, rng: Random) -> tuple[str, bool]:
    """One to three mutations; (what was done, whether nothing but a refusal may follow)."""
    every = list(OF_FOLDERS)
    weights = [OF_FOLDERS[one][0] for one in every]
    said, must_refuse = [], False
    for place in range(rng.choice((1, 1, 1, 2, 3))):
        chosen = rng.choices(every, weights)[0]
        certain = OF_FOLDERS[chosen][1]
        if certain and place:  # what was done before may have made it unread
            continue
        said.append(f"{chosen.__name__}: {chosen(folder, rng)}")
        must_refuse = certain
        if certain:
            break
    return "; ".join(said), must_refuse
