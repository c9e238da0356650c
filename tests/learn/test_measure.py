"""What a step measures, against a case that can be counted by hand."""

from __future__ import annotations

import pytest
import torch

from amatch_widgets.learn.fixmatch import FixMatchLoss, PseudoLabels
from amatch_widgets.learn.measure import OnItsWay, measure


def measured(normal, sure, n_likely, *, logits=(0.0, 2.0, -1.0, 3.0), labels=(1, 1, 0, 0)):
    """Give by name what is measured of unlabelled images with these probabilities of being normal."""
    normal = torch.tensor(normal)
    target = torch.stack([normal, 1 - normal], 1).reshape(-1, 2)
    pseudo = PseudoLabels(target, torch.ones(len(target)), torch.tensor(sure, dtype=torch.bool))
    logits = torch.tensor(logits)
    predictions = torch.stack([-logits / 2, logits / 2], 1).log_softmax(1)
    loss = FixMatchLoss(*(torch.tensor(value) for value in (3.0, 1.0, 2.0)))
    given = {"n_likely": n_likely, "gradient": torch.tensor(7.0)}
    return OnItsWay(measure(loss, predictions, torch.tensor(labels), pseudo, **given)).get()


def test_numbers_are_those_counted_by_hand():
    found = measured([0.1, 0.9, 0.8, 0.7, 0.2, 0.6], [1, 1, 1, 0, 1, 1], n_likely=2)
    assert found.pop("spread") == pytest.approx(torch.tensor([0.0, 2.0, -1.0, 3.0]).std().item())
    assert found == {
        "loss": 3.0,
        "supervised": 1.0,
        "unsupervised": 2.0,
        "gradient": 7.0,
        "share_above": pytest.approx(5 / 6),
        "n_normal": 3,
        "n_anomaly": 2,
        "sure_random": None,  # there are four
        "right": 0.5,  # of the normals one; a tie is taken for normal, so of the anomalies one, too
    }


@pytest.mark.parametrize(
    ("logits", "right"),
    [((1, 1, -1, -1), 1), ((-1, -1, -1, -1), 0), ((1, 1, 1, 1), 0), ((1, -1, -1, -1), 0.5)],
)
def test_the_worse_class_is_the_one_that_counts(logits, right):
    assert measured([0.5], [0], 0, logits=[float(x) for x in logits])["right"] == right


@pytest.mark.parametrize(("n_random", "share"), [(0, None), (7, None), (8, 0.5), (9, 5 / 9)])
def test_the_share_of_random_images_leaves_out_likely_ones_and_needs_some(n_random, share):
    sure = [1, 1, *(i % 2 == 0 for i in range(n_random))]
    found = measured([0.9] * len(sure), sure, n_likely=2)
    assert found["sure_random"] == (None if share is None else pytest.approx(share))
    assert found["n_normal"] == sum(sure)


def test_without_unlabelled_images_none_is_sure():
    found = measured([], [], 0)
    assert (found["share_above"], found["n_normal"], found["n_anomaly"]) == (0, 0, 0)
