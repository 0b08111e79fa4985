"""The simple method beside the model: extremely randomised trees on pixels, and Bayes' rule."""

import numpy as np

from pair_compare_stacking.generator import SIDE

WHAT = "100 extremely randomised trees on the pixels of single halves, combined by Bayes' rule with the pairs' prior"
MOST_HALVES = 20_000  # more changes little and takes minutes


class TreesBaseline:
    """Digit posteriors from pixels (Geurts et al. 2006, as in scikit-learn), compared as the model compares its own."""

    def __init__(self, prior: np.ndarray, seed: int = 0) -> None:
        """`prior`: (10, 10) joint distribution of (left, right) digits."""
        from sklearn.ensemble import ExtraTreesClassifier

        self.trees = ExtraTreesClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=seed)
        self.prior = prior

    def fit(self, x: np.ndarray, digits: np.ndarray) -> "TreesBaseline":
        """`x`: uint8 (N, 28, 56); `digits`: (N, 2)."""
        self.trees.fit(_halves(x)[:MOST_HALVES], digits.T.ravel()[:MOST_HALVES])
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Probability that the left digit is larger: (N,)."""
        posteriors = np.full((2 * len(x), 10), 1e-9)
        posteriors[:, self.trees.classes_] += self.trees.predict_proba(_halves(x))
        return probability_left_larger(posteriors[: len(x)], posteriors[len(x) :], self.prior)


def probability_left_larger(left: np.ndarray, right: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Bayes' rule for halves that are independent given their digits; posteriors (N, 10) each -> (N,)."""
    ratio = prior / np.outer(prior.sum(axis=1), prior.sum(axis=0))
    joint = left[:, :, None] * right[:, None, :] * ratio
    return np.tril(joint, -1).sum(axis=(1, 2)) / joint.sum(axis=(1, 2))


def _halves(x: np.ndarray) -> np.ndarray:
    """All left halves, then all right ones: (2N, 784)."""
    return np.concatenate([x[:, :, :SIDE], x[:, :, SIDE:]]).reshape(2 * len(x), -1)
