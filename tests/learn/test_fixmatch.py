"""The objective, against numbers worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from amatch_widgets.learn.fixmatch import PseudoLabels, fixmatch_loss, lessons, pseudo_labels


def logits(*anomaly_probabilities):
    """Give logits whose softmax has these probabilities of class 1."""
    return torch.tensor([[log(1 - p), log(p)] for p in anomaly_probabilities])


def hard(weak_logits, threshold=0.95):
    return pseudo_labels(weak_logits, threshold, kind="hard")


def given(classes, is_sure):
    """Give hard pseudo-labels."""
    is_sure = torch.tensor(is_sure)
    return PseudoLabels(F.one_hot(torch.tensor(classes), 2).float(), is_sure.float(), is_sure)


def objective(labelled, labels, strong, pseudo, *, unlabelled_weight, n_likely=0, background=0.0):
    """Give the objective from logits."""
    predictions = torch.cat([labelled, strong]).log_softmax(1)
    weights = {"unlabelled_weight": unlabelled_weight, "background": background}
    return fixmatch_loss(predictions, torch.tensor(labels), pseudo, n_likely, **weights)


def test_a_case_of_three_images_by_hand():
    # Labelled: an anomaly given 0.8. Weak views: sure of normal (0.97), unsure (0.6), sure of anomaly (0.99).
    pseudo = hard(logits(0.03, 0.6, 0.99))
    assert pseudo.target.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert pseudo.weight.tolist() == [1, 0, 1]
    assert pseudo.is_sure.tolist() == [True, False, True]
    # Strong views of the same: 0.1, 0.5, 0.5 for the anomaly.
    loss = objective(logits(0.8), [1], logits(0.1, 0.5, 0.5), pseudo, unlabelled_weight=2.0)
    supervised = -log(0.8)
    unsupervised = (-log(0.9) - log(0.5)) / 3  # the unsure one counts in the mean, as a zero
    assert float(loss.supervised) == pytest.approx(supervised, rel=1e-5)
    assert float(loss.unsupervised) == pytest.approx(unsupervised, rel=1e-5)
    assert float(loss.total) == pytest.approx(supervised + 2 * unsupervised, rel=1e-5)


def test_soft_pseudo_labels_of_two_images_by_hand():
    # Weak views: 0.2 and 0.97 for the anomaly; strong views of the same: 0.2 and 0.5.
    pseudo = pseudo_labels(logits(0.2, 0.97), 0.95, kind="soft")
    torch.testing.assert_close(pseudo.target, torch.tensor([[0.8, 0.2], [0.03, 0.97]]))
    assert pseudo.weight.tolist() == [1, 1]
    assert pseudo.is_sure.tolist() == [False, True]
    loss = objective(logits(0.8), [1], logits(0.2, 0.5), pseudo, unlabelled_weight=2.0)
    divergence = 0.97 * log(0.97 / 0.5) + 0.03 * log(0.03 / 0.5)  # where both agree it is 0
    assert float(loss.unsupervised) == pytest.approx(divergence / 2, rel=1e-4)


def test_the_gradient_of_a_soft_pseudo_label_is_the_difference_of_both_views():
    strong = logits(0.4).requires_grad_()
    pseudo = pseudo_labels(logits(0.7).requires_grad_(), 0.95, kind="soft")
    objective(logits(0.8), [1], strong, pseudo, unlabelled_weight=1.0).total.backward()
    torch.testing.assert_close(strong.grad, torch.tensor([[0.3, -0.3]]))


def test_the_supervised_part_is_the_mean_over_the_labelled():
    nothing = hard(torch.empty(0, 2))
    loss = objective(logits(0.8, 0.3), [1, 0], torch.empty(0, 2), nothing, unlabelled_weight=1.0)
    assert float(loss.supervised) == pytest.approx((-log(0.8) - log(0.7)) / 2, rel=1e-5)


def test_the_threshold_itself_is_sure_enough():
    even = torch.zeros(1, 2)
    assert hard(even, 0.5).is_sure.tolist() == [True]
    assert hard(even, 0.51).is_sure.tolist() == [False]


def test_without_a_sure_image_only_the_labels_count():
    pseudo = hard(logits(0.5, 0.6))
    loss = objective(logits(0.8), [1], logits(0.1, 0.9), pseudo, unlabelled_weight=5.0)
    assert float(loss.unsupervised) == 0
    assert float(loss.total) == float(loss.supervised)


def test_without_unlabelled_images_the_unsupervised_part_is_zero():
    nothing = hard(torch.empty(0, 2))
    loss = objective(logits(0.8), [1], torch.empty(0, 2), nothing, unlabelled_weight=1.0)
    assert float(loss.unsupervised) == 0
    assert float(loss.total) == pytest.approx(-log(0.8), rel=1e-5)


def test_no_gradient_flows_into_the_pseudo_labels():
    weak, strong = logits(0.99).requires_grad_(), logits(0.4).requires_grad_()
    labelled = logits(0.8).requires_grad_()
    loss = objective(labelled, [1], strong, hard(weak), unlabelled_weight=1.0)
    loss.total.backward()
    assert weak.grad is None
    # The gradient of a cross-entropy is the softmax less the target.
    torch.testing.assert_close(strong.grad, torch.tensor([[0.6, -0.6]]))
    torch.testing.assert_close(labelled.grad, torch.tensor([[0.2, -0.2]]))


def test_an_unsure_image_has_no_gradient():
    strong = logits(0.4, 0.4).requires_grad_()
    pseudo = given([1, 1], [True, False])
    objective(logits(0.8), [1], strong, pseudo, unlabelled_weight=1.0).total.backward()
    torch.testing.assert_close(strong.grad, torch.tensor([[0.3, -0.3], [0.0, 0.0]]))


def test_random_images_count_as_normals_beside_the_labelled_ones_by_hand():
    # One anomaly given 0.8; a likely image given 0.7, two random ones given 0.1 and 0.4.
    pseudo = hard(logits(0.6, 0.6, 0.6))
    given_to = logits(0.7, 0.1, 0.4)
    loss = objective(logits(0.8), [1], given_to, pseudo, unlabelled_weight=1.0, n_likely=1, background=0.5)
    as_normal = (-log(0.9) - log(0.6)) / 2
    assert float(loss.supervised) == pytest.approx((-log(0.8) + 0.5 * as_normal) / 1.5, rel=1e-5)
    assert float(loss.unsupervised) == 0


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("background", [0.0, 0.5])
@pytest.mark.parametrize("n_likely", [0, 2, 4])
def test_the_lessons_have_the_gradient_of_the_objective(kind, background, n_likely):
    generator = torch.Generator().manual_seed(3)
    weak = 3 * torch.randn((4, 2), generator=generator)
    labels = torch.tensor([0, 1, 1])
    weights = {"unlabelled_weight": 2.0, "background": background}
    pseudo = pseudo_labels(weak, 0.9, kind=kind)
    assert 0 < pseudo.is_sure.sum() < 4
    first = torch.randn((7, 2), generator=generator).requires_grad_()
    fixmatch_loss(first.log_softmax(1), labels, pseudo, n_likely, **weights).total.backward()
    second = first.detach().clone().requires_grad_()
    taught = lessons(labels, pseudo, n_likely, **weights)
    divergences = F.kl_div(second.log_softmax(1), taught.target, reduction="none").sum(1)
    (divergences * taught.weight).sum().backward()
    torch.testing.assert_close(second.grad, first.grad)
    torch.testing.assert_close(taught.target[taught.weight > 0].sum(1), torch.ones((taught.weight > 0).sum()))


def test_without_unlabelled_images_the_labelled_share_the_weight():
    nothing = hard(torch.empty(0, 2))
    taught = lessons(torch.tensor([0, 1, 1, 0]), nothing, 0, unlabelled_weight=3.0, background=0.5)
    assert taught.weight.tolist() == [0.25] * 4
    assert taught.target.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]
