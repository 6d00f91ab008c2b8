"""The encoder and the layers it is made of."""

from sentcore.layers.encoder import Encoder, EncoderLayer

__all__ = ["Encoder", "EncoderLayer"]
