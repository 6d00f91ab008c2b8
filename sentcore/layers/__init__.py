"""The encoder and the layers it is made of."""

from sentcore.layers.encoder import Encoder
from sentcore.layers.encoder_layer import EncoderLayer

__all__ = ["Encoder", "EncoderLayer"]
