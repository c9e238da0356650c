"""The options of a training: every bound, and what is said beyond it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from amatch_widgets.errors import ConfigError
from amatch_widgets.learn.config import TrainConfig

LIMITS = [
    # name, taken, refused, what is allowed
    ("steps", [1, 10**6], [0, -1, 2.0, True, "5", None, math.inf], "a whole number at least 1"),
    ("batch", [2, 512], [1, 0, 2.5], "a whole number at least 2"),
    ("unlabelled_ratio", [0, 7], [-1, 0.5], "a whole number at least 0"),
    ("learning_rate", [1e-9, 1, 3.5, None], [0, -0.1, math.nan, math.inf, "0.1"], "a number above 0"),
    ("gradient_clip", [1e-9, 1], [0, -1, math.inf], "a number above 0"),
    ("frozen_stages", [0, 4], [-1, 1.5, True], "a whole number at least 0"),
    ("momentum", [0, 0.999], [-0.1, 1, 1.5], "a number at least 0 and below 1"),
    ("weight_decay", [0, 1.0], [-1e-9, math.inf], "a number at least 0"),
    ("l2_sp", [0, 1.5], [-0.1, math.inf], "a number at least 0"),
    ("threshold", [0.51, 1], [0.5, 0.3, 1.01, math.nan], "a number above 0.5 and at most 1"),
    ("unlabelled_weight", [0, 10], [-1, math.inf], "a number at least 0"),
    ("ema", [0, 0.9999], [1, -0.5], "a number at least 0 and below 1"),
    ("test_share", [0, 0.5], [-0.1, 0.51], "a number at least 0 and at most 0.5"),
    ("checkpoint_every", [1], [0, 1.5], "a whole number at least 1"),
    ("score_batch", [1], [0], "a whole number at least 1"),
    ("embed_px", [32, 1024, None], [31, 1025, 64.5], "a whole number at least 32 and at most 1024"),
    ("memory_mb", [16], [15, 100.5], "a whole number at least 16"),
    ("seed", [0, 2**40], [-1, 0.5], "a whole number at least 0"),
    ("freeze_norm", [True, False], [0, "no", None], "True or False"),
    ("restart", [True, False], [1], "True or False"),
    ("dihedral", [True, False, None], ["False", 1], "True, False or None"),
    ("backbone", ["resnet18"], [None, 18], "a string"),
    ("weights", [None, "random"], [3, True], "a string or None"),
    ("device", ["cpu"], [0, None], "a string"),
    ("pseudo_labels", ["soft", "hard"], ["firm", None, 1], "'soft' or 'hard'"),
    ("background", [0, 0.5, 2], [-0.1, "x"], "a number at least 0"),
    ("likely_share", [0, 0.5, 1], [-0.1, 1.1, "x"], "a number at least 0 and at most 1"),
]


def test_every_option_has_a_row_here():
    assert {row[0] for row in LIMITS} == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize(("name", "value"), [(row[0], value) for row in LIMITS for value in row[1]])
def test_values_in_range_are_taken(name, value):
    assert getattr(TrainConfig(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "allowed"), [(row[0], value, row[3]) for row in LIMITS for value in row[2]]
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(name, value, allowed):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{name: value})
    assert str(caught.value) == f"TrainConfig({name}={value!r}): allowed is {allowed}."


def test_options_survive_json():
    config = TrainConfig(steps=7, learning_rate=0.5, weights="random", dihedral=False)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_options_of_a_newer_version_are_named():
    with pytest.raises(ConfigError, match=r"Unknown training options \['warmup'\]\. Allowed are \['backb"):
        TrainConfig.from_dict({"steps": 3, "warmup": 4})


def test_options_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 5
    with pytest.raises(TypeError):
        TrainConfig(5)
