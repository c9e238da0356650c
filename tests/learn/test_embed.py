"""Raw features: means and deviations of the late maps, and whether images have an up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from amatch_widgets import open_source
from amatch_widgets.errors import ConfigError
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.embed import Embedder, Projection, orientation

SIDE = 32
DATA = Path(__file__).parents[3] / "shared" / "data"


def embedder_of(name="test_efficientnet", **options):
    options = {"side": SIDE, "n_views": 1, "precision": "float32", **options}
    return Embedder(build_classifier(name, weights="random"), **options)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)


@torch.no_grad()
def by_hand(name, images, groups):
    """Statistics with the plain model, one image at a time."""
    model = build_classifier(name, weights="random").eval()
    rows = []
    for image in images:
        seen = []
        hooks = [
            model.network.get_submodule(group).register_forward_hook(lambda m, i, o, s=seen: s.append(o))
            for group in groups
        ]
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        seen.append(model.network.forward_features((x - model.mean) / model.std))
        for hook in hooks:
            hook.remove()
        maps = [m[0].double().flatten(1).numpy() for m in seen]
        rows.append(np.concatenate([part for m in maps for part in (m.mean(1), m.std(1))]))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("test_efficientnet", ["blocks.2", "blocks.3", "blocks.4"]),
        ("test_resnet", ["layer2", "layer3"]),  # layer4 is the final map itself
    ],
)
def test_features_are_means_and_deviations_of_the_last_groups_and_the_final_maps(name, groups, images):
    embedder = embedder_of(name)
    raw = embedder.raw(images)
    assert raw.dtype == np.float32
    names = [f"{tap}.{statistic}" for tap in [*groups, "final"] for statistic in ("mean", "std")]
    assert [block for block, _ in embedder.blocks] == names
    assert embedder.blocks[0][1].start == 0
    assert all(
        a.stop == b.start for (_, a), (_, b) in zip(embedder.blocks, embedder.blocks[1:], strict=False)
    )
    assert embedder.n_features == raw.shape[1] == embedder.blocks[-1][1].stop
    wanted = by_hand(name, images, groups)
    assert wanted.std(0).max() > 0
    np.testing.assert_allclose(raw, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_the_default_network_gives_the_3808_features_of_the_recipe():
    embedder = embedder_of("tf_efficientnet_lite0", side=64)
    widths = [(name, place.stop - place.start) for name, place in embedder.blocks]
    assert widths == [
        (f"{tap}.{statistic}", width)
        for tap, width in (("blocks.4", 112), ("blocks.5", 192), ("blocks.6", 320), ("final", 1280))
        for statistic in ("mean", "std")
    ]
    assert embedder.n_features == 3808


@pytest.mark.parametrize(
    ("name", "side", "taps"),
    [
        ("test_vit", 160, ["blocks.3", "blocks.4", "blocks.5", "final"]),  # maps of tokens
        ("test_convnext", 64, ["stages.1", "stages.2", "final"]),
        ("swin_tiny_patch4_window7_224", 224, ["final"]),  # channels last, no groups
        ("vgg11_bn", 64, ["final"]),
    ],
)
def test_other_families_of_networks_have_taps_too(name, side, taps):
    embedder = embedder_of(name, side=side)
    assert [block for block, _ in embedder.blocks] == [f"{t}.{s}" for t in taps for s in ("mean", "std")]
    raw = embedder.raw(np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8))
    assert raw.shape == (3, embedder.n_features)
    assert np.isfinite(raw).all()
    width = embedder.blocks[-1][1].stop - embedder.blocks[-1][1].start
    assert width == build_classifier(name, weights="random").head.in_features or name == "vgg11_bn"


def test_with_four_views_quarter_turns_change_nothing(images):
    raw = embedder_of(n_views=4).raw(images)
    turned = embedder_of(n_views=4).raw(np.rot90(images, 1, (1, 2)).copy())
    np.testing.assert_allclose(turned, raw, atol=1e-4 * np.abs(raw).max())
    views = [embedder_of().raw(np.rot90(images, k, (1, 2)).copy()) for k in range(4)]
    np.testing.assert_allclose(raw, np.mean(views, 0), atol=1e-4 * np.abs(raw).max())
    assert np.abs(views[0] - views[1]).max() > 0.01 * np.abs(raw).max()


def test_images_are_resized_to_the_side(images):
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    larger = functional.interpolate(x, (48, 48), mode="bilinear", align_corners=False)
    resized = larger.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    embedder = embedder_of(side=48)
    raw = embedder.raw(images)
    np.testing.assert_allclose(raw, embedder.raw(resized), atol=0.02 * np.abs(raw).max())
    assert np.abs(raw - embedder_of().raw(images)).max() > 0.05 * np.abs(raw).max()


def test_maps_of_one_position_have_no_deviation():
    embedder = embedder_of()  # 32 px end as 1 x 1
    raw = embedder.raw(np.zeros((2, SIDE, SIDE, 3), np.uint8))
    assert (raw[:, dict(embedder.blocks)["final.std"]] < 1e-5).all()
    assert np.isfinite(raw).all()


def test_of_no_images_there_are_no_rows():
    embedder = embedder_of()
    assert embedder.raw(np.empty((0, SIDE, SIDE, 3), np.uint8)).shape == (0, embedder.n_features)


def test_bfloat16_gives_nearly_the_same(images):
    raw, low = embedder_of().raw(images), embedder_of(precision="bfloat16").raw(images)
    assert not np.array_equal(raw, low)
    np.testing.assert_allclose(low, raw, atol=0.03 * np.abs(raw).max())


def test_what_does_not_fit_the_memory_is_done_in_parts(images, monkeypatch):
    embedder = embedder_of(n_views=4)
    wanted = embedder.raw(images)
    maps, sizes = embedder._inference.maps, []

    def cramped(x):
        sizes.append(len(x))
        found = maps(x)  # the taps have been filled when the memory gives out
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    monkeypatch.setattr(embedder._inference, "maps", cramped)
    np.testing.assert_allclose(embedder.raw(images), wanted, rtol=1e-3, atol=1e-5)
    assert sizes == [16] + [3] * 12  # filled up


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="allowed is 1, or 4"):
        embedder_of(n_views=2)
    with pytest.raises(ConfigError, match="at least 1"):
        embedder_of(side=0)
    with pytest.raises(ConfigError, match="takes no images of 50 px"):
        embedder_of("test_vit", side=50)


def test_features_and_projection_fit_together(images):
    embedder = embedder_of()
    raw = embedder.raw(images)
    projection = Projection.fit(raw, embedder.blocks, seed=0)
    assert projection.apply(raw).shape == (7, 12)
    assert projection.spaces == (slice(0, 6), slice(6, 12))


def skies(n, *, slope, seed=0):
    """Noise, brighter towards the top by `slope`."""
    noise = np.random.default_rng(seed).normal(100, 20, (n, SIDE, SIDE, 3))
    light = np.linspace(slope, -slope, SIDE)[:, None, None]
    return np.clip(noise + light, 0, 255).astype(np.uint8)


def test_images_brighter_above_have_an_up():
    found = orientation(embedder_of(), skies(64, slope=60))
    assert found.has_up
    assert found.auroc > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_images_of_noise_have_no_up(seed):
    found = orientation(embedder_of(), skies(256, slope=0, seed=seed))
    assert not found.has_up
    assert 0.35 < found.auroc < 0.65


def test_images_that_are_all_alike_have_no_up():
    found = orientation(embedder_of(), np.full((16, SIDE, SIDE, 3), 90, np.uint8))
    assert not found.has_up
    assert found.auroc == 0.5


def test_the_answer_depends_on_the_seed_alone():
    images = skies(300, slope=3)  # more than are looked at
    first, again = (orientation(embedder_of(), images, seed=1) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("n", [0, 1, 3])
def test_of_too_few_images_nothing_is_said(n):
    found = orientation(embedder_of(), skies(n, slope=60))
    assert not found.has_up
    assert np.isnan(found.auroc)


@pytest.mark.parametrize(("name", "has_up"), [("galaxyzoo1", False), ("miniimagenet", True)])
def test_galaxies_have_no_up_and_photographs_have(name, has_up):
    folder = DATA / name / "images"
    if not folder.is_dir():
        pytest.skip(f"no images in {folder}")
    source = open_source(folder)
    pool = PixelPool(source, Preprocess(size=64))
    indices = np.random.default_rng(0).choice(len(source), 128, replace=False)
    embedder = Embedder(build_classifier("tf_efficientnet_lite0"), side=128, n_views=1)
    assert orientation(embedder, pool.batch(indices)[0]).has_up is has_up
