"""The order in which an Optuna study tries the combinations of a grid, and how its trials are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def number(trial: optuna.Trial | FrozenTrial) -> int:
    """The trial's number; a continued trial keeps that of the one it continues."""
    return int(trial.user_attrs.get("number", trial.number))


def place(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> int:
    """How many trials of the study came before this one; stopped ones and their continuations are one.

    Optuna never gives two processes the same number, so this is the trial's own place in the grid.
    """
    earlier = study.get_trials(deepcopy=False)[: number(trial)]
    return sum("number" not in other.user_attrs for other in earlier)


def sampler(combinations: Sequence[Mapping[str, str]]) -> optuna.samplers.BaseSampler:
    """Gives the trial at place k the k-th combination.

    Optuna's own `GridSampler` is for `Study.optimize` alone, and knows nothing of trials that go on.
    """
    import optuna

    class InOrder(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, _: Any) -> str:
            return combinations[place(study, trial)][param_name]

    return InOrder()
