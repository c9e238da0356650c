"""The groups of blocks of networks, and what freezing the first of them keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amatch_widgets.errors import ConfigError
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.stages import block_groups, freeze_stages, in_bfloat16


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


@pytest.mark.parametrize(("name", "n"), [("tf_efficientnet_lite0", 2), ("test_resnet", 2), ("test_vit", 3)])
def test_what_is_frozen_may_compute_in_bfloat16_and_the_gradient_stays_but_for_rounding(name, n):
    model = build_classifier(name, weights="random", seed=1)
    frozen = freeze_stages(model, n)
    model.eval()
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []

    def gradient():
        model.zero_grad()
        model(x)[:, 1].sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact = gradient()
    handles = [m.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype)) for m in frozen[:1]]
    with in_bfloat16(frozen):
        after = block_groups(model.network)[n][1]
        handles.append(after.register_forward_pre_hook(lambda _m, i: seen.append(i[0].dtype)))
        low = gradient()
    for handle in handles:
        handle.remove()
    assert seen == [torch.bfloat16, torch.float32]
    assert not torch.equal(low, exact)
    assert torch.cosine_similarity(low, exact, dim=0) > 0.99
    assert torch.equal(gradient(), exact)  # nothing is left behind


def test_a_pass_that_breaks_off_leaves_no_bfloat16_behind():
    model = build_classifier("test_resnet", weights="random")
    frozen = freeze_stages(model, 2)
    with pytest.raises(RuntimeError), in_bfloat16(frozen):
        model(torch.rand(2, 7, 32, 32))  # the stem takes three channels
    assert not torch.is_autocast_enabled("cpu")
    assert model(torch.rand(2, 3, 32, 32)).dtype == torch.float32


def test_without_a_frozen_part_nothing_is_rounded():
    model = build_classifier("test_resnet", weights="random").eval()
    x = torch.rand(2, 3, 32, 32)
    exact = model(x)
    with in_bfloat16([]):
        assert torch.equal(model(x), exact)
