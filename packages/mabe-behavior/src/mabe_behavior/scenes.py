"""Pictures of a bout: mice as their tracks show them, at a few moments or moving.

Shapes: T frames, A animals, X = x and y in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import SELF
from mabe_behavior.outlines import Bodies
from mabe_behavior.tracks import Tracks
from shared_core import figures, files
from shared_core.figures import COLOURS, GRID, INK

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

Row = tuple[str, str, str, str, int, int]  # of a bout, as `Bouts.rows` has them
Ints = NDArray[np.int64]
AGENT, TARGET, OTHERS = COLOURS[1], COLOURS[0], "#8b949e"
MOMENTS = 8  # of a strip
APART = 0.1  # seconds between two of them, at least
TRAIL = 1.0  # seconds
SQUARES = 5.0  # cm: the grid on the floor, and the scale bar
DOTS = 20.0  # a second, of the trail
PALE = "#9aa1a9"
ROOM = 3.0  # cm around what is seen
LONGEST, AROUND = 4.0, 0.5  # seconds of a bout that an animation shows, and before and after it
SLOWER = 2.0  # times slower than it happened
PICTURES = 12.5  # a second, of an animation


def strip(tracks: Tracks, bout: Row, path: Path, *, title: str = "") -> Path:
    """Some moments of a bout beside each other, in equal steps from its first frame to its last.

    All have one scale; each follows the agent and its target. A bout too short for so many moments is shown with what
    is around it, under grey times.

    Raises ValueError for a bout that is not within the tracks, or where none of its mice is seen.
    """
    scene, fps = Scene.of(tracks, bout), tracks.fps
    middle, half = (scene.start + scene.stop - 1) / 2, (scene.stop - 1 - scene.start) / 2
    half = max(half, APART * (MOMENTS - 1) * fps / 2)
    frames = _within(np.linspace(middle - half, middle + half, MOMENTS), len(scene.tracks))
    middles, reach = scene.windows(frames)
    caption = (
        f"{scene.told}, {bout[4] / fps:.2f} to {bout[5] / fps:.2f} seconds into the video. Above each picture, seconds "
        f"since it began. Dotted: where mice were in the last {TRAIL:g} s. Black points: the tracked parts."
    )
    title = title or scene.told
    with figures.figure(path, title, caption, (figures.WIDTH, 3.4), "chart") as drawn:
        panels = drawn.subplots(2, -(-len(frames) // 2), squeeze=False).flat
        for frame, where in zip(frames.tolist(), middles, strict=True):
            panel = next(panels)
            scene.stage(panel, where, reach)
            scene.mice(panel, frame)
            panel.set_title(scene.time(frame), fontsize=8, color=scene.ink(frame), pad=3)
            last = panel
        for panel in panels:  # a recording of less frames
            panel.set_visible(False)
        scene.scale(last)
        scene.legend(drawn)
    return path


def animation(tracks: Tracks, bout: Row, path: Path, *, slower: float = SLOWER) -> Path:
    """The bout as a GIF that repeats itself, with half a second before and after it; of a long one the beginning.

    Args:
        slower: how many times slower than it happened.

    Raises ValueError as `strip` does, and for a `slower` that is not above 0.
    """
    from PIL import Image

    if not slower > 0:
        raise ValueError(f"slower {slower:g}; must be above 0")
    scene, fps = Scene.of(tracks, bout), tracks.fps
    step = max(1, round(fps / PICTURES / slower))
    around, end = round(AROUND * fps), min(scene.stop, scene.start + round(LONGEST * fps))
    frames = np.arange(max(scene.start - around, 0), min(end + around, len(scene.tracks)), step)
    middle, reach = scene.window(frames)
    if not np.isfinite(reach):
        raise ValueError(f"{scene.told}: none of its mice is seen")
    pictures = []
    canvas, axes = _canvas()
    scene.stage(axes, middle, reach)
    scene.scale(axes)
    for place, (colour, name) in enumerate(list(scene.roles.values())[:2]):
        canvas.figure.text(0.03 + 0.31 * place, 0.022, name, color=colour, fontsize=8)
    text = axes.set_title("", fontsize=9)
    for frame in frames.tolist():
        weight = "bold" if scene.start <= frame < scene.stop else "normal"
        text.set(text=f"{scene.told}\n{scene.time(frame)}", color=scene.ink(frame), fontweight=weight)
        mice = scene.mice(axes, frame)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
        for artist in mice:
            artist.remove()
    some = Image.fromarray(np.concatenate([np.asarray(one) for one in pictures[:: max(1, len(pictures) // 6)]]))
    colours = some.quantize(48, dither=Image.Dither.NONE)
    flat = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_path(path) as temporary:
        duration = max(20, round(1000 * step / fps * slower / 10) * 10)  # of a picture in ms; GIF counts in hundredths
        flat[0].save(temporary, "GIF", save_all=True, append_images=flat[1:], duration=duration, loop=0)
    return path


@dataclass(frozen=True)
class Scene:
    """A bout's mice, and who is who among them. Frames are counted from a little before the bout."""

    tracks: Tracks  # around the bout
    bodies: Bodies
    start: int
    stop: int
    told: str  # the bout in words
    roles: dict[int, tuple[str, str]]  # animal -> its colour and what it is called; the agent first

    @classmethod
    def of(cls, tracks: Tracks, bout: Row) -> Scene:
        _, agent, target, action, start, stop = bout
        if not 0 <= start < stop <= len(tracks):
            raise ValueError(f"bout: frames {start} to {stop}; must be some of the {len(tracks)} there are")
        if missing := {agent, target} - {*tracks.animals, SELF}:
            raise ValueError(f"bout: no {', '.join(sorted(missing))} in the tracks of {', '.join(tracks.animals)}")
        roles = {tracks.animals.index(agent): (AGENT, f"{agent}, agent")}
        if target not in (SELF, agent):
            roles[tracks.animals.index(target)] = (TARGET, f"{target}, target")
        for place, name in enumerate(tracks.animals):
            roles.setdefault(place, (OTHERS, name))
        told = f"{action}: {agent}" + ("" if target in (SELF, agent) else f" → {target}")
        first = max(0, start - round((AROUND + TRAIL) * tracks.fps))
        last = min(len(tracks), stop + round((AROUND + TRAIL) * tracks.fps))
        near = replace(tracks, xy_TAPX=tracks.xy_TAPX[first:last], confidence_TAP=None)
        return cls(near, Bodies.of(tracks, first, last), start - first, stop - first, told, roles)

    def time(self, frame: int) -> str:
        return f"{(frame - self.start) / self.tracks.fps:+.2f} s"

    def ink(self, frame: int) -> str:
        """Pale before and after the bout."""
        return INK if self.start <= frame < self.stop else PALE

    @property
    def _pair(self) -> list[int]:
        """The animals that it is about."""
        return [animal for animal, (colour, _) in self.roles.items() if colour != OTHERS]

    def windows(self, frames: Ints) -> tuple[list[NDArray[Any]], float]:
        """For each frame where to look, and how far (pixels) around there, the same for all."""
        boxes = [self.window(np.array([frame])) for frame in frames]
        known = [middle for middle, _ in boxes if np.isfinite(middle).all()]
        if not known:
            raise ValueError(f"{self.told}: none of its mice is seen at its moments")
        last, middles = known[0], []
        for middle, _ in boxes:
            last = middle if np.isfinite(middle).all() else last
            middles.append(last)
        return middles, float(np.nanmax([reach for _, reach in boxes]))

    def window(self, frames: Ints) -> tuple[NDArray[Any], float]:
        """The middle of what is seen of the bout's mice in all of the frames, and how far around it to look."""
        seen_NX = self.bodies.spine_TASX[frames][:, self._pair].reshape(-1, 2)
        seen_NX = seen_NX[np.isfinite(seen_NX[:, 0])]
        if not len(seen_NX):
            return np.full(2, np.nan), np.nan
        low, high = seen_NX.min(axis=0), seen_NX.max(axis=0)
        return (low + high) / 2, float((high - low).max()) / 2 + ROOM * self.tracks.pixels_per_cm

    def stage(self, axes: Axes, middle: NDArray[Any], reach: float) -> None:
        """The floor in a square around a place, with a grid that stays where it is in all pictures."""
        cm = self.tracks.pixels_per_cm
        limits = [(value - reach, value + reach) for value in middle]
        axes.set(xlim=limits[0], ylim=limits[1][::-1], aspect="equal", autoscale_on=False)
        for set_ticks, (low, high) in zip((axes.set_xticks, axes.set_yticks), limits, strict=True):
            set_ticks(np.arange(np.ceil(low / cm / SQUARES), high / cm / SQUARES) * SQUARES * cm, [])
        axes.tick_params(length=0)
        axes.grid(True, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[:].set(visible=True, color=GRID)

    def mice(self, axes: Axes, frame: int) -> list[Artist]:
        """All mice at a frame with their trails, the agent on top: what was added to the axes."""
        animals = list(reversed(self.roles.items()))
        trails = [self._trail(axes, frame, animal, colour) for animal, (colour, _) in animals]
        bodies = [artist for animal, (colour, _) in animals for artist in self._mouse(axes, frame, animal, colour)]
        return [*trails, *bodies]

    def _mouse(self, axes: Axes, frame: int, animal: int, colour: str) -> list[Artist]:
        from matplotlib.patches import Circle, Polygon

        size, outline_NX = 0.08 * self.bodies.length, self.bodies.outline(frame, animal)
        shapes: list[Artist] = [
            axes.add_artist(Circle((float(x), float(y)), size, facecolor=colour, alpha=0.55, linewidth=0))
            for x, y in self.bodies.ears_TAEX[frame, animal]
            if np.isfinite(x)
        ]
        if outline_NX is not None:
            shapes.append(axes.add_artist(Polygon(outline_NX, facecolor=colour, alpha=0.35, linewidth=0)))
            shapes.append(axes.add_artist(Polygon(outline_NX, fill=False, edgecolor=colour, linewidth=1.0)))
        tail_KX = self.bodies.tail_TAKX[frame, animal]
        tail_KX = tail_KX[np.isfinite(tail_KX[:, 0])]
        shapes += axes.plot(*tail_KX.T, color=colour, linewidth=1.3, solid_capstyle="round")
        points_PX = self.tracks.xy_TAPX[frame, animal]
        return [*shapes, *axes.plot(*points_PX.T, ".", color=INK, markersize=1.8, markeredgewidth=0)]

    def _trail(self, axes: Axes, frame: int, animal: int, colour: str) -> Artist:
        """Where the body was, fainter the longer ago."""
        from matplotlib.colors import to_rgba_array

        first, step = max(0, frame - round(TRAIL * self.tracks.fps)), max(1, round(self.tracks.fps / DOTS))
        dots_TX = self.bodies.centre(slice(first, frame + 1), animal)[::-1][::step]
        fade = np.linspace(0.9, 0.2, len(dots_TX))
        colours = to_rgba_array([colour] * len(dots_TX), fade)
        return axes.scatter(dots_TX[:, 0], dots_TX[:, 1], s=3.5, c=colours, linewidths=0, zorder=0.9)

    def scale(self, axes: Axes) -> None:
        """A bar under the right corner, as long as a square of the grid."""
        right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
        long, below = SQUARES * self.tracks.pixels_per_cm, 0.05 * (right - axes.get_xlim()[0])
        bar: dict[str, Any] = {"color": INK, "linewidth": 2, "solid_capstyle": "butt", "clip_on": False}
        axes.plot([right - long, right], [bottom + below] * 2, **bar)
        words: dict[str, Any] = {"fontsize": 7.5, "ha": "right", "va": "center", "color": INK}
        axes.text(right - long - below / 2, bottom + below, f"{SQUARES:g} cm", **words)

    def legend(self, drawn: Figure) -> None:
        """Who has which colour."""
        from matplotlib.patches import Patch

        patches = [Patch(facecolor=colour, alpha=0.6, label=name) for colour, name in self.roles.values()]
        drawn.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8.5)


def _within(places: NDArray[np.float64], frames: int) -> Ints:
    """Whole frames that there are, each once."""
    return np.unique(np.clip(np.rint(places), 0, frames - 1).astype(np.int64))


def _canvas() -> tuple[FigureCanvasAgg, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(3.4, 3.7), dpi=100, facecolor="white")
    return FigureCanvasAgg(drawn), drawn.add_axes((0.02, 0.07, 0.96, 0.81))
