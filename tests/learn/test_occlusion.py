"""What a score rests on: the parts that matter stand out, all else is 0."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.learn.occlusion import PARTS, occlusion_map, patch_sides

SIDE = 48
SPOT = np.s_[8:16, 28:36]


def brightness_of(where):
    """Score images by the mean of one part of them; nothing else counts."""
    return lambda images: images[:, *where].mean((1, 2, 3)).astype(np.float32)


@pytest.fixture(params=[1, 3, 5])
def image(request):
    """Noise around 40 with one bright spot."""
    image = np.random.default_rng(0).integers(30, 50, (SIDE, SIDE, request.param), dtype=np.uint8)
    image[SPOT] = 200
    return image


def test_the_one_part_that_carries_the_score_stands_out_and_all_else_is_0(image):
    losses, score = occlusion_map(image, brightness_of(SPOT))
    assert (losses.shape, losses.dtype, score) == ((SIDE, SIDE), np.float32, 200)
    row, column = np.unravel_index(losses.argmax(), losses.shape)
    assert 8 <= row < 16
    assert 28 <= column < 36
    assert losses.max() > 80  # of 160 that can be lost
    assert np.abs(losses[32:]).max() < 1e-4  # further than the widest patch reaches
    assert np.abs(losses[:, :10]).max() < 1e-4
    assert losses.min() > -1e-4


def test_a_part_that_speaks_against_is_negative(image):
    against = brightness_of(SPOT)
    losses, score = occlusion_map(image, lambda images: -against(images))
    assert score == -200
    assert losses.min() < -80
    assert losses.max() < 1e-4


def test_covering_the_background_changes_little(image):
    losses, _ = occlusion_map(image, brightness_of(np.s_[:, :]))
    assert losses[SPOT].min() > 20 * np.abs(losses[36:, :12]).max()


def test_parts_at_the_border_and_in_the_corner_count_as_much():
    dark = np.zeros((SIDE, SIDE, 1), np.uint8)
    found = []
    for where in (np.s_[20:28, 20:28], np.s_[:8, 20:28], np.s_[40:, 40:]):
        image = dark.copy()
        image[where] = 200
        losses, _ = occlusion_map(image, brightness_of(where))
        row, column = np.unravel_index(losses.argmax(), losses.shape)
        assert image[row, column, 0]
        found.append(losses.max())
    assert max(found) < 1.35 * min(found)


def test_a_constant_image_has_nothing_to_lose():
    losses, score = occlusion_map(np.full((20, 33, 3), 77, np.uint8), brightness_of(np.s_[:, :]))
    assert not losses.any()
    assert losses.shape == (20, 33)
    assert score == 77


def test_the_smallest_images_are_covered_too():
    image = np.zeros((8, 8, 1), np.uint8)
    image[3:5, 3:5] = 255
    losses, _ = occlusion_map(image, brightness_of(np.s_[:, :]))
    assert np.isfinite(losses).all()
    assert losses.argmax() in (27, 28, 35, 36)


def test_the_score_sees_whole_images_some_at_a_time(image):
    shapes = []

    def score(images):
        assert images.dtype == np.uint8
        shapes.append(images.shape)
        return np.zeros(len(images), np.float32)

    occlusion_map(image, score)
    assert {shape[1:] for shape in shapes} == {image.shape}
    assert max(shape[0] for shape in shapes) <= 64
    assert sum(shape[0] for shape in shapes) == 1 + 7 * 7 + 11 * 11


def test_patches_are_a_third_and_a_fifth_of_the_image():
    assert patch_sides(192) == (64, 38)


def test_the_map_is_the_mean_of_those_of_its_scales(image):
    score = brightness_of(SPOT)
    coarse, fine = (occlusion_map(image, score, parts=(n_steps,))[0] for n_steps in PARTS)
    np.testing.assert_allclose(occlusion_map(image, score)[0], (coarse + fine) / 2, atol=1e-4)
    assert not np.allclose(coarse, fine)
    assert patch_sides(SIDE, PARTS[:1]) == patch_sides(SIDE)[:1]
