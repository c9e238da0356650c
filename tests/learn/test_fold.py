"""Folding BatchNorm away changes no output, and nothing is folded that should not be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.fold import fold_batch_norm


def network_of(name, seed=0):
    """Give a network whose BatchNorm does something: statistics, scales and shifts are random."""
    network = build_classifier(name, weights="random").network
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                value.data.uniform_(low, high, generator=generator)
    return network


def noise(n=3, side=64):
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(1)) * 2 - 1


def n_norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def features(network, x):
    with torch.no_grad():
        return network.eval().forward_features(x)


# One with activations inside BatchNorm, one without, one where half of them come before a
# convolution, one with branches.
@pytest.mark.parametrize(
    ("name", "n_left"),
    [("tf_efficientnet_lite0", 0), ("test_resnet", 0), ("densenet121", 62), ("repvgg_a0", 17)],
)
def test_the_folded_network_gives_the_same_features(name, n_left):
    network = network_of(name)
    folded = fold_batch_norm(network, noise(2))
    assert n_norms(network) > n_left
    assert n_norms(folded) == n_left
    wanted = features(network, noise())
    assert torch.isfinite(wanted).all()
    assert wanted.std() > 0
    found = features(folded, noise())
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_the_network_is_not_touched():
    network = network_of("tf_efficientnet_lite0").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norm(network, noise(2))
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training or module._forward_hooks for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


class Tricky(nn.Module):
    """Convolutions whose BatchNorm cannot be folded into them, though it is named next."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.act = nn.ReLU(inplace=True)

    def forward_features(self, x):
        match self.kind:
            case "an activation comes between, in place":
                return self.norm(self.act(self.conv(x)))
            case "the convolution is used twice":
                return self.norm(self.conv(x)) + self.conv(-x)
            case "its output is used beside":
                maps = self.conv(x)
                return self.norm(maps) + maps
            case "the order is the other way round":
                return self.conv(self.norm(x))
        raise AssertionError


@pytest.mark.parametrize(
    "kind",
    [
        "an activation comes between, in place",
        "the convolution is used twice",
        "its output is used beside",
        "the order is the other way round",
    ],
)
def test_what_cannot_be_folded_stays(kind):
    network = Tricky(kind)
    network.norm.running_mean.fill_(0.3)
    network.norm.running_var.fill_(4.0)
    folded = fold_batch_norm(network, noise(2))
    assert n_norms(folded) == 1
    torch.testing.assert_close(features(folded, noise()), features(network, noise()))


def test_filters_that_are_computed_are_left_alone():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)

    class Plain(Tricky):
        def forward_features(self, x):
            return self.norm(self.conv(x))

    network = Plain("")
    network.conv = Standardised(3, 3, 3)
    network.norm.running_var.fill_(4.0)
    folded = fold_batch_norm(network, noise(2))
    assert n_norms(folded) == 1
    torch.testing.assert_close(features(folded, noise()), features(network, noise()))
