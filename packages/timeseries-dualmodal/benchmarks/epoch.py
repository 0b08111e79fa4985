"""Time of an epoch with a frozen tower of ViT-B/16's size: pictures drawn, from our cache, or embedded beforehand.

    python packages/timeseries-dualmodal/benchmarks/epoch.py [--series 1000] [--device cpu] [--pictures 28]

The tower (86 million random weights, 224 pixels) sees every picture of every batch, unless its embeddings were computed
beforehand. On a CPU that takes hours, so only some pictures go through it, and the column "tower" is what they took,
times the pictures of an epoch. The rest is measured over a whole epoch: "look", to draw or read all pictures or to read
their embeddings; "learn", the training of all that is not frozen. All prefixes have the default scales as lengths, and
what is read is in memory by then.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import torch
from transformers import ViTConfig, ViTModel

from shared_core import measured
from shared_core.measured import seconds
from shared_core.plan import quantity
from shared_core.progress import duration
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings
from timeseries_dualmodal import cachewriter, division, embeddings, imagecache, readers, train
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.embeddings import Recalled
from timeseries_dualmodal.hubvision import HubVision, Pixels
from timeseries_dualmodal.members import Members
from timeseries_dualmodal.model import DualModel
from timeseries_dualmodal.pictures_config import SCALES
from timeseries_dualmodal.prefixes import Seen
from timeseries_dualmodal.pretrained import Pretrained
from timeseries_dualmodal.sight import Cached, Eyes, Live

SIZE, FEATURES, REPEATS = 224, 768, 3
CONFIG = {"pictures": {"size": SIZE, "line_width": 2.78}, "training": {"batch_size": 64}}
Batch = dict[str, torch.Tensor]


def made(series: int, runtime: Runtime) -> tuple[train.EarlyTask, HubVision]:
    """The task, whose model has the tower."""
    config, every = Config.model_validate(CONFIG), readers.read(Data(sample_size=series))
    task = train.EarlyTask(config, runtime, train.Material(every, division.divide(every, Split())))
    variables = len(every.variables)
    tower = Pretrained("model.vision.tower", "random/vit", ViTModel(ViTConfig()).eval(), "0" * 64)
    sight = HubVision(tower, Pixels((0.5,) * 3, (0.5,) * 3, SIZE), variables, SIZE, config.model.vision)
    times_T = torch.from_numpy(every.times.copy())
    model = DualModel(config.model, variables, len(every.classes), times_T, SIZE, sight=sight)
    model.scale.load_state_dict(task.model.scales[0].state_dict())
    task.model = Members([model]).to(runtime.device).train()
    return task, sight


def batches(task: train.EarlyTask) -> list[Batch]:
    """Of an epoch, without pictures; every prefix is as long as one of the scales."""
    assert isinstance(task.batches, Seen)
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch in task.batches.source.epoch(0):
        index_BK = torch.randint(len(SCALES), batch["length"].shape, generator=generator)
        found.append({**batch, "length": torch.tensor(SCALES)[index_BK].to(batch["x"].device)})
    return found


def written(task: train.EarlyTask, home: Path) -> tuple[dict[str, Eyes], dict[str, int]]:
    """What shows series to the model, by the name of its row, and the bytes that each has on the disk."""
    live, x_NVT = task.eyes, task.material.series.x
    assert isinstance(live, Live)
    row_N, about = torch.from_numpy(task.material.parts["train"]), imagecache.description(live.plots, "benchmark")
    cachewriter.write(home / "pictures", live.plots, x_NVT, SCALES, "benchmark", bar=False)
    cache = imagecache.open_cache(home / "pictures", "benchmark", live.plots)
    embeddings.write(home / "embeddings", {**about, "tower": {}}, x_NVT, SCALES, pretend, FEATURES, bar=False)
    recalled = embeddings.open_embeddings(home / "embeddings", {**about, "tower": {}})
    eyes = {"drawn": live, "our cache": Cached(cache, row_N, live), "embeddings": Recalled(recalled, row_N)}
    files = {"our cache": (home / "pictures").rglob("*.pics"), "embeddings": (home / "embeddings").glob("*.npy")}
    return eyes, {name: sum(path.stat().st_size for path in paths) for name, paths in files.items()}


def pretend(x_BVT: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
    """Embeddings of the right shape."""
    return torch.randn(*x_BVT.shape[:2], FEATURES)


def look(eyes: Eyes, epoch: list[Batch]) -> None:
    """Everything that training sees in an epoch."""
    for batch in epoch:
        eyes.see(batch["x"], batch["length"], batch["row"])


def learn(task: train.EarlyTask, eyes: Eyes, epoch: list[Batch]) -> None:
    optimizer = torch.optim.AdamW((p for p in task.model.parameters() if p.requires_grad), lr=0.0)
    for batch in epoch:
        length, seen = eyes.see(batch["x"], batch["length"], batch["row"])
        task.loss(task.model, {**batch, "length": length, "seen": seen})[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def per_picture(sight: HubVision, seen_NVHW: torch.Tensor) -> float:
    """Seconds that the tower takes for one."""
    sight.embed(seen_NVHW[:1])  # the first one prepares what later ones find
    taken = [seconds(lambda: sight.embed(seen_NVHW), seen_NVHW.device) for _ in range(REPEATS)]
    return median(taken) / (seen_NVHW.shape[0] * seen_NVHW.shape[1])


def table(looking: dict[str, float], tower: float, rest: float) -> str:
    """Seconds of an epoch; the tower's are computed."""
    lines = [f"{'':12} {'look':>9} {'tower':>10} {'learn':>9} {'epoch':>10} {'ratio':>8}"]
    whole = {name: spent + rest + tower * (name != "embeddings") for name, spent in looking.items()}
    for name, spent in looking.items():
        sees = tower * (name != "embeddings")
        ratio = whole["drawn"] / whole[name]
        lines.append(f"{name:12} {spent:9.3f} {sees:10.1f} {rest:9.2f} {whole[name]:10.1f} {ratio:8.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--series", type=int, default=1000, help="of the set; 72 %% of them train")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--pictures", type=int, default=28, help="that the tower sees, in each of a few repeats")
    options = parser.parse_args()
    runtime = Runtime.start(Settings(device=options.device), seed=0)
    task, sight = made(options.series, runtime)
    epoch, variables = batches(task), task.material.series.x.shape[1]
    with tempfile.TemporaryDirectory() as home:
        eyes, disk = written(task, Path(home))
        looking = {}
        for name, one in eyes.items():
            look(one, epoch)  # from here on its files are in memory
            looking[name] = median(seconds(lambda one=one: look(one, epoch), runtime.device) for _ in range(REPEATS))
        learn(task, eyes["embeddings"], epoch[:1])
        rest = seconds(lambda: learn(task, eyes["embeddings"], epoch), runtime.device) - looking["embeddings"]
        batch = epoch[0]
        _, seen = eyes["drawn"].see(batch["x"], batch["length"], batch["row"])
    each = per_picture(sight, seen[: max(1, options.pictures // variables), 0])
    pictures, of_the_set = sum(batch["length"].numel() for batch in epoch) * variables, options.series * variables
    print(
        f"{measured.device(runtime.device)}; {options.series:,} series, an epoch of {len(epoch)} batches with "
        f"{pictures:,} pictures; seconds of each"
    )
    print(table(looking, each * pictures, rest))
    sizes = ", ".join(f"{name} {quantity(size, 'B')}" for name, size in disk.items())
    print(f"on the disk, after {len(SCALES)} lengths: {sizes}")
    print(
        f"the tower takes {each:.4f} s per picture, so the embeddings take {duration(each * of_the_set * len(SCALES))}"
    )


if __name__ == "__main__":
    main()
