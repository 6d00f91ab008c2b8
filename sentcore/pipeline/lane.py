"""Batches to a device and rows back while it computes: buffers in turn, none used again before its copy is done."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from sentcore.inputs.packing import pack_flat
from sentcore.packed import PackedBatch, TokenizedTexts, flat_words
from sentcore.pipeline.streams import CudaStreams, ThreadStreams

IN_FLIGHT = 2  # batches queued on the device behind the one whose rows are awaited
_SLOTS = 3  # one packed ahead, one on its way, one that is computed
_LEAST_WORDS = 2**16


class _Slot:
    """One batch's place on the host and on the device.

    Attributes:
        copied, used: marks of the copy to the device and of what computed from it; None before the first.
    """

    def __init__(self) -> None:
        self.host = self.device = None
        self.copied = self.used = None


@dataclass(frozen=True)
class Packed:
    """A batch on the host, in the slot it goes by."""

    slot: _Slot
    batch: PackedBatch


class Rows:
    """Rows [b, E] of any dtype on their way back; `wait` gives them, good until `release`."""

    def __init__(self, streams: CudaStreams | ThreadStreams, source: torch.Tensor, room: _Room) -> None:
        self._streams, self._room = streams, room
        self._source = source  # held until it has been copied
        self._rows = room.tensor[: source.nbytes].view(source.dtype).view(source.shape)
        streams.after("out", streams.mark("compute"))
        streams.copy("out", self._rows, source)
        self._mark = streams.mark("out")

    def wait(self) -> torch.Tensor:
        """The rows on the host."""
        self._streams.wait(self._mark)
        self._source = None
        return self._rows

    def release(self) -> None:
        """They have been read; their memory may be written to."""
        self._room.is_free = True


class _Room:
    """Page-locked bytes for rows."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.is_free = tensor, False


class Lane:
    """The way to a device and back, for one call of encode.

    `pack` may run in another thread than the rest, one batch at a time; batches are sent in the order they were packed.
    """

    def __init__(self, streams: CudaStreams | ThreadStreams) -> None:
        self.streams = streams
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._packed = 0
        self._rooms: list[_Room] = []
        self._packing = Lock()

    def pack(self, tokens: TokenizedTexts, indices: np.ndarray, uncounted_id: int | None) -> Packed:
        """Gathers a batch into the next slot, once that slot's copy before it has left."""
        with self._packing:
            slot = self._slots[self._packed % _SLOTS]
            self._packed += 1
            if slot.copied is not None:
                self.streams.wait(slot.copied)

            def room(words: int) -> torch.Tensor:
                if slot.host is None or len(slot.host) < words:
                    slot.host = self.streams.on_host(_rounded(words), torch.int64)
                return slot.host

            return Packed(slot, pack_flat(tokens, indices, room, uncounted_id))

    def send(self, packed: Packed) -> PackedBatch:
        """Queues the one copy of a batch to the device, before all that is computed from now on."""
        slot, batch, streams = packed.slot, packed.batch, self.streams
        words = flat_words(batch.num_tokens, batch.num_sentences)
        if slot.device is None or len(slot.device) < words:
            slot.device = streams.on_device(len(slot.host), torch.int64)
        elif slot.used is not None:
            streams.after("in", slot.used)
        streams.copy("in", slot.device[:words], slot.host[:words])
        slot.copied = streams.mark("in")
        streams.after("compute", slot.copied)
        return PackedBatch.from_flat(slot.device, batch.num_tokens, batch.num_sentences, batch.max_seqlen)

    def used(self, packed: Packed) -> None:
        """All that reads a batch on the device has been queued, or as much of it as there will be."""
        packed.slot.used = self.streams.mark("compute")

    def fetch(self, rows: torch.Tensor) -> Rows:
        """Queues the copy of what was computed of a batch, [b, E], to the host."""
        return Rows(self.streams, rows.contiguous(), self._room(rows.nbytes))

    def _room(self, count: int) -> _Room:
        for room in self._rooms:
            if room.is_free and len(room.tensor) >= count:
                room.is_free = False
                return room
        self._rooms = [room for room in self._rooms if not room.is_free]  # too small by now
        self._rooms.append(_Room(self.streams.on_host(_rounded(count), torch.uint8)))
        return self._rooms[-1]


def lane_to(device: torch.device) -> Lane | None:
    """A lane to a GPU; None to a CPU, where packing ahead would take the cores that compute."""
    return Lane(CudaStreams(device)) if device.type == "cuda" else None


def _rounded(count: int) -> int:
    return max(_LEAST_WORDS, 1 << (count - 1).bit_length())
