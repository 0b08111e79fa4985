"""What is trained: how features are read, who is told the lab, and what an ensemble answers."""

import numpy as np
import pytest
import torch

from mabe_behavior import objectives
from mabe_behavior.model import NETWORKS, Behaviours, Ensemble, Kind, Reader, learned_from, stages

KINDS = {"pair": Kind(6, 3), "alone": Kind(4, 2)}
OPTIONS = {
    "conv_bilstm": {"channels": (8,), "hidden": 4},
    "tcn": {"width": 8, "depth": 2},
    "conv_transformer": {"width": 8, "depth": 1, "heads": 2, "kernel": 3},
}


def small(network: str = "tcn", seed: int = 0, **settings) -> Behaviours:
    torch.manual_seed(seed)
    return Behaviours(KINDS, network, **({"labs": 3, **OPTIONS[network], **settings}))


def spoken(model: Behaviours) -> Behaviours:
    """With labs that differ, as after training."""
    for reader in model.readers.values():
        torch.nn.init.normal_(reader.lab_embedding.weight)
    return model


@pytest.mark.parametrize("indicators", [False, True])
def test_features_are_scaled_kept_within_limits_and_never_missing(indicators: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 50, 4)).astype(np.float32) * 9
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0, 0, 0], x[1, 1, 1] = np.inf, -np.inf
    mean, spread = rng.normal(size=4), rng.uniform(0.1, 3, 4)
    reader = Reader(4, lab_width=0, indicators=indicators)
    reader.fit(mean, spread, limit=2.5)
    found = reader(torch.from_numpy(x), torch.zeros(2, dtype=torch.long))
    seen = np.isfinite(x)
    expected = np.where(seen, np.clip((x - mean) / spread, -2.5, 2.5), 0)
    if indicators:
        expected = np.concatenate((expected, ~seen), axis=-1)
    assert found.shape[-1] == reader.width
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_features_in_half_precision_are_scaled_in_full() -> None:
    reader = Reader(1, lab_width=0)
    reader.fit([1000.0], [0.5])
    x = torch.tensor([[[1000.0], [1002.0]]], dtype=torch.float16)
    assert reader(x, torch.zeros(1, dtype=torch.long)).flatten().tolist() == [0, 4]


@pytest.mark.parametrize(
    ("mean", "spread", "limit", "named"),
    [
        ([0.0], [1.0, 1.0], 8, "mean_F"),
        ([0.0, 0.0], [1.0, 0.0], 8, "spread_F"),
        ([0.0, np.nan], [1.0, 1.0], 8, "mean_F"),
        ([0.0, 0.0], [1.0, 1.0], 0, "limit"),
    ],
)
def test_what_is_no_scaling_is_refused(mean: list[float], spread: list[float], limit: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Reader(2).fit(mean, spread, limit)


def test_the_lab_is_told_in_every_frame() -> None:
    reader = Reader(2, labs=3, lab_width=5).eval()
    assert not reader.lab_embedding.weight.any()  # all alike before training
    torch.nn.init.normal_(reader.lab_embedding.weight)
    found = reader(torch.randn(2, 7, 2), torch.tensor([3, 0]))
    for window, lab in enumerate((3, 0)):
        assert torch.equal(found[window, :, 2:], reader.lab_embedding.weight[lab].expand(7, 5))


def test_training_hides_some_labs_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    reader, lab, x = Reader(1, labs=1, lab_width=1, lab_dropout=0.3), torch.ones(10_000, dtype=torch.long), None
    torch.nn.init.constant_(reader.lab_embedding.weight[1:], 1.0)
    x = torch.zeros(10_000, 1, 1)
    assert reader.train()(x, lab)[..., 1].mean().item() == pytest.approx(0.7, abs=0.02)
    assert reader.eval()(x, lab)[..., 1].all()
    assert lab.all()  # the caller's labs stay


def test_the_pooled_lab_learns_from_all() -> None:
    model = spoken(small(lab_dropout=0.5)).train()
    for said in stages(model("pair", torch.randn(32, 5, 6), torch.full((32,), 2))):
        said.square().sum().backward()
    moved = model.readers["pair"].lab_embedding.weight.grad.abs().amax(dim=1) > 0
    assert moved.tolist() == [True, False, True, False]


@pytest.mark.parametrize("network", NETWORKS)
def test_labs_matter_where_they_are_looked_at(network: str) -> None:
    x, lab = torch.randn(2, 9, 6), torch.tensor([1, 2])
    model = spoken(small(network)).eval()
    assert not torch.allclose(model("pair", x, lab), model("pair", x, lab.flip(0)))
    without = small(network, lab_width=0).eval()
    assert torch.equal(without("pair", x, lab), without("pair", x, lab.flip(0)))


@pytest.mark.parametrize("network", NETWORKS)
def test_kinds_share_nothing(network: str) -> None:
    model = small(network).train()
    stages(model("alone", torch.randn(2, 9, 4), torch.zeros(2, dtype=torch.long)))[-1].sum().backward()
    touched = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"alone"}


