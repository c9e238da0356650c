"""The objective, against numbers worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from amatch_widgets.learn.fixmatch import PseudoLabels, fixmatch_loss, image_weights, pseudo_labels


def logits(*anomaly_probabilities):
    """Give logits whose softmax has these probabilities of class 1."""
    return torch.tensor([[log(1 - p), log(p)] for p in anomaly_probabilities])


def objective(labelled, labels, strong, pseudo, *, unlabelled_weight):
    """Give the objective from logits."""
    targets = torch.cat([torch.tensor(labels), pseudo.target])
    losses = F.cross_entropy(torch.cat([labelled, strong]), targets, reduction="none")
    return fixmatch_loss(losses, len(labels), pseudo, unlabelled_weight=unlabelled_weight)


def test_a_case_of_three_images_by_hand():
    # Labelled: an anomaly given 0.8. Weak views: sure of normal (0.97), unsure (0.6), sure of anomaly (0.99).
    pseudo = pseudo_labels(logits(0.03, 0.6, 0.99), threshold=0.95)
    assert pseudo.target.tolist() == [0, 1, 1]
    assert pseudo.is_sure.tolist() == [True, False, True]
    # Strong views of the same: 0.1, 0.5, 0.5 for the anomaly.
    loss = objective(logits(0.8), [1], logits(0.1, 0.5, 0.5), pseudo, unlabelled_weight=2.0)
    supervised = -log(0.8)
    unsupervised = (-log(0.9) - log(0.5)) / 3  # the unsure one counts in the mean, as a zero
    assert float(loss.supervised) == pytest.approx(supervised, rel=1e-5)
    assert float(loss.unsupervised) == pytest.approx(unsupervised, rel=1e-5)
    assert float(loss.total) == pytest.approx(supervised + 2 * unsupervised, rel=1e-5)


def test_the_supervised_part_is_the_mean_over_the_labelled():
    nothing = PseudoLabels(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.bool))
    loss = objective(logits(0.8, 0.3), [1, 0], torch.empty(0, 2), nothing, unlabelled_weight=1.0)
    assert float(loss.supervised) == pytest.approx((-log(0.8) - log(0.7)) / 2, rel=1e-5)


def test_the_threshold_itself_is_sure_enough():
    even = torch.zeros(1, 2)
    assert pseudo_labels(even, 0.5).is_sure.tolist() == [True]
    assert pseudo_labels(even, 0.51).is_sure.tolist() == [False]


def test_without_a_sure_image_only_the_labels_count():
    pseudo = pseudo_labels(logits(0.5, 0.6), threshold=0.95)
    loss = objective(logits(0.8), [1], logits(0.1, 0.9), pseudo, unlabelled_weight=5.0)
    assert float(loss.unsupervised) == 0
    assert float(loss.total) == float(loss.supervised)


def test_without_unlabelled_images_the_unsupervised_part_is_zero():
    nothing = pseudo_labels(torch.empty(0, 2), threshold=0.95)
    loss = objective(logits(0.8), [1], torch.empty(0, 2), nothing, unlabelled_weight=1.0)
    assert float(loss.unsupervised) == 0
    assert float(loss.total) == pytest.approx(-log(0.8), rel=1e-5)


def test_no_gradient_flows_into_the_pseudo_labels():
    weak, strong = logits(0.99).requires_grad_(), logits(0.4).requires_grad_()
    labelled = logits(0.8).requires_grad_()
    loss = objective(labelled, [1], strong, pseudo_labels(weak, 0.95), unlabelled_weight=1.0)
    loss.total.backward()
    assert weak.grad is None
    # The gradient of a cross-entropy is the softmax less the target.
    torch.testing.assert_close(strong.grad, torch.tensor([[0.6, -0.6]]))
    torch.testing.assert_close(labelled.grad, torch.tensor([[0.2, -0.2]]))


def test_an_unsure_image_has_no_gradient():
    strong = logits(0.4, 0.4).requires_grad_()
    pseudo = PseudoLabels(torch.tensor([1, 1]), torch.tensor([True, False]))
    objective(logits(0.8), [1], strong, pseudo, unlabelled_weight=1.0).total.backward()
    torch.testing.assert_close(strong.grad, torch.tensor([[0.3, -0.3], [0.0, 0.0]]))


def test_the_objective_is_one_sum_over_the_images_with_their_weights():
    pseudo = PseudoLabels(torch.tensor([0, 1, 1, 0]), torch.tensor([True, False, True, False]))
    weights = image_weights(2, pseudo, unlabelled_weight=2.0)
    assert weights.tolist() == [0.5, 0.5, 0.5, 0, 0.5, 0]
    losses = torch.tensor([1.0, 3.0, 5.0, 7.0, 11.0, 13.0])
    loss = fixmatch_loss(losses, 2, pseudo, unlabelled_weight=2.0)
    assert float(loss.supervised) == 2
    assert float(loss.unsupervised) == 4
    assert float(loss.total) == float((weights * losses).sum()) == 10


def test_without_unlabelled_images_the_labelled_share_the_weight():
    nothing = pseudo_labels(torch.empty(0, 2), threshold=0.95)
    assert image_weights(4, nothing, unlabelled_weight=3.0).tolist() == [0.25] * 4
