#!/usr/bin/env python3
"""Prints the figures that the tests beside this file expect.

Needs numpy and scikit-learn (1.2 or later). The samples are drawn by a small integer recurrence that the C tests repeat,
so no data travels between the two."""

import numpy as np
from sklearn import metrics

CLASSES, COUNT = 3, 200


def draws(count):
    """x -> (1103515245 x + 12345) mod 2^31, seeded with 1; the upper bits as integers in [0, 1000)."""
    state, out = 1, []
    for _ in range(count):
        state = (1103515245 * state + 12345) % 2**31
        out.append((state >> 8) % 1000)
    return np.array(out)


def samples():
    """Logits on a grid of 1/8, so that C's floats are exact and ties occur; label i is likelier with a high logit i."""
    raw = draws(COUNT * (CLASSES + 1)).reshape(COUNT, CLASSES + 1)
    logits = (raw[:, :CLASSES] % 32) / 8.0 - 2.0
    labels = np.where(raw[:, CLASSES] < 600, logits.argmax(1), raw[:, CLASSES] % CLASSES)
    return logits, labels


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def calibration_error(p, labels, bins=15):
    best, confidence = p.argmax(1), p.max(1)
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - (best[inside] == labels[inside]).mean())
    return total


def best_temperature(logits, labels):
    """By a grid that is refined around its least loss."""
    low, high = 0.05, 20.0
    for _ in range(12):
        grid = np.geomspace(low, high, 201)
        losses = [metrics.log_loss(labels, softmax(logits / t)) for t in grid]
        i = int(np.argmin(losses))
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, 200)]
    return (low * high) ** 0.5


def main():
    logits, labels = samples()
    p = softmax(logits)
    best = p.argmax(1)
    print("confusion", metrics.confusion_matrix(labels, best).tolist())
    for name, scores in zip(("precision", "recall", "f1"), metrics.precision_recall_fscore_support(labels, best)):
        print(name, [f"{v:.9f}" for v in scores])
    for average in ("macro", "weighted"):
        print(average, [f"{v:.9f}" for v in metrics.precision_recall_fscore_support(labels, best, average=average)[:3]])
    print("accuracy %.9f balanced %.9f" % (metrics.accuracy_score(labels, best),
                                           metrics.balanced_accuracy_score(labels, best)))
    print("auc", ["%.9f" % metrics.roc_auc_score(labels == c, p[:, c]) for c in range(CLASSES)])
    pair = labels < 2
    score = p[pair, 1] / (p[pair, 0] + p[pair, 1])
    score = np.round(score * 2**40) / 2**40  # ties of equal logit differences, whatever the last bit of a quotient
    print("pair auc %.9f" % metrics.roc_auc_score(labels[pair] == 1, score))
    print("log loss %.9f" % metrics.log_loss(labels, p))
    print("brier %.9f" % np.mean(np.sum((p - np.eye(CLASSES)[labels]) ** 2, axis=1)))
    print("calibration error %.9f" % calibration_error(p, labels))
    print("temperature %.6f" % best_temperature(logits, labels))
    grid = np.round(logits[:, 1] * 8)
    print("ties auc %.9f" % metrics.roc_auc_score(labels == 1, grid))
    fpr, tpr, thresholds = metrics.roc_curve(labels == 1, grid, drop_intermediate=False)
    print("ties curve", len(fpr), ["%.9f %.9f %g" % v for v in list(zip(fpr, tpr, thresholds))[1:6]])


if __name__ == "__main__":
    main()
