"""Models of AnomalyMatch 2: what is read, what the network then says, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from amatch_widgets.errors import WeightsError
from amatch_widgets.learn.inference import Inference
from amatch_widgets.score.anomalymatch import read_model
from tests.score.anomalymatch import config, write_model

MIX = {"__numpy_array__": [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]], "dtype": "float64"}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model_iteration_2.safetensors"


@pytest.mark.parametrize(
    ("net", "name", "channels"),
    [
        ("efficientnet-lite0", "tf_efficientnet_lite0", 3),
        ("efficientnet-b0", "efficientnet_b0", 4),
    ],
)
def test_logits_are_those_of_the_eval_model_on_bytes_divided_by_255(path, net, name, channels):
    network = write_model(path, net=net, timm_name=name, channels=channels)
    images = np.resize(IMAGES, (3, 32, 32, channels))
    model = read_model(path)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    inference = Inference(model.classifier, precision="float32")
    np.testing.assert_allclose(inference.logits(images), expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(inference.scores(images), expected.softmax(1)[:, 1].numpy(), atol=1e-5)
    assert model.origin == "'model_iteration_2.safetensors' (AnomalyMatch 2)"


def test_images_are_prepared_as_the_file_says(path):
    settings = config(
        method="ASINH", size=[64, 64], asinh_scale=[0.1, 0.2, 0.3], asinh_clip=[99.0, 98.0, 97.0]
    )
    write_model(path, fitsbolt_cfg=settings)
    image = read_model(path).image
    assert (image.size, image.channels, image.method) == (64, 3, "ASINH")
    assert (image.softening, image.width) == ((0.1, 0.2, 0.3), (99.0, 98.0, 97.0))
    assert (image.n_percentiles, image.n_extremes) == (2000, None)


def test_a_file_without_the_name_of_its_network_is_of_the_usual_one(path):
    write_model(path, net=None)
    assert read_model(path).image.channels == 3


def test_a_file_that_does_not_say_how_large_its_images_were_needs_size(path):
    write_model(path, fitsbolt_cfg=config(size=None))
    with pytest.raises(WeightsError, match=r"how large its images were\. Pass size="):
        read_model(path)
    assert read_model(path, size=150).image.size == 150


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"fitsbolt_cfg": None}, "it does not say how images are read"),
        ({"fitsbolt_cfg": config(method="MIDTONES")}, "its normalisation 'MIDTONES' is none of"),
        ({"fitsbolt_cfg": config(output_dtype={"__numpy_dtype_type__": "<f4"})}, "not uint8"),
        ({"fitsbolt_cfg": config(percentile_n_samples="some")}, r"found from, .*are no numbers"),
        ({"fitsbolt_cfg": config(size=[32, 48])}, "here they are square"),
        ({"fitsbolt_cfg": config(interpolation_order=3)}, "interpolation_order=3"),
        ({"fitsbolt_cfg": config(method="ZSCALE", zscale={"krej": 3.0})}, "zscale has other settings"),
        ({"fitsbolt_cfg": config(normalisation={"asinh_scale": [0.7]})}, "as fitsbolt 0.3 does"),
        (
            {
                "channel_combination": {
                    "__numpy_array__": [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]],
                    "dtype": "f8",
                }
            },
            "its bands were mixed",
        ),
        (
            {"last_normalisation_method": {"__enum__": "NormalisationMethod", "name": "LOG"}},
            r"names the normalisations \['CONVERSION_ONLY', 'LOG'\]",
        ),
        ({"fitsbolt_cfg": config(minmax_n_samples=0)}, "are no numbers"),
        ({"fitsbolt_cfg": config(log_scale_a=float("inf"), minmax_n_samples=float("inf"))}, "cannot be used"),
        ({"fitsbolt_cfg": config(minimum_value="low")}, "are no numbers"),
        ({"fitsbolt_cfg": config(method="ZSCALE", zscale=[1])}, "cannot be used"),
        ({"fitsbolt_cfg": config(crop_for_maximum_value=[])}, "cannot be used"),
        ({"net": "test-cnn"}, "its network 'test-cnn' is none of"),
        ({"net": "efficientnet-lite1"}, "its tensors are not those of 'tf_efficientnet_lite1'"),
        ({"num_channels": 4}, "its tensors are not those of"),
        ({"num_channels": "many"}, "its number of channels is 'many'"),
    ],
)
def test_what_cannot_be_made_as_it_was_there_is_refused(path, facts, message):
    write_model(path, **facts)
    with pytest.raises(WeightsError, match=message):
        read_model(path)


def test_plain_mixtures_change_nothing(path):
    eye = {"__numpy_array__": np.eye(3).tolist(), "dtype": "float64"}
    write_model(path, channel_combination=eye)
    assert read_model(path).image.channels == 3


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    for name in ("old.pth", "disguised.safetensors"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(WeightsError, match=r"pickle|cannot be read"):
            read_model(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_cut_off_gone_or_of_something_else_is_refused(path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_model(path)
    write_model(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_model(path)
