"""Checkpoints laid out as AnomalyMatch 2 writes them."""

from __future__ import annotations

import copy
import json

import torch
from safetensors.torch import save_file

from amatch_widgets.learn._timm import timm

CONFIG = {
    "log_level": "WARNING",
    "output_dtype": {"__numpy_dtype_type__": "|u1"},
    "size": [32, 32],
    "n_output_channels": 3,
    "num_workers": 4,
    "force_dtype": True,
    "interpolation_order": 1,
    "normalisation_method": {"__enum__": "NormalisationMethod", "name": "CONVERSION_ONLY"},
    "normalisation": {
        "maximum_value": None,
        "minimum_value": None,
        "crop_for_maximum_value": None,
        "log_calculate_minimum_value": False,
        "log_scale_a": 1000.0,
        "asinh_scale": [0.7, 0.7, 0.7],
        "asinh_clip": [99.8, 99.8, 99.8],
        "asinh_n_samples": 2000,
        "percentile_n_samples": 2000,
        "minmax_n_samples": None,
        "zscale": {
            "n_samples": 1000,
            "contrast": 0.25,
            "max_reject": 0.5,
            "min_npixels": 5,
            "krej": 2.5,
            "max_iterations": 5,
        },
        "midtones": {"percentile": [99.8], "desired_mean": [0.2], "crop": None},
    },
    "fits_extension": None,
    "channel_combination": None,
}


def config(*, method="CONVERSION_ONLY", **changes):
    """Give the configuration of fitsbolt; what is no option of its own is one of the normalisation."""
    made = copy.deepcopy(CONFIG)
    made["normalisation_method"]["name"] = method
    for name, value in changes.items():
        (made if name in made else made["normalisation"])[name] = value
    return made


def write_model(
    path, *, net="efficientnet-lite0", timm_name="tf_efficientnet_lite0", channels=3, seed=0, **facts
):
    """Write a checkpoint; return the network that is its eval model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        train, average = (timm.create_model(timm_name, num_classes=2, in_chans=channels) for _ in range(2))
    tensors = {f"train_model.{k}": v for k, v in train.state_dict().items()}
    tensors |= {f"eval_model.{k}": v.clone() for k, v in average.state_dict().items()}
    tensors["optimizer.state.0.momentum_buffer"] = torch.zeros(3)
    facts = {"fitsbolt_cfg": config(), **facts}
    method = (facts["fitsbolt_cfg"] or CONFIG)["normalisation_method"]
    record = {
        "optimizer": {"state": {"0": {"momentum_buffer": "__tensor__"}}, "param_groups": [{"lr": 0.0075}]},
        "scheduler": None,
        "it": 100,
        "total_it": 300,
        "best_eval_acc": 0.0,
        "best_it": 0,
        "num_channels": channels,
        "net": net,
        "normalisation_method": method,
        "last_normalisation_method": method,
        **facts,
    }
    metadata = {key: json.dumps(value) for key, value in record.items()}
    save_file(tensors, path, metadata={**metadata, "labeled_data_csv": "filename,label\na.png,anomaly\n"})
    return average.eval()
