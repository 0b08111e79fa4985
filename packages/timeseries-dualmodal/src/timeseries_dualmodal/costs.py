"""What answering costs: wrong answers, and waiting for right ones, over a range of prices of waiting.

Shapes: N series, L lengths, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared_core.intervals import Estimate
from timeseries_dualmodal import earliness, stopping
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.outcome import Outcome

Answers = tuple[np.ndarray, np.ndarray]  # stop_N, answer_N


@dataclass(frozen=True)
class Costs:
    """Costs on one split. Rules, and the fixed lengths beside them, are fitted on validation series for each price."""

    rule: dict[float, Estimate]  # by what waiting through all steps costs, in wrong answers
    fixed: dict[float, Estimate]  # of answers that are all given after the length with the lowest cost
    lengths: dict[float, int]  # that length
    average: Estimate  # of the rules, over the prices: AvgCost
    fixed_average: Estimate


def measure(settings: Decision, val: Outcome, judged: Outcome, steps: int) -> Costs:
    """Costs at each of `earliness.DELAY_COSTS`. Both outcomes hold calibrated probabilities after the same lengths."""
    by_rule: dict[float, Answers] = {}
    by_length: dict[float, Answers] = {}
    lengths = {}
    for price in earliness.DELAY_COSTS:
        wanted = settings.model_copy(update={"delay_cost": price, "hold": None})
        rule = stopping.fit(wanted, val.p_NLK, val.y, val.lengths, steps, val.groups)
        decided = stopping.decide(rule, judged.p_NLK)
        by_rule[price] = decided.stop_N, decided.answer_N
        wrong_L = (val.likeliest_NL != val.y[:, None]).mean(axis=0)
        index = int(np.argmin(wrong_L + price * np.array(val.lengths) / steps))
        lengths[price] = val.lengths[index]
        by_length[price] = np.full(len(judged.y), index), judged.likeliest_NL[:, index]

    def cost(answers: Answers, price: float) -> Estimate:
        return earliness.cost(*answers, judged.y, judged.lengths, steps, price, *judged.sources)

    return Costs(
        {price: cost(answers, price) for price, answers in by_rule.items()},
        {price: cost(answers, price) for price, answers in by_length.items()},
        lengths,
        earliness.average_cost(by_rule, judged.y, judged.lengths, steps, *judged.sources),
        earliness.average_cost(by_length, judged.y, judged.lengths, steps, *judged.sources),
    )
