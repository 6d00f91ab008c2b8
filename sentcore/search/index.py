"""SearchIndex: the features of a corpus, and the texts nearest to a query."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sentcore._version import __version__
from sentcore.encode_options import pick_prompt
from sentcore.errors import ArgumentTypeError, ArgumentValueError, NonFiniteError
from sentcore.inputs.texts import check_texts
from sentcore.integrations import faiss_search
from sentcore.search.exact import top_k
from sentcore.search.fingerprint import fingerprint
from sentcore.search.store import IndexWriter, open_files, read_manifest, refuse_differences
from sentcore.sentence_encoder import SentenceEncoder

INDEX_TYPES = ("exact", "faiss")
# sentence-transformers' names of the prompts that encode_query and encode_document look for
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
BLOCK = 8192  # rows copied at once when an index is saved


class SearchIndex:
    """Texts, their features, and the model that made them; from `build` or `load`.

    Attributes:
        model: the SentenceEncoder.
        features: [N, E] float32; memory-mapped where they lie in a folder. Of length 1 where the similarity is cosine.
        texts: N texts, in the order of the corpus.
        manifest: what is kept with them: the model's fingerprint, options, the corpus's identity.
    """

    def __init__(self, model: SentenceEncoder, features: np.ndarray, texts: Sequence[str], manifest: dict, faiss=None):
        self.model, self.features, self.texts, self.manifest = model, features, texts, manifest
        self._faiss = faiss

    @classmethod
    def build(
        cls,
        model: SentenceEncoder,
        texts: Iterable[str],
        folder: str | Path | None = None,
        *,
        corpus: dict | None = None,
        index_type: str = "exact",
        faiss_factory: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        truncate_dim: int | None = None,
        chunk: str | None = None,
        chunk_overlap: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> SearchIndex:
        """Encodes a corpus.

        Args:
            model: scores are its similarity_fn_name, cosine by default.
            texts: any number; with a folder they are held a block at a time.
            folder: write the index there, whole or not at all; one that is there is replaced. None keeps it in memory.
            corpus: what the corpus is known by, JSON values, which `load` compares; None for a SHA-256 of the texts.
            index_type: "exact", or "faiss" (extra `[faiss]`), which is approximate and faster on millions of texts.
            faiss_factory: for faiss's `index_factory`; None for "HNSW32".
            prompt_name, prompt: put before every text; None takes the model's prompt "document", "passage" or "corpus", the
                first that it has.
            The rest as in `SentenceEncoder.encode`; queries are encoded with the same truncate_dim.

        Raises:
            ArgumentValueError: a bad option or text, or no text at all.
            NonFiniteError: a feature is NaN or infinite.
        """
        if index_type not in INDEX_TYPES:
            raise ArgumentValueError(f"index_type is {index_type!r}; accepted: {', '.join(INDEX_TYPES)}")
        if faiss_factory is not None and index_type != "faiss":
            raise ArgumentValueError(
                f"faiss_factory is {faiss_factory!r} and index_type {index_type!r}; accepted with it: 'faiss'"
            )
        similarity = model.similarity_fn_name
        factory = (faiss_factory or faiss_search.DEFAULT_FACTORY) if index_type == "faiss" else None
        if factory is not None:  # before the work: is faiss there, and does it know the string?
            dimension = model.get_sentence_embedding_dimension()
            faiss_search.check(similarity, factory, min(dimension, truncate_dim or dimension))
        options = {
            "index_type": index_type,
            "faiss_factory": factory,
            "prompt": _prompt(model, prompt_name, prompt, DOCUMENT_PROMPTS) or "",
            "truncate_dim": truncate_dim,
            "chunk": chunk,
            "chunk_overlap": chunk_overlap,
        }
        manifest = {
            "sentcore": __version__,
            "model": {"folder": str(model.checkpoint.folder), **fingerprint(model)},
            "options": options,
        }
        digest = hashlib.sha256()
        blocks = _encoded(
            model, texts, digest,
            prompt=options["prompt"], batch_tokens=batch_tokens, show_progress_bar=show_progress_bar,
            truncate_dim=truncate_dim, chunk=chunk, chunk_overlap=chunk_overlap,
            normalize_embeddings=similarity == "cosine",
        )  # fmt: skip
        if folder is None:
            kept, rows = [], []
            for block, features in blocks:
                kept += block
                rows.append(features)
            _refuse_nothing(len(kept))
            features = np.concatenate(rows)
            manifest["corpus"] = corpus or {"sha256": digest.hexdigest()}
            faiss = None if factory is None else faiss_search.build(features, similarity, factory)
            return cls(model, features, kept, manifest, faiss)
        return cls._write(model, Path(folder), blocks, manifest, lambda: corpus or {"sha256": digest.hexdigest()})

    @classmethod
    def _write(cls, model, folder: Path, blocks, manifest: dict, identity, faiss=None) -> SearchIndex:
        """Blocks of (texts, features) into a folder, and the index that is then there."""
        factory = manifest["options"]["faiss_factory"]
        writer = None
        try:
            for texts, features in blocks:
                writer = writer or IndexWriter(folder, features.shape[1])
                writer.write(texts, features)
            _refuse_nothing(writer.rows if writer else 0)
            writer.finish()
            if factory is not None:
                if faiss is None:
                    rows = np.load(writer.path("features"), mmap_mode="r")
                    faiss = faiss_search.build(rows, model.similarity_fn_name, factory)
                faiss_search.write(faiss, writer.path("faiss"))
            manifest = {**manifest, "corpus": identity()}
            writer.commit(manifest)
        except BaseException:  # Ctrl-C too: the index that was there stays as it was
            if writer is not None:
                writer.discard()
            raise
        features, texts = open_files(folder, read_manifest(folder))
        return cls(model, features, texts, manifest, faiss)

    def save(self, folder: str | Path) -> None:
        """Writes the index to a folder, whole or not at all; one that is there is replaced."""

        def blocks() -> Iterator[tuple[list[str], np.ndarray]]:
            for first in range(0, len(self), BLOCK):
                places = range(first, min(first + BLOCK, len(self)))
                yield [self.texts[place] for place in places], self.features[first : first + BLOCK]

        self._write(self.model, Path(folder), blocks(), self.manifest, lambda: self.manifest["corpus"], self._faiss)

    @classmethod
    def load(
        cls, folder: str | Path, model: SentenceEncoder, *, corpus: dict | None = None, options: dict | None = None
    ) -> SearchIndex:
        """An index that was saved, memory-mapped.

        Args:
            folder: where.
            model: the one it was built with: weights, tokenizer, dtype and lengths are compared.
            corpus: what `build` was given as such, which is compared; None takes the index as it is.
            options: entries of manifest["options"] that must agree, as {"chunk": "mean"}.

        Raises:
            MissingFileError: there is none.
            IndexMismatchError: the model, the corpus or an option differs, or a file is damaged; it says in what.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        built_with = f"{folder} was built with the model {manifest['model'].get('folder')}, which"
        refuse_differences(built_with, manifest["model"], fingerprint(model))
        refuse_differences(f"{folder}: the corpus", manifest["corpus"], corpus or {})
        refuse_differences(f"{folder}: the index", manifest["options"], options or {})
        features, texts = open_files(folder, manifest)
        name = manifest["files"].get("faiss")
        return cls(model, features, texts, manifest, None if name is None else faiss_search.read(folder / name))

    def __len__(self) -> int:
        """Texts in the index."""
        return len(self.texts)

    def search(
        self,
        queries: str | Iterable[str],
        k: int = 10,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_tokens: int | None = None,
    ) -> list[dict] | list[list[dict]]:
        """The k texts most like each query, best first; equal scores in the order of the corpus.

        Args:
            queries: a text or several.
            k: at least 1; all texts where there are fewer.
            prompt_name, prompt: put before every query; None takes the model's prompt "query" where it has one.

        Returns:
            For one query a list of {"corpus_id": int, "score": float, "text": str}; for several a list of such lists.
        """
        if isinstance(k, bool) or not isinstance(k, int):
            raise ArgumentTypeError(f"k is {k!r} of type {type(k).__name__}; accepted: an integer of at least 1")
        if k < 1:
            raise ArgumentValueError(f"k is {k}; accepted: at least 1")
        asked, single = check_texts(queries)
        similarity = self.model.similarity_fn_name
        features = self.model.encode(
            asked,
            prompt=_prompt(self.model, prompt_name, prompt, QUERY_PROMPTS) or "",
            batch_tokens=batch_tokens,
            normalize_embeddings=similarity == "cosine",
            truncate_dim=self.manifest["options"]["truncate_dim"],
        )
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise NonFiniteError(f"queries[{bad[0]}] has a feature that is NaN or infinite; load with dtype='float32'")
        k = min(k, len(self))
        if self._faiss is not None:
            scores, rows = faiss_search.search(self._faiss, features, k)
        else:
            scores, rows = top_k(features, self.features, k, similarity)
        hits = [
            [
                {"corpus_id": row, "score": score, "text": self.texts[row]}
                for row, score in zip(found, of, strict=True)
                if row >= 0
            ]
            for found, of in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
        return hits[0] if single else hits


def _prompt(model: SentenceEncoder, prompt_name: str | None, prompt: str | None, usual: tuple[str, ...]) -> str | None:
    if prompt is not None and prompt_name is not None:
        raise ArgumentValueError(f"prompt_name is {prompt_name!r} and prompt {prompt!r}; accepted: one of them")
    if prompt is None and prompt_name is None:
        prompt_name = next((name for name in usual if name in model.prompts), None)
    return pick_prompt(model, prompt_name, prompt)


def _encoded(model, texts: Iterable[str], digest, **options) -> Iterator[tuple[list[str], np.ndarray]]:
    """(texts, their features) a block at a time; the digest is told of every text."""
    if isinstance(texts, str):
        raise ArgumentTypeError(f"texts is the text {texts[:40]!r}; accepted: a sequence of texts, as [text]")
    held: deque[str] = deque()

    def remembered() -> Iterator[str]:
        for text in texts:
            held.append(text)
            yield text

    for index, rows in model.encode_iter(remembered(), **options):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"texts[{index[bad[0]]}] has a feature that is NaN or infinite; load the model with dtype='float32'"
            )
        block = [str(held.popleft()) for _ in range(len(index))]
        for text in block:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        yield block, rows


def _refuse_nothing(count: int) -> None:
    if count == 0:
        raise ArgumentValueError("texts holds no text; accepted: at least one, to search in")
