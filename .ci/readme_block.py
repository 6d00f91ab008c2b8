"""Prints the README's bash block with the given number, counted from 1."""

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
print(blocks[int(sys.argv[1]) - 1], end="")
