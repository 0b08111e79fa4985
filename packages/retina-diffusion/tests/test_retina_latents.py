"""Latents: the published scaling, kept once, mirrored properly, and a whole run in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import Hub
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retina_diffusion import latents as latents_module
from retina_diffusion import latentstore, photographs, prepare, subject, train
from retina_diffusion.__main__ import main
from retina_diffusion.config import Config
from retina_diffusion.frozen import Source
from retina_diffusion.latents import Autoencoder
from retina_diffusion.latentstore import LatentStore
from retina_diffusion.model_config import Augment, Model
from retina_diffusion.photographs import Collate, Photographs
from retina_diffusion.store import Framed, Store, write
from shared_core import config as configuration
from shared_core import report, tensorfile, trainer, weights
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime

pytest_plugins = ("hub_fixtures",)

CPU = torch.device("cpu")
VAE = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4, "scaling_factor": 0.5, "shift_factor": 0.1}  # factor 4
MODEL = Model(space="latents", latent_factor=4)


def save_vae(folder: Path, seed: int = 0, **changed: Any) -> Any:
    """A small VAE with random weights, in place of a published one."""
    import diffusers

    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    made = diffusers.AutoencoderKL(**blocks, **{**VAE, **changed}).eval()
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vae")
    save_vae(made)
    return made


@pytest.fixture(scope="module")
def vae(folder: Path) -> Autoencoder:
    return Autoencoder.load(Source.of("model.vae", str(folder)), MODEL, CPU)


def images(n: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


# the VAE


@pytest.mark.parametrize(
    "its",
    [
        {},
        {"scaling_factor": 0.13025, "shift_factor": None},
        {"latents_mean": [0.1, 0, -1, 2], "latents_std": [2.0] * 4},
    ],
)
def test_scale_and_shift_are_the_published_ones(tmp_path: Path, its: dict[str, Any]) -> None:
    """Against diffusers called by hand."""
    whole = save_vae(tmp_path, **its)
    own = Autoencoder.load(Source.of("model.vae", str(tmp_path)), MODEL, CPU)
    mean = its.get("latents_mean") or [its.get("shift_factor", 0.1) or 0.0] * 4
    std = its.get("latents_std") or [1.0] * 4
    with torch.no_grad():
        said = whole.encode(images()).latent_dist.mean
        wanted = torch.stack(
            [(said[:, k] - mean[k]) / std[k] * its.get("scaling_factor", 0.5) for k in range(4)], dim=1
        )
        back = whole.decode(said).sample.clamp(-1, 1)
    found = own.encode(images())
    assert found.shape == (3, 4, 4, 4) and torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(own.decode(found), back, atol=1e-5)
    assert not any(p.requires_grad for p in own.network.parameters())


def test_many_images_go_through_some_at_a_time(vae: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    together = vae.encode(images(5))
    back = vae.decode(together)
    monkeypatch.setattr(latents_module, "AT_A_TIME", 2 * 16 * 16)
    assert torch.allclose(vae.encode(images(5)), together, atol=1e-6)
    assert torch.allclose(vae.decode(together), back, atol=1e-6)


def test_padding_changes_no_image(vae: Autoencoder) -> None:
    small, padded = vae.encode(images(1, 8, 12)), torch.full((2, 4, 4, 5), 9.0)
    padded[0, :, :2, :3] = small[0]
    found = vae.decode_each(padded, [(2, 3), (4, 5)])
    assert torch.allclose(found[0, :, :8, :12], vae.decode(small)[0], atol=1e-6)
    assert (found[0, :, 8:] == -1).all() and (found[0, :, :, 12:] == -1).all()
    assert torch.allclose(found[1], vae.decode(padded[1:])[0], atol=1e-6)


def test_half_precision_around_it_does_not_reach_it(vae: Autoencoder) -> None:
    """Published VAEs overflow in it."""
    with torch.autocast("cpu", torch.bfloat16):
        found = vae.encode(images())
    assert torch.equal(found, vae.encode(images()))


def test_other_sizes_are_refused_with_what_to_set(folder: Path, vae: Autoencoder, tmp_path: Path) -> None:
    source = Source.of("model.vae", str(folder))
    with pytest.raises(UserError, match=r"set --model\.latent_factor 4$"):
        Autoencoder.load(source, Model(space="latents"), CPU)
    with pytest.raises(UserError, match=r"set --model\.latent_channels 4$"):
        Autoencoder.load(source, Model(space="latents", latent_factor=4, latent_channels=16), CPU)
    with pytest.raises(ValueError, match="multiples of 4"):
        vae.encode(images(1, 16, 18))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model\.vae: .* cannot be loaded .*; choose another$"):
        Autoencoder.load(Source.of("model.vae", str(tmp_path)), MODEL, CPU)
    with pytest.raises(UserError, match="there is no folder"):
        Source.of("model.vae", str(tmp_path / "none"))


def test_a_file_that_lacks_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    tensors.pop("decoder.conv_in.weight")
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"lacks decoder\.conv_in\.weight"):
        Autoencoder.load(Source.of("model.vae", str(tmp_path)), MODEL, CPU)


def test_one_of_the_hub_is_pinned(server: Hub, folder: Path, vae: Autoencoder, tmp_path: Path) -> None:
    first = server.add("bob/vae", {path.name: path.read_bytes() for path in folder.iterdir()})
    source = Source.of("model.vae", "bob/vae")
    assert source.about == {"path": "bob/vae", "sha256": first}
    assert torch.equal(Autoencoder.load(source, MODEL, CPU).encode(images()), vae.encode(images()))
    other = tmp_path / "other"
    save_vae(other, seed=1)
    second = server.add("bob/vae", {path.name: path.read_bytes() for path in other.iterdir()})
    assert Source.of("model.vae", "bob/vae").version == second
    # a model goes on with the one that it was trained with
    assert Source.of("model.vae", "bob/vae", source.about).version == first
    with pytest.raises(UserError, match="are not those that this model was trained with"):
        Source.of("model.vae", str(other), {"path": str(folder), "sha256": "another"})


# the cache


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, list[dict[str, Any]]]:
    """Five photographs of two sizes in two files; one place is not used."""
    random, rows = np.random.default_rng(0), []
    for number, sizes in enumerate([[(16, 16), (16, 16), (8, 24)], [(16, 16), (8, 24), (8, 24)]]):
        framed = []
        for place, size in enumerate(sizes):
            image, mask = (random.integers(0, 256, (n, *size), dtype=np.uint8) for n in (3, 7))
            framed.append(Framed(image, mask, np.zeros((4, 4), np.uint8), {}))
            rows.append({"place": [number, place], "size": list(size), "text": "", "known": ["MA", "FOV"]})
        write(tmp_path / f"photographs-{number:05d}.safetensors", "set", framed)
    return Store(tmp_path), [row for row in rows if row["place"] != [0, 1]]


def make(kept: LatentStore, vae: Autoencoder, stored: tuple[Store, list[dict[str, Any]]], mirrored: bool = True) -> int:
    """How many files were computed."""
    which = kept.missing(stored[1], mirrored)
    kept.make(which, vae, *stored, CPU, bar=False)
    return len(which)


def opened(stored: tuple[Store, list[dict[str, Any]]], photographs: str = "set", network: str = "vae") -> LatentStore:
    kept = LatentStore()
    kept.open(stored[0].folder, photographs, network)
    return kept


def test_what_is_kept_is_what_the_vae_says(vae: Autoencoder, stored: Any) -> None:
    kept = opened(stored)
    assert make(kept, vae, stored) == 4 and make(kept, vae, stored) == 0
    for row in stored[1]:
        image = stored[0].read(*row["place"])[0][None] / 127.5 - 1
        plain, mirrored = (kept.read(*row["place"], mirrored=kind) for kind in (False, True))
        assert torch.allclose(plain, vae.encode(image)[0], atol=1e-5)
        assert torch.allclose(mirrored, vae.encode(image.flip(-1))[0], atol=1e-5)
        assert not torch.allclose(mirrored, plain.flip(-1), atol=1e-2)  # why both are kept


def test_only_what_is_missing_or_damaged_is_made_again(vae: Autoencoder, stored: Any) -> None:
    kept = opened(stored)
    assert make(kept, vae, stored, mirrored=False) == 2
    assert make(kept, vae, stored) == 2  # the mirrored ones
    whole = sorted(kept.folder.iterdir())
    written = {path: path.stat().st_mtime_ns for path in whole}
    cut, changed, gone = whole[:3]
    cut.write_bytes(cut.read_bytes()[:-5])
    data = bytearray(changed.read_bytes())
    data[-3] ^= 1
    changed.write_bytes(data)
    gone.unlink()
    assert make(opened(stored), vae, stored) == 3
    assert whole[3].stat().st_mtime_ns == written[whole[3]]
    assert opened(stored).missing(stored[1], True) == []
    assert len(opened(stored, photographs="another set").missing(stored[1], True)) == 4
    assert opened(stored, network="another vae").folder != kept.folder


def test_processes_share_the_work(stored: Any) -> None:
    shares = [opened(stored).missing(stored[1], True, slice(rank, None, 3)) for rank in range(3)]
    assert sorted(one for share in shares for one in share) == sorted(opened(stored).missing(stored[1], True))


def test_an_interrupted_cache_goes_on(vae: Autoencoder, stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, seen = opened(stored), []

    def killed(*args: Any) -> Iterator[Any]:
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        yield from plain(*args)

    plain = latentstore._of_one_size
    monkeypatch.setattr(latentstore, "_of_one_size", killed)
    with pytest.raises(KeyboardInterrupt):
        make(kept, vae, stored)
    assert make(kept, vae, stored) == 2


def test_samples_hold_latents_and_masks_that_are_mirrored_alike(vae: Autoencoder, stored: Any) -> None:
    store, rows = stored
    kept = opened(stored)
    make(kept, vae, stored)
    seen = Photographs(store, rows, lambda text: {}, Augment(flip=True), kept)
    torch.manual_seed(0)
    kinds = set()
    for _ in range(10):
        sample = seen[0]
        mirrored = torch.equal(sample["mask"], store.mask(0, 0).flip(-1))
        assert torch.equal(sample["latent"], kept.read(0, 0, mirrored)) and "image" not in sample
        kinds.add(mirrored)
    assert kinds == {False, True}
    batch = Collate(8)([seen[0], seen[1]])  # 16 x 16 and 8 x 24 pixels
    assert batch["latent"].shape == (2, 4, 4, 6) and batch["mask"].shape == (2, 7, 16, 24)
    asked = photographs.condition(batch, ["MA", "FOV"], 4)
    assert asked.masks_BMHW.shape == (2, 2, 4, 6)
    assert photographs.sizes(asked.there_BL, 2, 2, 4, 6) == [(4, 4), (2, 6)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4), st.sampled_from([1, 2, 4]))
def test_sizes_are_those_before_padding(tokens: list[tuple[int, int]], patch: int) -> None:
    factor = 4
    token = patch * factor
    samples = [{"mask": torch.zeros(1, h * token, w * token, dtype=torch.uint8)} for h, w in tokens]
    batch = Collate(token)(samples)
    height, width = (side // factor for side in batch["mask"].shape[2:])
    found = photographs.sizes(batch.get("there"), len(tokens), patch, height, width)
    assert found == [(h * patch, w * patch) for h, w in tokens]


# settings


def test_latents_cannot_be_shifted() -> None:
    plain = {"data": {"size": 64}, "model": {"space": "latents", "patch": 2}}
    assert Config(**plain).token_side == 4
    assert Config(**plain, augment={"flip": True}).model.token == 16
    for name, value in (("upside_down", True), ("shift", 0.1)):
        with pytest.raises(ValueError, match=rf"augment\.{name}: goes with model\.space pixels"):
            Config(**plain, augment={name: value})


# whole runs

TINY = [
    *("--data.size", "32", "--data.sample-size", "40", "--model.space", "latents", "--model.latent-factor", "4"),
    *("--model.patch", "2", "--model.dim", "32", "--model.depth", "1", "--model.heads", "2", "--batch-size", "8"),
    *("--training.steps", "5", "--training.checkpoint-every", "2", "--training.eval-every", "2", "--lr", "0.01"),
    *("--sampling.steps", "2", "--sampling.mask-guidance", "2", "--evaluation.segmenter-steps", "2"),
    *("--evaluation.most-masks", "2", "--evaluation.per-mask", "2"),
    *("--logging.tracker", "none", "--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false"),
]


def run(home: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(home / "data"), "--paths.runs", str(home / "runs"), *flags])


def of_run(home: Path, name: str, *more: str) -> Path:
    return home.joinpath("runs", "retina-diffusion", name, *more)


@pytest.fixture(scope="module")
def home(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set and a model that was trained on its latents."""
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
        assert run(made, "prepare", "--sample", *TINY) == 0
        assert run(made, "train", "--name", "whole", "--model.vae", str(folder), *TINY) == 0
    return made


