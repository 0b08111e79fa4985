"""Pose files of JABS (h5), versions 2 and up: `poseest/points` (frames, instances, 12 parts, y and x) in whole pixels,
`poseest/confidence` without the last axis, 0 where a point is missing.

An instance is a mouse of that frame, in no lasting order. Which mouse it is says `instance_embed_id`, from 1 on, where
`id_mask` is 0 (version 4 and up); version 3 has only `instance_track_id`, which starts anew after every gap.

Shapes: T frames, N instances, A animals, P = 12 parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.formats import h5
from mabe_behavior.formats.camera import Camera, checked
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

PARTS = (
    *("nose", "ear_left", "ear_right", "neck", "forepaw_left", "forepaw_right", "body_center"),
    *("hindpaw_left", "hindpaw_right", "tail_base", "tail_midpoint", "tail_tip"),
)
FPS = 30.0


def read(
    path: Path,
    fps: float = FPS,
    pixels_per_cm: float | None = None,
    width: float | None = None,
    height: float | None = None,
) -> Tracks:
    """The positions of a pose file.

    Args:
        pixels_per_cm: of the picture; None: 1 / `cm_per_pixel` of the file.

    Raises UserError where the file is none of JABS, does not say which mouse is which, or the scale is not known.
    """
    where = str(path)
    with h5.opened(path) as stream:
        pose = stream.get("poseest")
        if pose is None:
            raise UserError(f"{where}: has no group poseest; it holds {', '.join(stream) or 'nothing'}")
        points, confidence = h5.array(pose, "points", where), h5.array(pose, "confidence", where)
        if points.ndim == 3:  # version 2: one mouse, no axis for instances
            points, confidence = points[:, None], confidence[:, None]
        if points.ndim != 4 or points.shape[2:] != (len(PARTS), 2) or confidence.shape != points.shape[:3]:
            raise UserError(
                f"{where}: points of shape {points.shape}, confidence {confidence.shape}; must be (frames, instances, "
                "12 parts, y and x), and the same without the last axis"
            )
        mouse_TN = _mice(pose, points.shape[:2], where)
        scale = _scale(pose, where) if pixels_per_cm is None else pixels_per_cm
    there = np.nonzero(mouse_TN >= 0)
    shape = (len(points), max(int(mouse_TN.max(initial=-1)) + 1, 1), len(PARTS))
    if len(set(zip(there[0].tolist(), mouse_TN[there].tolist(), strict=True))) != len(there[0]):
        raise UserError(f"{where}: two instances of a frame are the same mouse")
    xy_TAPX, sure_TAP = np.full((*shape, 2), np.nan, np.float32), np.zeros(shape, np.float32)
    xy_TAPX[there[0], mouse_TN[there]] = points[there][..., ::-1]  # y and x -> x and y
    sure_TAP[there[0], mouse_TN[there]] = confidence[there]
    xy_TAPX[~(sure_TAP > 0)] = np.nan
    camera = Camera(fps, scale, width, height)
    mice = tuple(f"mouse{k + 1}" for k in range(shape[1]))
    return checked(Tracks(xy_TAPX, mice, PARTS, camera.fps, camera.pixels_per_cm, sure_TAP, width, height), where)


def _mice(pose: Any, shape_TN: tuple[int, ...], where: str) -> NDArray[np.int64]:
    """(T, N) which mouse an instance is, from 0; -1 for none."""
    if "instance_embed_id" in pose and "id_mask" in pose:
        mouse = h5.array(pose, "instance_embed_id", where).astype(np.int64) - 1
        hidden = h5.array(pose, "id_mask", where) != 0
        _require_shape(mouse, hidden, shape_TN, where)
        return np.where(hidden, -1, mouse)
    if "instance_track_id" not in pose:
        if shape_TN[1] == 1:
            return np.zeros(shape_TN, np.int64)
        raise UserError(f"{where}: does not say which mouse is which; must have instance_embed_id or instance_track_id")
    track = h5.array(pose, "instance_track_id", where).astype(np.int64)
    hidden = np.arange(shape_TN[1]) >= h5.array(pose, "instance_count", where).astype(np.int64)[:, None]
    _require_shape(track, hidden, shape_TN, where)
    known = np.unique(track[~hidden])
    if len(known) > shape_TN[1]:
        raise UserError(
            f"{where}: has {len(known)} pieces of tracks for {shape_TN[1]} mice; link them first (version 4)"
        )
    return np.where(hidden, -1, np.searchsorted(known, track))


def _require_shape(mouse: np.ndarray, hidden: np.ndarray, shape_TN: tuple[int, ...], where: str) -> None:
    if mouse.shape != shape_TN or hidden.shape != shape_TN:
        raise UserError(
            f"{where}: identities of shape {mouse.shape}, {hidden.shape}; must be {shape_TN}, as the points"
        )


def _scale(pose: Any, where: str) -> float:
    """Pixels per cm. Raises UserError where the file does not say."""
    found = float(np.ravel(pose.attrs.get("cm_per_pixel", 0.0))[0])
    if not 0 < found < np.inf:
        raise UserError(f"{where}: has no cm_per_pixel; give pixels_per_cm")
    return 1 / found
