"""README, docs/*.md and examples/README.md as data: their fenced blocks and their links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
LINKING = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"))]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its first line, and the ```text block right behind it."""

    page: Path
    language: str
    text: str
    line: int
    output: str | None

    @property
    def name(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """The page's path in the repository, with forward slashes."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks in their order."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    result = []
    for match, behind in zip(found, [*found[1:], None][: len(found)], strict=True):
        shown = behind is not None and behind[1] == "text" and not text[match.end() : behind.start()].strip()
        line = text.count("\n", 0, match.start(2)) + 1
        result.append(Block(page, match[1], match[2], line, behind[2] if shown else None))
    return result


def commands(block: Block) -> list[list[str]]:
    """The words of every command of a bash block; comments left out, lines that end with a backslash joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def links(page: Path) -> list[str]:
    """Targets of the page's links and images, code left out."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return _LINK.findall(re.sub(r"`[^`\n]*`(?!\])", "", text))


def anchors(page: Path) -> set[str]:
    """What a link to the page may name behind #, as GitHub and MkDocs make it of the headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {re.sub(r"[ ]", "-", word.strip()) for word in words}