def test_v4_without_a_lab_has_its_published_size() -> None:
    model = Behaviours({"pair": Kind(28, 4)}, "conv_bilstm", lab_width=0)
    assert sum(p.numel() for p in model.parameters()) == 2_761_284


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("frames", [1, 3, 30])
def test_windows_of_any_length_with_anything_missing(network: str, frames: int) -> None:
    model = small(network, indicators=True)
    x = torch.randn(2, frames, 6)
    x[0] = torch.nan
    x[1, :, 2] = torch.nan
    for mode in (True, False):
        said = stages(model.train(mode)("pair", x, torch.tensor([0, 1])))[-1]
        assert said.shape == (2, frames, 3)
        assert said.isfinite().all()


@pytest.mark.parametrize("network", NETWORKS)
def test_frames_that_pad_a_window_have_no_loss(network: str) -> None:
    """Neither what is said there counts, nor do their features exist; the loss is that of the frames before them."""
    model = small(network).eval()
    x, lab, y = torch.randn(2, 20, 6), torch.zeros(2, dtype=torch.long), torch.randint(0, 2, (2, 20, 3)).to(torch.int8)
    x[:, 15:], y[:, 15:] = torch.nan, objectives.UNKNOWN
    logits = model("pair", x, lab)
    logits.retain_grad()
    loss = objectives.binary(logits, y)
    loss.backward()
    assert loss.item() == pytest.approx(objectives.binary(logits[:, :15], y[:, :15]).item())
    assert not logits.grad[:, 15:].any()
    assert logits.grad[:, :15].all()


@pytest.mark.parametrize("network", NETWORKS)
def test_windows_keep_their_answers_in_any_order(network: str) -> None:
    model, order = spoken(small(network)).eval(), torch.tensor([2, 0, 3, 1])
    x, lab = torch.randn(4, 12, 6), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(model("pair", x[order], lab[order]), model("pair", x, lab)[order])


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_carry_scaling_and_labs(network: str) -> None:
    model, other = spoken(small(network, 1)), small(network, 2)
    model.fit("pair", np.full(6, 2.0), np.full(6, 3.0), limit=1.5)
    other.load_state_dict(model.state_dict())
    x, lab = torch.randn(2, 8, 6) * 9, torch.tensor([1, 3])
    assert torch.equal(other.eval()("pair", x, lab), model.eval()("pair", x, lab))
    assert other.readers["pair"].limit == 1.5
    assert other.readers["alone"].limit == 8


def test_a_seed_fixes_what_training_says() -> None:
    x, lab = torch.randn(4, 8, 6), torch.tensor([0, 1, 2, 3])
    said = [stages(spoken(small(seed=seed)).train()("pair", x, lab))[-1] for seed in (3, 3, 4)]
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


def small_ensemble(members: int = 3) -> Ensemble:
    return Ensemble([small("tcn", seed=seed) for seed in range(members)])


def test_an_ensemble_answers_with_all_its_members_or_one() -> None:
    ensemble = small_ensemble().eval()
    asked = {"pair": torch.randn(4, 8, 6), "pair_lab": torch.zeros(4, dtype=torch.long)}
    said = ensemble(**asked)["pair_logits"]
    assert len(said) == len(ensemble) == 3
    for number, (member, one) in enumerate(zip(ensemble.members, said, strict=True)):
        assert torch.equal(one, member("pair", *asked.values()))
        assert torch.equal(ensemble(**asked, only=number)["pair_logits"], one[None])


