"""SipHash-2-4 (Aumasson and Bernstein 2012) of many texts at once, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WORD = 8  # bytes of a text taken in at a time
_ROTATIONS = (np.array([[13], [16]], np.uint64), np.array([[17], [21]], np.uint64))
_START = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


def siphash(texts: Sequence[str], key: bytes) -> np.ndarray:
    """The hash of each text's UTF-8 with a ``key`` of 16 bytes, uint64 of shape ``(len(texts),)``."""
    words, starts, counts = _words([text.encode() for text in texts])
    order = np.argsort(-counts, kind="stable")  # longest first: those that have another word are a slice
    starts = starts[order]
    state = np.array(_START, np.uint64) ^ np.tile(np.frombuffer(key, "<u8").astype(np.uint64), 2)
    # v0 and v2 in one array, v1 and v3 in the other, each of shape (2, texts): what is done to both is done at once
    even, odd = (np.repeat(state[i::2, None], len(texts), axis=1) for i in (0, 1))
    longer = np.cumsum(np.bincount(counts)[::-1])[::-1]  # how many texts have so many words or more
    for place, number in enumerate(longer[1:].tolist()):
        word = words[starts[:number] + place]
        odd[1, :number] ^= word
        _rounds(even[:, :number], odd[:, :number], 2)
        even[0, :number] ^= word
    even[1] ^= np.uint64(0xFF)
    _rounds(even, odd, 4)
    result = np.empty(len(texts), np.uint64)
    result[order] = np.bitwise_xor.reduce(even ^ odd)
    return result


def _words(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(words of all texts, where each text's start, how many it has)``; the last one's last byte is its length."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    padded = b"".join([text + bytes(_WORD - len(text) % _WORD) for text in texts])
    words = np.frombuffer(padded, "<u8").astype(np.uint64)
    counts = lengths // _WORD + 1
    ends = np.cumsum(counts)
    words[ends - 1] |= lengths.astype(np.uint64) << np.uint64(56)
    return words, ends - counts, counts


def _rounds(even: np.ndarray, odd: np.ndarray, count: int) -> None:
    """Rounds of both halves of the state, in place."""
    for _ in range(count):
        for left in _ROTATIONS:
            even += odd
            _rotate(odd, left)
            odd ^= even
            _rotate(even[0], np.uint64(32))
            even = even[::-1]


def _rotate(values: np.ndarray, left: np.ndarray | np.uint64) -> None:
    values[:] = (values << left) | (values >> (np.uint64(64) - left))
