"""MkDocs hook: README becomes the site's first page, and files of the repository that pages link to become pages of it.

So one text serves a reader on GitHub, in a checkout and on the site, and no link leaves the site for a file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = PurePosixPath("docs")
INDEX = "index.md"
FENCES = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^()\s#]+)(#[^()\s]*)?\)")
IMAGES = (".png", ".jpg", ".svg")
LANGUAGES = {".py": "python", ".sh": "bash", ".cpp": "cpp", ".h": "cpp", ".inl": "cpp", ".cu": "cuda", ".cuh": "cuda"}


def on_files(files: Files, config) -> Files:
    """Adds the first page, a page for every file that a page links to, and so on from there, and the images that they show."""
    waiting = [PurePosixPath("README.md"), *(DOCS / file.src_uri for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        uri = place_of(page)
        if page.suffix in IMAGES:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / page)))
        elif page.parts[0] != "docs":
            # a page of the site whose text is made here, not read from docs/
            files.append(File.generated(config, uri, content=content_of(page)))
        if page.suffix == ".md":
            for target in targets_of(page):
                if target not in seen and target.parts[0] != "docs":
                    seen.add(target)
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Turns a page's links to files of the repository into links to their pages."""
    source = source_of(PurePosixPath(page.file.src_uri))
    return relinked(markdown, source) if source.suffix == ".md" else markdown


def place_of(path: PurePosixPath) -> str:
    """Where a file of the repository, by its path there, stands among the site's sources."""
    if path == PurePosixPath("README.md"):
        return INDEX
    if path.parts[0] == "docs":
        return str(path.relative_to(DOCS))
    shown = path.suffix in (".md", *IMAGES)
    return str("repository" / (path if shown else path.with_name(path.name + ".md")))


def source_of(uri: PurePosixPath) -> PurePosixPath:
    """The file of the repository that a page of the site shows."""
    if str(uri) == INDEX:
        return PurePosixPath("README.md")
    if uri.parts[0] != "repository":
        return DOCS / uri
    path = uri.relative_to("repository")
    return path if (ROOT / path).is_file() else path.with_suffix("")


def content_of(path: PurePosixPath) -> str:
    """The page's Markdown: the file's own, or its text as code under its path."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return f"# {path}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"


def targets_of(page: PurePosixPath) -> list[PurePosixPath]:
    """Files of the repository that a page links to, images left out; a folder stands for its README."""
    prose = FENCES.sub("", (ROOT / page).read_text(encoding="utf-8"))
    found = (resolved(page, match[2]) for match in LINK.finditer(prose))
    return [path for path in found if path is not None and path.suffix != ".svg"]


def resolved(page: PurePosixPath, target: str) -> PurePosixPath | None:
    """The file of the repository that a link of `page` leads to, or None."""
    if re.match(r"[a-z]+:", target):
        return None
    path = (ROOT / page.parent / target).resolve()
    if path.is_dir():
        path /= "README.md"
    return PurePosixPath(path.relative_to(ROOT).as_posix()) if path.is_file() and path.is_relative_to(ROOT) else None


def relinked(markdown: str, page: PurePosixPath) -> str:
    """The Markdown with every link to a file of the repository led to that file's page, code left alone."""

    def change(match: re.Match) -> str:
        target = resolved(page, match[2])
        if target is None:
            return match[0]
        place = os.path.relpath(place_of(target), PurePosixPath(place_of(page)).parent).replace(os.sep, "/")
        if target.suffix == ".svg":
            place = os.path.relpath(target.relative_to(DOCS), PurePosixPath(place_of(page)).parent)
        return f"{match[1]}{place}{match[3] or ''})"

    parts = FENCES.split(markdown)
    return "".join(part if index % 2 else LINK.sub(change, part) for index, part in enumerate(parts))
