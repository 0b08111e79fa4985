"""Pictures of lines in few bytes, without loss.

Down the columns, from left to right, a picture of a line is a sequence of groups: pixels without ink, pixels in
between, pixels full of ink. A group is the number of the first, a byte with the numbers of the second and third (four
bits each), and the levels of the second. A number that does not fit continues in further bytes. Pixels without ink at
the end are left out.

Shapes: N pictures, H = W = size. Compiled like `strokes`, and imported when it is first used for the same reason.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from timeseries_dualmodal.strokes import compiled

Bytes = NDArray[np.uint8]
FEW = 15  # the number of four bits that says: more follows
MOST_PER_PIXEL, MOST_BESIDES = 2, 16  # bytes


@compiled
def _put_number(data: Bytes, at: int, number: int) -> int:
    """Seven bits a byte, the lowest first; the eighth says that another follows. Returns the place after it."""
    while number > 127:
        data[at] = (number & 127) | 128
        number >>= 7
        at += 1
    data[at] = number
    return at + 1


@compiled
def _get_number(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The number at a place, and the place after it; -1 where the data end before it or it is too large."""
    number = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            return -1, at
        byte = np.int64(data[at])
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
    return -1, at


@compiled
def _pack(picture: Bytes, levels: Bytes, data: Bytes, at: int) -> int:
    """One picture; `levels` (H * W) is used for its columns. Returns the place after it."""
    height, width = picture.shape
    for j in range(height):
        for c in range(width):
            levels[c * height + j] = picture[j, c]
    end = height * width
    while end > 0 and levels[end - 1] == 0:
        end -= 1
    p = 0
    while p < end:
        start = p
        while levels[p] == 0:  # the last level is none of these
            p += 1
        between = p
        while between < end and 0 < levels[between] < 255:
            between += 1
        full = between
        while full < end and levels[full] == 255:
            full += 1
        at = _put_number(data, at, p - start)
        some, many = between - p, full - between
        data[at] = min(some, FEW) << 4 | min(many, FEW)
        at += 1
        if some >= FEW:
            at = _put_number(data, at, some - FEW)
        if many >= FEW:
            at = _put_number(data, at, many - FEW)
        for i in range(p, between):
            data[at] = levels[i]
            at += 1
        p = full
    return at


@compiled
def pack(picture_NHW: Bytes, data: Bytes) -> NDArray[np.int64]:
    """Writes pictures one after the other into `data`; returns where each ends, (N,)."""
    pictures, height, width = picture_NHW.shape
    levels, end_N = np.empty(height * width, np.uint8), np.empty(pictures, np.int64)
    at = 0
    for n in range(pictures):
        at = _pack(picture_NHW[n], levels, data, at)
        end_N[n] = at
    return end_N


@compiled
def _unpack(data: Bytes, at: int, end: int, picture: Bytes) -> bool:
    """One picture; False where the data are none."""
    height, width = picture.shape
    picture[:] = 0
    p = 0
    while at < end:
        none, at = _get_number(data, at, end)
        if none < 0 or at >= end:
            return False
        some, many = np.int64(data[at] >> 4), np.int64(data[at] & 15)
        at += 1
        if some == FEW:
            more, at = _get_number(data, at, end)
            if more < 0:
                return False
            some += more
        if many == FEW:
            more, at = _get_number(data, at, end)
            if more < 0:
                return False
            many += more
        p += none
        if p + some + many > height * width or at + some > end:
            return False
        c, j = p // height, p % height
        for i in range(some + many):
            picture[j, c] = data[at + i] if i < some else 255
            j += 1
            if j == height:
                j, c = 0, c + 1
        at += some
        p += some + many
    return True


@compiled
def unpack(
    data: Bytes,
    begin_K: NDArray[np.int64],
    end_K: NDArray[np.int64],
    place_K: NDArray[np.int64],
    picture_NHW: Bytes,
) -> bool:
    """Reads K pictures from their places in `data` into `picture_NHW[place_K]`. False where one of them is damaged."""
    whole = True
    for k in range(len(place_K)):
        whole &= _unpack(data, begin_K[k], end_K[k], picture_NHW[place_K[k]])
    return whole
