"""The part of H.264 bitstreams (ITU-T H.264) that sampling needs: which other pictures a picture is needed for."""

from __future__ import annotations

from collections.abc import Iterator

_SLICES = range(1, 6)
_IDR = 5
_SHARED = frozenset({7, 8, 13, 15})
"""NAL unit types of parameter sets, on which later pictures may depend."""
_I_SLICE_TYPES = frozenset({2, 4, 7, 9})
"""Slice types I and SI (table 7-6)."""


def nal_length_bytes(extradata: bytes | None) -> int:
    """Return the size in bytes of the length before each NAL unit; 0 for a byte stream with start codes.

    MP4 and Matroska store it in the codec's header (ISO/IEC 14496-15, 5.3.3.1).
    """
    if extradata is None or len(extradata) < 7 or extradata[0] != 1:
        return 0
    return (extradata[4] & 3) + 1


def is_unreferenced(packet: memoryview, length_bytes: int) -> bool:
    """Return whether no other picture refers to this one: nal_ref_idc is 0 (7.4.1).

    False if the packet also carries parameter sets.
    """
    for unit in _units(packet, length_bytes):
        kind = unit[0] & 0x1F
        if kind in _SLICES:
            return unit[0] & 0x60 == 0
        if kind in _SHARED:
            return False
    return False


def is_clean_start(packet: memoryview, length_bytes: int) -> bool:
    """Return whether decoding from here gives the right picture at once: all its slices are intra.

    Periodic intra refresh marks pictures as key frames from which a decoder recovers only after a while.
    """
    slices = [unit for unit in _units(packet, length_bytes) if unit[0] & 0x1F in _SLICES]
    return all(unit[0] & 0x1F == _IDR or _slice_type(bytes(unit[1:9])) in _I_SLICE_TYPES for unit in slices)


def is_idr(packet: memoryview, length_bytes: int) -> bool:
    """Return whether no picture after this one, in the file's order, refers to one before it (7.4.1.2.4)."""
    return any(unit[0] & 0x1F == _IDR for unit in _units(packet, length_bytes))


def _units(packet: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """Yield the NAL units of a packet that are not empty."""
    if not length_bytes:
        parts = bytes(packet).split(b"\x00\x00\x01")
        yield from (memoryview(part) for part in parts[1:] if part)
        return
    at = 0
    while at + length_bytes < len(packet):
        start = at + length_bytes
        at = start + int.from_bytes(packet[at:start], "big")
        if at > start:
            yield packet[start:at]


def _slice_type(header: bytes) -> int:
    """Return the second Exp-Golomb number of a slice header (7.3.3); the first is its first macroblock's address."""
    bits = "".join(f"{byte:08b}" for byte in header)
    value = -1
    for _ in range(2):
        zeros = len(bits) - len(bits.lstrip("0"))
        value = int(bits[zeros : 2 * zeros + 1] or "0", 2) - 1
        bits = bits[2 * zeros + 1 :]
    return value