@pytest.fixture(autouse=True)
def _without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than everything else here."""
    monkeypatch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")


def newest(home: Path, name: str) -> dict[str, torch.Tensor]:
    return weights.load_weights(of_run(home, name, "checkpoints", "step-5"), "model")


def test_a_run_trains_on_latents_and_draws_photographs(home: Path, folder: Path, tmp_path: Path) -> None:
    notes = json.loads(of_run(home, "whole", "preprocessing", "networks.json").read_text())
    assert notes == {"model.vae": Source.of("model.vae", str(folder)).about}
    out = tmp_path / "drawn"
    assert run(home, "predict", "--run", "whole", "--count", "3", "--out", str(out), "--logging.progress", "false") == 0
    drawn = [np.asarray(Image.open(out / "images" / f"{n:06d}.png")) for n in range(3)]
    assert all(one.shape == (32, 32, 3) and one.std() > 0 for one in drawn)
    assert (drawn[0] != drawn[1]).any()
    assert run(home, "evaluate", "--run", "whole", "--logging.progress", "false") == 0
    found = json.loads(of_run(home, "whole", "evaluation", "test.json").read_text())
    assert 0 <= found["metrics"]["mask_fidelity"]["value"] <= 1


def test_photographs_of_several_sizes_are_drawn_together(home: Path) -> None:
    run_ = RunDir(of_run(home, "whole"))
    config = configuration.stored(Config, run_.path)
    who = subject.of_run(run_, config, "latest", Runtime.start(config.runtime, 0))
    samples = [
        who.sample(torch.zeros(3, *size), torch.zeros(7, *size, dtype=torch.uint8), torch.ones(7, dtype=torch.bool), "")
        for size in ((32, 32), (16, 48))
    ]
    drawn = who.draw(who.condition(samples), [0, 1], 0, config.sampling).x_B
    assert drawn.shape == (2, 3, 32, 48) and drawn.abs().max() <= 1
    assert (drawn[0, :, :, 32:] == -1).all() and (drawn[1, :, 16:] == -1).all()
    assert drawn[0, :, :, :32].std() > 0 and drawn[1, :, :16].std() > 0


def test_resumed_is_as_uninterrupted(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = trainer.Trainer._step

    def interrupted(self: trainer.Trainer, group: list[Any]) -> None:
        step(self, group)
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    flags = ("--name", "parts", "--model.vae", str(folder), *TINY)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", interrupted)
        assert run(home, "train", *flags) == 75
    assert run(home, "train", *flags) == 0
    whole, parts = newest(home, "whole"), newest(home, "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_goes_on_with_the_same_vae_only(
    home: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it lies by now."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(folder, moved)
    save_vae(other, seed=1)
    again = ("train", "--training.resume", str(of_run(home, "whole")), *TINY)
    assert run(home, *again, "--name", "whole", "--model.vae", str(other)) == 2
    assert f"model.vae: {other} has changed since the run was started" in capsys.readouterr().err
    assert run(home, *again, "--name", "whole", "--model.vae", str(moved)) == 0


def test_latents_that_are_there_must_fit_too(home: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--name", "wide", "--model.vae", str(folder), *TINY, "--model.latent-channels", "8") == 2
    assert capsys.readouterr().err.strip().endswith("set --model.latent_channels 4")


def test_a_plan_asks_no_vae(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "plan", "--name", "paper", "--model.vae", "nobody/has-this", *TINY) == 0
    assert "nobody/has-this computes the latents of 40 photographs once" in capsys.readouterr().out


def test_latents_can_be_prepared_before(home: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ("--sample", "--latents", "--model.vae", str(folder), *TINY)
    kept = next((home / "data" / prepare.PACKAGE).glob("*/latents-*"))
    plain, mirrored = (kept / f"{name}-00000.safetensors" for name in ("latents", "mirrored"))
    before, untouched = tensorfile.read(plain)[0], mirrored.stat().st_mtime_ns
    plain.write_bytes(b"damaged")
    assert run(home, "prepare", *wanted) == 0
    again = tensorfile.read(plain)[0]
    assert before.keys() == again.keys() and all(torch.allclose(before[name], again[name]) for name in again)
    assert mirrored.stat().st_mtime_ns == untouched
    assert run(home, "prepare", "--sample", "--latents", "--data.size", "32", "--data.sample-size", "40") == 2
    assert "goes with model.space latents or text.encoder hub" in capsys.readouterr().err


def test_loss_is_that_of_latents(home: Path, folder: Path, vae: Autoencoder) -> None:
    """The task's target is what the VAE makes of the photograph, in whatever order it is asked."""
    config = Config.model_validate(
        {
            "data": {"size": 32, "sample_size": 40},
            "paths": {"data": home / "data", "runs": home / "runs"},
            "model": {"space": "latents", "latent_factor": 4, "patch": 2, "dim": 32, "heads": 2, "vae": str(folder)},
            "training": {"batch_size": 8},
            "runtime": {"device": "cpu", "threads": 1},
        }
    )
    task = train.FlowTask(config, Runtime.start(config.runtime, 0))
    batch = next(iter(task.batches.epoch(0)))
    assert batch["latent"].shape == (8, 4, 8, 8) and "image" not in batch
    loss, _ = task.loss(task.model, batch)
    loss.backward()
    assert torch.isfinite(loss) and task.model.dit.final_layer.linear.weight.grad.abs().sum() > 0
    image, _ = task.material.store.read(*task.val.rows[0]["place"])
    assert torch.allclose(task.val[0]["latent"], vae.encode(image[None] / 127.5 - 1)[0], atol=1e-5)
    rows = [0, 1]
    assert torch.equal(task._judged(task.model, rows, task.runtime)[:1], task._judged(task.model, [0], task.runtime))
