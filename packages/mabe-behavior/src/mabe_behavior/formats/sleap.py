"""SLEAP's analysis files (h5): `tracks` (tracks, x and y, nodes, frames), NaN where nothing was seen; names in
`track_names` and `node_names`, confidence in `point_scores` (tracks, nodes, frames).

Shapes: A animals, X = 2, P parts, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mabe_behavior.formats import h5
from mabe_behavior.formats.camera import Camera, checked
from mabe_behavior.formats.tracktable import part_of
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError


def read(
    path: Path,
    camera: Camera,
    identities: Mapping[str, str] | None = None,
    called: Mapping[str, str] | None = None,
) -> Tracks:
    """The positions of an analysis file.

    Args:
        identities: track -> mouse1, mouse2, ...; a track that it names "" is left out. None: all, in the file's order.
        called: node -> a part's name; "" leaves it out.

    Raises UserError where the file is none of SLEAP's, its axes have another order, or a node or track is unknown.
    """
    where = str(path)
    with h5.opened(path) as stream:
        tracks_AXPT = h5.array(stream, "tracks", where)
        nodes = h5.texts(stream, "node_names", where)
        names = h5.texts(stream, "track_names", where) if "track_names" in stream else []
        scores = h5.array(stream, "point_scores", where) if "point_scores" in stream else None
    _require_shape(tracks_AXPT, nodes, where)
    names = names or [f"track_{k}" for k in range(len(tracks_AXPT))]  # a project of one animal names no track
    if len(names) != len(tracks_AXPT):
        raise UserError(f"{where}: {len(names)} track_names for {len(tracks_AXPT)} tracks; must be one each")
    mice = _mice(names, identities, where)
    parts = [part_of(node, called or {}, where) for node in nodes]
    known = [part for part in parts if part is not None]
    if len(set(known)) != len(known):
        raise UserError(f"{where}: two of the nodes {', '.join(nodes)} are the same part; leave one out, NODE=")
    which_A = [names.index(name) for name in mice]
    which_P = [place for place, part in enumerate(parts) if part is not None]
    sure = None
    if scores is not None:
        if scores.shape != tracks_AXPT[:, 0].shape:
            raise UserError(f"{where}: point_scores of shape {scores.shape}; must be {tracks_AXPT[:, 0].shape}")
        # SLEAP's are heights of a fitted peak, which may be a little above 1
        sure = scores[which_A][:, which_P].transpose(2, 0, 1).clip(0, 1).astype(np.float32)
    xy_TAPX = tracks_AXPT[which_A][:, :, which_P].transpose(3, 0, 2, 1).astype(np.float32)
    found = Tracks(
        xy_TAPX, tuple(mice.values()), tuple(known), camera.fps, camera.pixels_per_cm, sure, camera.width, camera.height
    )
    return checked(found, where)


def _require_shape(tracks: np.ndarray, nodes: list[str], where: str) -> None:
    if tracks.ndim == 4 and tracks.dtype.kind == "f" and tracks.shape[1:3] == (2, len(nodes)):
        return
    reversed_ = tracks.ndim == 4 and tracks.shape[1:3] == (len(nodes), 2)
    hint = "; its axes are in reverse order, as MATLAB writes them" if reversed_ else ""
    raise UserError(
        f"{where}: tracks of shape {tracks.shape}; must be (tracks, x and y, {len(nodes)} nodes, frames), floats{hint}"
    )


def _mice(names: list[str], identities: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """Track -> mouse."""
    if len(set(names)) != len(names):
        raise UserError(f"{where}: track_names {', '.join(names)[:80]}; must differ")
    if identities is None:
        return {name: f"mouse{k + 1}" for k, name in enumerate(names)}
    if unknown := [name for name in identities if name not in names]:
        raise UserError(f"{where}: identities: there is no track {unknown[0]!r}; there are {', '.join(names)[:80]}")
    if left := [name for name in names if name not in identities]:
        raise UserError(f"{where}: identities: say which mouse {left[0]!r} is, or leave it out: {left[0]}=")
    return {name: mouse for name, mouse in identities.items() if mouse}
