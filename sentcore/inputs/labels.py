"""Word pieces as a reader would write them."""

from __future__ import annotations


def readable(text: str, piece: str) -> str:
    """`text`, or the bytes of its piece where they are no whole characters."""
    if "\ufffd" not in text:
        return text.replace(" ", "␣").replace("\n", "⏎") or piece
    # The byte-level alphabet: printable Latin-1 stands for itself, other bytes in order for U+0100 and on.
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}
    return f"<{' '.join(f'{byte_of[char]:02X}' if char in byte_of else char for char in piece)}>"
