"""What a call has to say once, when all is computed: cut texts, values that are no numbers, memory that ran out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from sentcore.errors import TruncationWarning
from sentcore.pipeline.memory import TokenBudget

_SHOWN = 5  # positions named in a message
_KEPT = 1000  # positions remembered


@dataclass
class Places:
    """Some positions in the input: how many there are, and which the first ones were."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, positions: list[int]) -> None:
        """More of them."""
        self.count += len(positions)
        self.first.extend(positions[: max(0, _KEPT - len(self.first))])

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.first[:_SHOWN]))
        return shown + (", ..." if self.count > _SHOWN else "")


@dataclass
class Notes:
    """Counts of one call, or of a part of it.

    Attributes:
        texts: how many were computed; tokens: of these; cut: of these, at max_length.
        retried: features that were NaN or infinite in `dtype` and are finite in float32; non_finite: those that are not.
        lowest: the token budget that was gone down to where memory ran out, else None.
    """

    texts: int = 0
    tokens: int = 0
    cut: int = 0
    retried: Places = field(default_factory=Places)
    non_finite: Places = field(default_factory=Places)
    lowest: int | None = None

    def add(self, other: Notes) -> None:
        """Counts a part, whose positions are those of the whole input."""
        self.texts += other.texts
        self.tokens += other.tokens
        self.cut += other.cut
        for mine, others in ((self.retried, other.retried), (self.non_finite, other.non_finite)):
            mine.count += others.count
            mine.first.extend(others.first[: max(0, _KEPT - len(mine.first))])
        if other.lowest is not None:
            self.lowest = other.lowest if self.lowest is None else min(self.lowest, other.lowest)

    def shifted(self, first: int) -> Notes:
        """The same with positions counted from another start."""
        moved = [Places(p.count, [first + place for place in p.first]) for p in (self.retried, self.non_finite)]
        return Notes(self.texts, self.tokens, self.cut, *moved, self.lowest)

    def are_any(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.cut or self.retried.count or self.non_finite.count or self.lowest is not None)

    def warn(self, max_length: int, dtype: str, asked: int) -> None:
        """One warning each, of what there is.

        Args:
            max_length: tokens a text is cut at.
            dtype: what the features were computed in.
            asked: the token budget of the call.
        """
        if self.cut:
            warnings.warn(
                f"{self.cut} of {self.texts} texts are longer than {max_length} tokens and were cut there; "
                "chunk='mean' or chunk='max' (--chunk) encodes all of a text",
                TruncationWarning,
                stacklevel=4,
            )
        if self.retried.count:
            warnings.warn(
                f"{self.retried.count} of {self.texts} features were NaN or infinite in {dtype} and were computed again in "
                f"float32 (sentences {self.retried})",
                RuntimeWarning,
                stacklevel=4,
            )
        if self.non_finite.count:
            remedy = "look at the model's weights" if dtype == "float32" else "use dtype='float32' for these"
            warnings.warn(
                f"{self.non_finite.count} of {self.texts} features are NaN or infinite (sentences {self.non_finite}); "
                f"{remedy}",
                RuntimeWarning,
                stacklevel=4,
            )
        if self.lowest is not None:
            _memory_ran_out(asked, self.lowest)


def note_memory(budget: TokenBudget) -> None:
    """One warning where a budget had to give way."""
    if budget.lowest < budget.asked:
        _memory_ran_out(budget.asked, budget.lowest)


def _memory_ran_out(asked: int, lowest: int) -> None:
    warnings.warn(
        f"memory ran out; batches of {asked} tokens were made smaller, down to {lowest}, and no text was lost. "
        f"batch_tokens={lowest} (--batch-tokens) asks for no more at once",
        RuntimeWarning,
        stacklevel=5,
    )
