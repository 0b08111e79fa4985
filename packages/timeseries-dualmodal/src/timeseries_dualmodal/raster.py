"""Anti-aliased line plots of whole batches, on CPUs.

Shapes: N pictures, P points of a line, H = W = size. `raster_torch` does the same on other devices.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray


def draw(
    x_NP: NDArray[np.float32],
    y_NP: NDArray[np.float32],
    size: int,
    width: float,
    marker: float = 0.0,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Lines with round caps and joins -> how much of each pixel they cover, 0..255, (N, size, size).

    What is covered is the exact area, as far as single precision goes, of the outline that matplotlib's Agg strokes.
    A picture depends on its own row alone, bit for bit; and further points change nothing left of the last point's cap.

    Args:
        x_NP, y_NP: points in pixels from the upper left corner, y downwards; what lies outside the picture is cut off.
            A point that is not finite is a gap in the line; a point alone between gaps is a dot.
        width: of the line, in pixels.
        marker: diameter of a dot at each point, in pixels; 0: none.
        threads: of the processor, each with its share of the pictures.

    Raises:
        ValueError: x and y are not two arrays of the same shape (N, P); the size or the width is not positive.
    """
    if x_NP.ndim != 2 or x_NP.shape != y_NP.shape:
        raise ValueError(f"points of shapes {x_NP.shape} and {y_NP.shape}: must both be (pictures, points)")
    if size < 1 or not width > 0 or not marker >= 0:
        raise ValueError(f"size {size}, width {width}, marker {marker}: must be positive")
    from timeseries_dualmodal import strokes  # takes a second

    x_NP, y_NP = np.ascontiguousarray(x_NP, np.float32), np.ascontiguousarray(y_NP, np.float32)
    picture_NHW = np.empty((len(x_NP), size, size), np.uint8)

    def draw_some(rows: slice) -> None:
        strokes.draw(x_NP[rows], y_NP[rows], width / 2, marker / 2, picture_NHW[rows])

    if threads <= 1:
        draw_some(slice(None))
    else:
        borders = np.linspace(0, len(x_NP), threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw_some, map(slice, borders[:-1], borders[1:])))
    return picture_NHW