def test_a_member_does_not_learn_from_its_fold() -> None:
    """Neither its loss nor what its normalisation sees depends on windows of its fold."""
    ensemble = small_ensemble(2).train()
    x, lab, fold = torch.randn(4, 8, 6), torch.zeros(4, dtype=torch.long), torch.tensor([0, 1, 0, 1])
    x.requires_grad_(True)
    torch.manual_seed(0)
    said = ensemble(pair=x, pair_lab=lab, pair_fold=fold)
    for number in range(2):
        x.grad = None
        said[number]["pair"][-1].sum().backward(retain_graph=True)
        assert (x.grad.abs().sum(dim=(1, 2)) > 0).tolist() == (fold != number).tolist()
    assert learned_from(fold, 0, 4).tolist() == [1, 3] and learned_from(None, 0, 4).tolist() == [0, 1, 2, 3]


def test_a_batch_of_a_members_own_fold_is_one_window_to_it() -> None:
    """So that every parameter takes part in every step, as several processes need it; no label may go with it."""
    ensemble = small_ensemble(2).train()
    own = torch.zeros(3, dtype=torch.long)
    said = ensemble(pair=torch.randn(3, 8, 6), pair_lab=own, pair_fold=own)
    assert said[0]["pair"][-1].shape == (1, 8, 3) and said[1]["pair"][-1].shape == (3, 8, 3)
    assert len(learned_from(own, 0, 3)) == 0
    said[0]["pair"][-1].sum().backward()
    network, reader = (getattr(ensemble.members[0], name)["pair"] for name in ("networks", "readers"))
    for parameter in (*network.parameters(), *reader.parameters()):
        assert parameter.grad is not None and not parameter.grad.any()


def test_normalisation_does_not_see_a_members_own_fold() -> None:
    model = Behaviours({"pair": Kind(6, 3)}, "conv_bilstm", channels=(8,), hidden=4)
    before = model.networks["pair"].state_dict()
    before = {name: value.clone() for name, value in before.items() if "running" in name}
    assert before
    own = torch.zeros(3, dtype=torch.long)
    Ensemble([model]).train()(pair=torch.randn(3, 8, 6) + 5, pair_lab=own, pair_fold=own)
    assert all(torch.equal(value, model.networks["pair"].state_dict()[name]) for name, value in before.items())


def test_an_ensemble_is_scaled_as_one_and_each_member_learns_alone() -> None:
    ensemble = Ensemble([small(seed=seed) for seed in range(2)])
    for member in ensemble.members:
        member.fit("alone", np.arange(4.0), np.ones(4))
    assert all(member.readers["alone"].mean_F.tolist() == [0, 1, 2, 3] for member in ensemble.members)
    said = ensemble.train()(alone=torch.randn(2, 5, 4), alone_lab=torch.zeros(2, dtype=torch.long))
    said[1]["alone"][-1].sum().backward()
    assert all(p.grad is None for p in ensemble.members[0].parameters())
    assert ensemble.members[1].networks["alone"].stages[0].head.weight.grad.any()


@pytest.mark.parametrize("network", NETWORKS)
def test_it_learns_what_can_be_known(network: str) -> None:
    """Whether a feature is above 0, of which a lab's annotators have the opposite opinion."""
    torch.manual_seed(0)
    model = small(network, lab_dropout=0.1, dropout=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    x, lab = torch.randn(64, 16, 6), torch.arange(64) % 2 + 1
    y = ((x[..., :3] > 0) ^ (lab == 2)[:, None, None]).to(torch.int8)
    for _ in range(150):
        said = stages(model("pair", x, lab))
        loss = sum(objectives.binary(one, y) for one in said) / len(said)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = ((model.eval()("pair", x, lab) > 0) == y.bool()).float().mean()
    assert right > 0.9


def test_errors_name_the_setting() -> None:
    with pytest.raises(ValueError, match="network"):
        Behaviours(KINDS, "mlp")
    with pytest.raises(ValueError, match="kinds"):
        Behaviours({})
    with pytest.raises(ValueError, match="lab_dropout"):
        Reader(2, lab_dropout=1.5)
    with pytest.raises(ValueError, match="labs"):
        Reader(2, labs=-1)
    with pytest.raises(ValueError, match="members"):
        Ensemble([])


def test_a_reader_looks_at_the_first_columns_alone() -> None:
    whole, part = Reader(2, lab_width=0), Reader(5, lab_width=0, seen=2)
    mean, spread = np.arange(5.0), np.arange(1.0, 6.0)
    whole.fit(mean[:2], spread[:2])
    part.fit(mean, spread)
    x, lab = torch.randn(3, 7, 5), torch.zeros(3, dtype=torch.long)
    assert torch.equal(part(x, lab), whole(x[..., :2], lab)) and part.width == whole.width == 2
    with pytest.raises(ValueError, match="seen: 6"):
        Reader(5, seen=6)
