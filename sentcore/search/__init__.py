"""Search: features of a corpus, kept in memory or in a folder, and the nearest texts to a query."""

from sentcore.search.index import SearchIndex
from sentcore.search.store import IndexMismatchError, is_index

__all__ = ["IndexMismatchError", "SearchIndex", "is_index"]
