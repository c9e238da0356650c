"""Views of images: what they keep, what they draw, and what each image draws for itself."""

from __future__ import annotations

import pytest
import torch

from amatch_widgets.learn import augment
from amatch_widgets.learn.augment import strong_view, to_float, weak_view

VIEWS = [weak_view, strong_view]


def images(n=4, channels=3, side=32, seed=0):
    return torch.randint(
        0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def unshifted(monkeypatch):
    monkeypatch.setattr(augment, "_SHIFT", 0.0)


def test_bytes_become_numbers_from_0_to_1():
    x = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.tensor([0, 0.2, 1]))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("side", [8, 31, 32])
def test_a_view_keeps_shape_and_range(view, channels, side):
    x = view(images(6, channels, side), seeded(), dihedral=True)
    assert x.shape == (6, channels, side, side)
    assert x.dtype == torch.float32
    assert bool(torch.isfinite(x).all())
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_image_stays_in_range(view, value):
    x = view(torch.full((64, 3, 8, 8), value, dtype=torch.uint8), seeded(), dihedral=True)
    assert bool(torch.isfinite(x).all())
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


@pytest.mark.parametrize("view", VIEWS)
def test_the_images_given_are_not_changed(view):
    given = images()
    view(given, seeded(), dihedral=True)
    torch.testing.assert_close(given, images())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_same_seed_gives_the_same_views_and_another_one_others(view, channels):
    first, again, other = (view(images(4, channels), seeded(s), dihedral=True) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("view", VIEWS)
def test_the_global_random_state_is_not_touched(view):
    before = torch.get_rng_state()
    view(images(), seeded(), dihedral=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("view", VIEWS)
def test_each_image_draws_for_itself(view):
    one = images(1).expand(16, -1, -1, -1)
    views = view(one, seeded(), dihedral=True)
    assert len({v.numpy().tobytes() for v in views}) > 8


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("side", [31, 32])
def test_channels_move_together(view, side):
    grey = images(8, 1, side).expand(-1, 3, -1, -1)
    x = view(grey, seeded(), dihedral=True)
    torch.testing.assert_close(x[:, 0], x[:, 1])
    torch.testing.assert_close(x[:, 0], x[:, 2])


def all_eight(image):
    turned = [torch.rot90(image, k, (1, 2)) for k in range(4)]
    return [t.numpy().tobytes() for t in turned] + [t.flip(2).numpy().tobytes() for t in turned]


@pytest.mark.parametrize("side", [8, 9])
def test_without_shift_the_weak_view_is_one_of_eight_and_each_occurs(unshifted, side):
    image = images(1, 2, side)
    allowed = all_eight(to_float(image)[0])
    assert len(set(allowed)) == 8
    views = weak_view(image.expand(200, -1, -1, -1), seeded(), dihedral=True)
    assert {v.contiguous().numpy().tobytes() for v in views} == set(allowed)


@pytest.mark.parametrize("side", [8, 9])
def test_photographs_are_only_mirrored_left_to_right(unshifted, side):
    image = images(1, 2, side)
    x = to_float(image)[0]
    views = weak_view(image.expand(100, -1, -1, -1), seeded(), dihedral=False)
    allowed = {x.numpy().tobytes(), x.flip(2).contiguous().numpy().tobytes()}
    assert {v.contiguous().numpy().tobytes() for v in views} == allowed


def test_a_photograph_is_never_put_on_its_head():
    ramp = torch.arange(32, dtype=torch.uint8).view(1, 1, 32, 1).expand(50, 3, 32, 32)  # dark above
    x = weak_view(ramp, seeded(), dihedral=False)
    assert bool((x[:, :, 24:].mean((1, 2, 3)) > x[:, :, :8].mean((1, 2, 3))).all())
    torch.testing.assert_close(x, x[..., :1].expand_as(x))  # never turned: rows stay of one value


@pytest.mark.parametrize("side", [16, 33])
def test_shifted_pixels_come_from_the_image_and_what_is_shifted_in_is_mirrored(side):
    columns = torch.arange(side, dtype=torch.uint8).view(1, 1, 1, side).expand(100, 1, side, side)
    rows = weak_view(columns, seeded(), dihedral=False)[:, 0, 0] * 255
    most = int(side * 0.125)
    shifts = set()
    for row in rows.round().int().tolist():
        if row[side // 2] > row[side // 2 + 1]:
            row = row[::-1]  # noqa: PLW2901 (flipped back)
        shift = row[side // 2] - side // 2
        shifts.add(shift)
        mirrored = [abs(i) if i < side else 2 * (side - 1) - i for i in range(shift, shift + side)]
        assert row == mirrored
    assert shifts == set(range(-most, most + 1))


def test_where_nothing_is_drawn_the_strong_view_is_the_weak_one(monkeypatch):
    monkeypatch.setattr(augment, "_N_OPERATIONS", 0)
    monkeypatch.setattr(augment, "_CUTOUT", 0.0)
    given = images(4, 3, 33)
    strong, weak = (view(given, seeded(), dihedral=True) for view in (strong_view, weak_view))
    torch.testing.assert_close(strong, weak, atol=2e-5, rtol=0)  # resampled at its own places


def test_the_strong_view_changes_far_more_than_the_weak_one():
    given = images(64)
    strong, weak = (view(given, seeded(), dihedral=True) for view in (strong_view, weak_view))
    is_changed = (strong - weak).abs().mean((1, 2, 3)) > 0.02
    assert float(is_changed.float().mean()) > 0.9


@pytest.mark.parametrize("name", [n for n in augment._OPERATIONS if n != "identity"])
def test_each_operation_does_something_to_its_image_and_nothing_to_its_neighbour(name):
    x = to_float(images(2, 3, 16)) * 0.6 + 0.2
    zero = torch.zeros(2)
    strength = {n: (torch.tensor([0.9, 0.0]) if n == name else zero) for n in augment._OPERATIONS}
    x_new = augment._change_values(x, {n: s.view(2, 1, 1, 1) for n, s in strength.items()})
    x_new = augment._move(x_new, strength)
    torch.testing.assert_close(x_new[1], x[1], atol=2e-5, rtol=0)
    assert float((x_new[0] - x[0]).abs().max()) > 0.02


def test_the_cutout_is_a_square_of_the_mean_colour_of_at_most_half_the_side():
    x = to_float(images(50, 3, 32))
    half, *centre = torch.rand((3, 50, 1), generator=seeded()).unbind()
    cut = augment._cut_out(x, half / 4, torch.stack(centre))
    sizes = []
    for before, after in zip(x, cut, strict=True):
        hole = (before != after).any(0)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert int(rows) <= 16
        assert int(columns) <= 16
        if hole.any():
            assert int(hole.sum()) >= 0.9 * int(rows) * int(columns)  # but for pixels of just that value
            filled = after[:, hole]
            torch.testing.assert_close(filled, before.mean((1, 2))[:, None].expand_as(filled))
        sizes.append(int(rows))
    assert len(set(sizes)) > 5


@pytest.mark.parametrize("dihedral", [True, False])
def test_strong_views_of_some_images_are_those_they_have_among_all(dihedral):
    given, rows = images(12), torch.tensor([7, 0, 11])
    among_all = strong_view(given, seeded(), dihedral=dihedral)
    alone = strong_view(given, seeded(), dihedral=dihedral, rows=rows)
    torch.testing.assert_close(alone, among_all[rows], rtol=0, atol=0)
    assert not torch.equal(alone[0], alone[1])
