"""Thresholds and rules: F at every threshold, what the tuning finds, and blends of two models."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior import blending, contest, metric, postprocessing, streams, thresholds, tuning
from mabe_behavior.blending import Weights, blend
from mabe_behavior.bouts import Bouts
from mabe_behavior.postprocessing import Rule, Rules
from mabe_behavior.streams import Stream
from mabe_behavior.thresholds import Histograms
from shared_core.errors import UserError

ACTIONS = ("attack", "chase", "mount", "sniff")


def made(
    videos: int = 12,
    frames: int = 600,
    labs: int = 3,
    seed: int = 0,
    noise: float = 1.0,
    actions: tuple[str, ...] = ACTIONS,
    target: str = "mouse2",
    unknown: bool = True,
) -> list[Stream]:
    """Bouts that follow each other, and log-odds with noise, whose mean differs from action to action."""
    rng = np.random.default_rng(seed)
    found = []
    for v in range(videos):
        y_TK = np.zeros((frames, len(actions)), np.int8)
        t = 0
        while t < frames:
            t += int(rng.exponential(25)) + 1
            stop = t + int(rng.exponential(20)) + 4
            y_TK[t:stop, rng.integers(len(actions))] = 1
            t = stop
        base_K = -3.0 + 0.7 * np.arange(len(actions))
        z_TK = base_K + 2.0 * y_TK + noise * rng.normal(size=y_TK.shape)
        if unknown:
            y_TK[:, (v % labs) % len(actions)] = -1  # every lab overlooks another one
        p_TK = (1 / (1 + np.exp(-z_TK))).astype(np.float32)
        found.append(Stream(f"v{v:02}", f"lab{v % labs}", "mouse1", target, actions, p_TK, 30.0, y_TK))
    return found


def counted(given_streams: list[Stream]) -> Histograms:
    found = Histograms()
    for stream in given_streams:
        found.add(stream, stream.p_TK)
    return found


def labs_of(given_streams: list[Stream]) -> dict[str, str]:
    return {one.video: one.lab for one in given_streams}


def score(given_streams: list[Stream], said: Bouts) -> float:
    """The official one."""
    looked = streams.labeled(given_streams)
    return metric.score(streams.truth(given_streams), said, labs_of(given_streams), looked).value


def official(given_streams: list[Stream], rules: Rules) -> float:
    """The score of what rules say; 0 for nothing."""
    said = postprocessing.apply_all(given_streams, rules, streams.labeled(given_streams))
    return score(given_streams, said) if len(said) else 0.0


def of_mount(given_streams: list[Stream]) -> list[Stream]:
    """What they have of one action by itself, where there is any."""
    found = [
        Stream(s.video, s.lab, s.agent, s.target, ("mount",), s.p_TK[:, [2]], s.fps, s.truth_TK[:, [2]])
        for s in given_streams
        if not s.alone
    ]
    return streams.counted(found)


def untuned(given_streams: list[Stream]) -> float:
    return official(given_streams, tuning.plain({action for one in given_streams for action in one.actions}))


probabilities = st.lists(st.tuples(st.floats(0, 1, width=32), st.sampled_from([-1, 0, 1])), min_size=1, max_size=60)


@given(st.lists(probabilities, min_size=1, max_size=3))
def test_f_at_every_threshold_at_once(of_streams: Any) -> None:
    given_streams = [
        Stream(str(k), "lab", "mouse1", "mouse2", ("sniff",), [[p] for p, _ in rows], 30.0, [[y] for _, y in rows])
        for k, rows in enumerate(of_streams)
    ]
    histograms = counted(given_streams)
    pairs = [(float(np.float32(p)), y) for rows in of_streams for p, y in rows if y != -1]
    if not pairs:
        assert histograms.count == {}
        return
    found = thresholds.f_B(histograms.count["lab", "sniff"])
    for k in (0, 3, 17, 100, 200, 254, 255):
        threshold = ((k + 1) / 256) ** 2
        hit = sum(y == 1 and p >= threshold for p, y in pairs)
        frames = sum(y == 1 for _, y in pairs) + sum(p >= threshold for p, _ in pairs)
        assert found[k] == pytest.approx(2 * hit / frames if frames else 0.0)


def test_the_best_threshold_is_the_one_nearest_to_a_half_of_those_worth_as_much() -> None:
    value_B = np.zeros(256)
    value_B[[10, 11, 12]] = 0.5
    value_B[40] = 0.5 - 0.9 * thresholds.NEARLY
    value_B[60] = 0.5 - 1.1 * thresholds.NEARLY
    assert thresholds.best(value_B) == ((41 / 256) ** 2, 0.5)
    value_B[250:] = 1.0
    assert thresholds.best(value_B) == ((251 / 256) ** 2, 1.0)
    assert thresholds.best(np.ones(256))[0] == pytest.approx(0.5, abs=0.003)


def test_pooled_f_is_the_mean_over_labs_however_large() -> None:
    large = Stream("1", "a", "mouse1", "mouse2", ("sniff",), np.full((90, 1), 0.2), 30.0, np.ones((90, 1)))
    p_TK = np.repeat([[0.2], [0.8]], 5, axis=0)
    small = Stream("2", "b", "mouse1", "mouse2", ("sniff",), p_TK, 30.0, p_TK > 0.5)
    histograms = counted([large, small])
    at = [int(np.searchsorted(thresholds.THRESHOLDS_B, p)) for p in (0.1, 0.5)]
    assert histograms.pooled_B("sniff")[at] == pytest.approx([(1 + 10 / 15) / 2, 0.5])


def test_score_of_histograms_is_the_official_one() -> None:
    """With one action a stream none can be in the way of another."""
    given_streams = made(actions=("attack",), unknown=False) + made(
        actions=("rear",), target="self", seed=1, unknown=False
    )
    histograms = counted(given_streams)
    rules = Rules({name: Rule(thresholds.best(histograms.pooled_B(name))[0]) for name in ("attack", "rear")})
    assert thresholds.score(histograms) == pytest.approx(official(given_streams, rules))


@pytest.fixture(scope="module")
def noisy() -> list[Stream]:
    return made(24, 900) + made(24, 900, seed=7, actions=("rear", "selfgroom"), target="self")


def test_tuning_pays_on_videos_that_it_has_not_seen(noisy: list[Stream]) -> None:
    rules = tuning.fit(noisy)
    fresh = made(24, 900, seed=100) + made(24, 900, seed=107, actions=("rear", "selfgroom"), target="self")
    tuned = official(fresh, rules)
    assert tuned > untuned(fresh) + 0.2
    no_smoothing = tuning.fit(noisy, smooths=[0.0], gaps=[0.0], leasts=[0.0])
    assert tuned > 0.05 + official(fresh, no_smoothing)


def test_each_step_is_the_best_of_its_kind(noisy: list[Stream]) -> None:
    """The chosen threshold, gap and least against a loop over all, of one action by itself."""
    options: Any = dict(smooths=[0.2, 0.5], gaps=[0.0, 0.5], leasts=[0.0, 0.4])
    alone = of_mount(noisy)
    (rule,) = tuning.fit(alone, per_lab=False, passes=0, **options).pooled.values()

    def value(one: Rule) -> float:
        return official(alone, Rules({"mount": one}))

    raw = {(t, s): value(Rule(t, s)) for t in thresholds.THRESHOLDS_B[40:220:4] for s in options["smooths"]}
    assert value(Rule(rule.threshold, rule.smooth)) >= max(raw.values()) - thresholds.NEARLY - 1e-9
    clean = [value(Rule(rule.threshold, rule.smooth, g, m)) for g in options["gaps"] for m in options["leasts"]]
    assert value(rule) >= max(clean) - tuning.MARGIN - 1e-9


def test_labs_with_enough_bouts_have_thresholds_of_their_own() -> None:
    given_streams = made(12, 900, labs=2, unknown=False)
    shifted = [
        one.said(np.clip(one.p_TK * (0.3 if one.lab == "lab1" else 1.0), 0, 1)) for one in given_streams
    ]  # one lab's probabilities are lower throughout
    rules = tuning.fit(shifted, passes=0)
    for action in ACTIONS:
        low, high = (rules.of(lab, action) for lab in ("lab1", "lab0"))
        assert low is not None and high is not None and low.threshold < high.threshold
        assert low.smooth == high.smooth == rules.pooled[action].smooth
    own, pooled = (official(shifted, tuning.fit(shifted, per_lab=per_lab)) for per_lab in (True, False))
    assert own > pooled + 0.01


def test_a_lab_with_few_bouts_has_the_pooled_rule() -> None:
    few = made(1, 100, labs=1, seed=3)[0]
    few = Stream("few", "small", few.agent, few.target, few.actions, few.p_TK, few.fps, few.y_TK)
    rules = tuning.fit([*made(12, 900), few])
    assert "small" not in rules.labs and set(rules.labs) == {"lab0", "lab1", "lab2"}


def test_what_a_lab_never_had_it_is_not_told() -> None:
    given_streams = made(6, 600, labs=1, unknown=False) + made(6, 600, labs=2, unknown=False)[1::2]
    for k in range(6, len(given_streams)):
        one = given_streams[k]
        y_TK = one.truth_TK.copy()
        y_TK[:, 0] = 0
        given_streams[k] = Stream(f"w{k}", "lab1", one.agent, one.target, one.actions, one.p_TK, one.fps, y_TK)
    rules = tuning.fit(given_streams)
    assert rules.silent == {"lab1": ("attack",)}
    said = postprocessing.apply_all(given_streams, rules)
    assert "attack" not in said.action[np.char.startswith(said.video, "w")] and "attack" in said.action


def test_videos_without_a_true_bout_do_not_count(noisy: list[Stream]) -> None:
    rng = np.random.default_rng(0)
    p_TK, y_TK = rng.random((900, 4)), np.zeros((900, 4))
    nothing = Stream("empty", "lab0", "mouse1", "mouse2", ACTIONS, p_TK, 30.0, y_TK)
    assert tuning.fit([*noisy, nothing]) == tuning.fit(noisy)


@pytest.fixture(scope="module")
def short() -> list[Stream]:
    """Streams with bouts at both their ends, in some of which nobody looked for an action that the lab has."""
    found = made(60, 40, seed=3, noise=0.7, unknown=False)
    for k in range(0, 60, 4):
        one = found[k]
        y_TK, p_TK = one.truth_TK.copy(), one.p_TK.copy()
        y_TK[:, k % 3], p_TK[:, k % 3] = -1, 1.0  # must not be said, however likely
        found[k] = Stream(one.video, one.lab, one.agent, one.target, one.actions, p_TK, one.fps, y_TK)
    return streams.counted(found)


@pytest.mark.parametrize("gap", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("least", [0.0, 0.2, 0.5])
def test_f_of_cleaned_bouts_is_the_official_one(short: list[Stream], gap: float, least: float) -> None:
    mount = of_mount(short)
    rule = Rule(0.25, 0.1, gap, least)
    found = tuning._Runs.of(mount, "mount", rule)
    assert found._f(gap, least) == pytest.approx(official(mount, Rules({"mount": rule})))


@pytest.mark.parametrize("gap", [0.1, 1.0])
def test_the_contest_scores_as_the_metric_does(short: list[Stream], noisy: list[Stream], gap: float) -> None:
    for given_streams in (short, noisy):
        fitted = tuning.fit(given_streams, passes=0, gaps=[gap], leasts=[0.2])
        groups = contest._groups(given_streams, fitted)
        assert contest._score(groups) == pytest.approx(official(given_streams, fitted), abs=1e-12)
        # an action's factor, first as a trial, then for good; then that of another
        pooled, *labs = (contest._scaled(of, {"sniff": 0.5}) for of in (fitted.pooled, *fitted.labs.values()))
        changed = Rules(pooled, dict(zip(fitted.labs, labs, strict=True)))
        expected = official(given_streams, changed)
        assert contest._score(groups, "sniff", 0.5) == pytest.approx(expected, abs=1e-12)
        for group in groups:
            group.take("sniff", 0.5)
        assert contest._score(groups) == pytest.approx(expected, abs=1e-12)
        fresh = contest._score(contest._groups(given_streams, changed), "chase", 1.3)
        assert contest._score(groups, "chase", 1.3) == pytest.approx(fresh, abs=1e-12)


def test_the_contest_raises_what_takes_others_frames() -> None:
    """An action that is certain where another is there: alone it should be said there, together it should not."""
    p_TK, y_TK = np.zeros((400, 2)), np.zeros((400, 2))
    y_TK[:60, 0] = y_TK[60:160, 1] = 1
    p_TK[:60, 0], p_TK[60:160, 0], p_TK[60:160, 1] = 0.8, 0.7, 0.6
    p_TK[160:300, 1] = 0.5  # so that the second action's threshold must lie above 0.5
    given_streams = [Stream("v", "lab", "mouse1", "mouse2", ("attack", "sniff"), p_TK, 30.0, y_TK)]
    start = Rules({"attack": Rule(0.65), "sniff": Rule(0.58)})
    settled = contest.settled(given_streams, start, 3)
    before, after = (official(given_streams, rules) for rules in (start, settled))
    assert before < 0.5 and after == 1.0
    assert contest.settled(given_streams, start, 0) == start
    assert all(0 < rule.threshold <= 1 for rule in settled.pooled.values())


def test_crossfitting_leaves_the_part_out(noisy: list[Stream]) -> None:
    pairs = [one for one in noisy if not one.alone]
    labs = labs_of(pairs)
    found = tuning.crossfitted(pairs, labs, passes=1)
    rest = tuning.fit([one for one in pairs if one.lab != "lab1"], passes=1)
    assert rest.of("lab1", "sniff") == rest.pooled["sniff"]
    mine = [one for one in pairs if one.lab == "lab1"]
    expected = postprocessing.apply_all(mine, rest, streams.labeled(mine))
    assert [row for row in found.rows if labs[row[0]] == "lab1"] == expected.rows
    assert score(pairs, found) > untuned(pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(given=[]), "no video has a true bout"),
        (dict(given=made(1, 50), gaps=[]), "gaps: is empty"),
    ],
)
def test_what_cannot_be_tuned(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tuning.fit(**options)


shares = st.integers(0, 128).map(lambda k: k / 128)  # 1 less such a share is exact


@settings(max_examples=50)
@given(st.lists(st.tuples(shares, shares), min_size=1), st.floats(0, 1))
def test_a_blend_lies_between(pairs: list[tuple[float, float]], weight: float) -> None:
    network, trees = np.array(pairs, np.float32).T
    assert np.array_equal(blend(network, trees, 0.0), trees)
    assert np.array_equal(blend(network, trees, 1.0), network)
    found = blend(network, trees, weight)
    assert (found >= np.minimum(network, trees) - 2e-6).all() and (found <= np.maximum(network, trees) + 2e-6).all()
    # yes and no change places, and so do the two models
    assert np.allclose(1 - blend(1 - network, 1 - trees, weight), found, atol=2e-6)
    assert np.allclose(blend(trees, network, 1 - weight), found, atol=2e-6)


def test_a_blend_is_the_geometric_mean_of_odds() -> None:
    assert blend([0.8], [0.2], 0.75)[0] == pytest.approx(2 / 3)  # odds 4^0.75 * 4^-0.25 = 2


def test_weights_follow_the_better_model() -> None:
    good = made(noise=0.3) + made(seed=1, noise=0.3, actions=("rear",), target="self", unknown=False)
    noise = np.random.default_rng(0)
    useless = [one.said(noise.random(one.p_TK.shape)) for one in good]
    for_good, against = blending.fit(good, useless[::-1]), blending.fit(useless, good)
    assert min(for_good.pair, for_good.alone) >= 0.7 and max(against.pair, against.alone) <= 0.3
    # of pairs the network is good, of animals alone the trees; in any order
    mixed = [one if not one.alone else other for one, other in zip(good, useless, strict=True)]
    others = [one if one.alone else other for one, other in zip(good, useless, strict=True)]
    weights = blending.fit(mixed, others)
    assert weights.pair >= 0.7 and weights.alone <= 0.3
    assert blending.fit(good, good) == Weights(0.5, 0.5)


def test_two_models_with_noise_of_their_own_are_better_together() -> None:
    truth = made(20)
    rng = np.random.default_rng(5)

    def seen() -> list[Stream]:
        z = [2.5 * (one.truth_TK == 1) - 2 + rng.normal(size=one.p_TK.shape) for one in truth]
        return [one.said((1 / (1 + np.exp(-z_TK))).astype(np.float32)) for one, z_TK in zip(truth, z, strict=True)]

    network, trees = seen(), seen()
    weight = blending.fit(network, trees).pair
    assert 0.3 <= weight <= 0.7
    scores = []
    for w in (0.0, weight, 1.0):
        blended = blending.blend_all(network, trees, Weights(w, w))
        scores.append(thresholds.score(counted(blended)))
    assert scores[1] > max(scores[0], scores[2]) + 0.05


def test_weights_are_kept_and_checked() -> None:
    assert Weights.of_dict(Weights(0.25, 1.0).as_dict()) == Weights(0.25, 1.0)
    for damaged in (None, {"pair": 0.5}, {"pair": 0.5, "alone": 2.0}, {"pair": True, "alone": 0.5}):
        with pytest.raises(UserError, match="weights"):
            Weights.of_dict(damaged)


def test_streams_of_two_models_must_match() -> None:
    one, other = made(2, 50)
    with pytest.raises(ValueError, match="same videos and pairs"):
        blending.fit([one], [other])
    shorter = Stream(one.video, one.lab, one.agent, one.target, one.actions, one.p_TK[:-1], one.fps, one.y_TK[:-1])
    with pytest.raises(ValueError, match="same actions and frames"):
        blending.fit([one], [shorter])
    with pytest.raises(ValueError, match="shape"):
        blend([0.5], [0.5, 0.5], 0.5)
    with pytest.raises(ValueError, match=r"weight: 1\.5"):
        blend([0.5], [0.5], 1.5)
