"""`sentcore info` and `--version`."""

import json

import sentcore._extension as extension
from sentcore._version import __version__


def test_version(sentcore_command):
    assert sentcore_command("--version")[:2] == (0, f"sentcore {__version__}\n")


def test_info_json_is_build_info(sentcore_command):
    status, out, _ = sentcore_command("info", "--json")
    assert status == 0
    assert json.loads(out) == json.loads(json.dumps(extension.build_info()))


def test_info_names_every_op_and_reason(sentcore_command):
    status, out, _ = sentcore_command("info")
    assert status == 0
    for op, kinds in extension.build_info()["ops"].items():
        assert op in out
        for entry in kinds.values():
            assert entry["runs"] in out
            assert entry["why_not_native"] is None or entry["why_not_native"] in out


def test_info_without_an_extension_says_why(sentcore_command, monkeypatch):
    monkeypatch.setattr(extension, "_extension", None)
    monkeypatch.setattr(extension, "_compiled", {})
    monkeypatch.setattr(extension, "WHY_ABSENT", "nobody built it; build it")
    status, out, _ = sentcore_command("info")
    assert status == 0
    assert "extension: absent: nobody built it; build it" in out


def test_info_shows_a_device_that_runs_plain_pytorch(sentcore_command, monkeypatch):
    device = {
        "device": "cuda:0",
        "name": "An Old Card",
        "capability": (6, 1),
        "runs_native": False,
        "why_not": "too old; buy another",
        "why_no_fp8": "too old; buy another",
    }
    monkeypatch.setattr(extension, "_devices", lambda: [device])
    out = sentcore_command("info")[1]
    assert "cuda:0: An Old Card (compute capability 6.1), plain PyTorch: too old; buy another" in out
