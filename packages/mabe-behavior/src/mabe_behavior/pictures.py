"""Figures of an evaluation and of predictions."""


def of_evaluation(who, model, others, split):
    return []


def of_prediction(recordings, bouts, folder):
    return []
