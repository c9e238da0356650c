"""The groups of blocks of networks, and what freezing the first of them keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amatch_widgets.errors import ConfigError
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.stages import block_groups, freeze_stages


@pytest.mark.parametrize(
    ("name", "n", "first"),
    [
        ("tf_efficientnet_lite0", 7, "blocks.0"),
        ("test_vit", 6, "blocks.0"),
        ("test_convnext", 4, "stages.0"),
        ("test_resnet", 4, "layer1"),
        ("vgg11", 0, None),
    ],
)
def test_the_groups_are_found_in_order(name, n, first):
    groups = block_groups(build_classifier(name, weights="random").network)
    assert len(groups) == n
    assert not n or groups[0][0] == first


@pytest.mark.parametrize(
    ("name", "n", "trained"),
    [
        ("tf_efficientnet_lite0", 5, {"blocks.5", "blocks.6", "conv_head", "bn2", "classifier"}),
        ("test_resnet", 2, {"layer3", "layer4", "fc"}),
        ("test_convnext", 4, {"head"}),
        ("test_vit", 5, {"blocks.5", "norm", "fc_norm", "head"}),
    ],
)
def test_all_after_the_groups_is_trained_and_nothing_before(name, n, trained):
    model = build_classifier(name, weights="random")
    freeze_stages(model, n)
    for key, parameter in model.network.named_parameters():
        is_trained = any(key.startswith(f"{part}.") for part in trained)
        assert parameter.requires_grad == is_trained, key


def test_zero_freezes_nothing():
    model = build_classifier("test_resnet", weights="random")
    assert freeze_stages(model, 0) == []
    assert all(p.requires_grad for p in model.parameters())


def test_a_gradient_flows_no_further_than_it_must():
    model = build_classifier("test_resnet", weights="random")
    frozen = freeze_stages(model, 2)
    assert frozen[-1] is model.network.layer2
    seen = []
    model.network.layer2.register_forward_hook(lambda _m, _i, output: seen.append(output))
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert not seen[0].requires_grad  # no graph was kept for what is before
    assert model.network.layer3[0].conv1.weight.grad is not None


def test_statistics_are_among_what_is_frozen():
    model = build_classifier("tf_efficientnet_lite0", weights="random")
    frozen = freeze_stages(model, 1)
    norms = [m for module in frozen for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.network.bn1 in norms
    assert model.network.blocks[0][0].bn1 in norms


def test_more_groups_than_there_are_is_an_error_that_says_what_is_possible():
    model = build_classifier("test_resnet", weights="random")
    with pytest.raises(
        ConfigError, match=r"frozen_stages=5\): ResNet has 4 groups.*layer1, .*from 0 .* to 4"
    ):
        freeze_stages(model, 5)


def test_a_network_without_groups_can_only_be_trained_whole():
    model = build_classifier("vgg11", weights="random")
    with pytest.raises(ConfigError, match=r"has 0 groups of blocks \(none that are known\).* to 0\."):
        freeze_stages(model, 1)
    assert freeze_stages(model, 0) == []
