"""Released files with random values, in memory and on the disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from vitlab.models.classifier import empty
from vitlab.models.vit import ViTSettings
from vitlab.weights import timm
from vitlab.weights.official import RELEASED, BlockNames, file_shape, name_table

Arrays = dict[str, np.ndarray]


@pytest.fixture
def make_arrays() -> Callable[..., Arrays]:
    """The arrays of a released file for a model of some settings, by the file's names and in its shapes."""

    def make(settings: ViTSettings, naming: BlockNames = RELEASED) -> Arrays:
        rng, table = np.random.default_rng(0), name_table(settings, naming)
        shapes = {name: tuple(parameter.shape) for name, parameter in empty(settings).named_parameters()}
        drawn = {name: rng.normal(size=file_shape(name, settings, shape)) for name, shape in shapes.items()}
        return {table[name]: array.astype(np.float32) for name, array in drawn.items()}

    return make


@pytest.fixture
def make_npz(tmp_path: Path, make_settings: Any, make_arrays: Any) -> Callable[..., Path]:
    """A released file of a small model; `arrays` replaces some arrays, None leaves one out."""

    def make(arrays: dict[str, np.ndarray | None] | None = None, **changes: Any) -> Path:
        content = make_arrays(make_settings(**changes)) | (arrays or {})
        path = tmp_path / "released.npz"
        np.savez(path, **{name: array for name, array in content.items() if array is not None})
        return path

    return make


@pytest.fixture
def write_timm(tmp_path: Path) -> Callable[..., Path]:
    """A model as timm's file and config; `arrays` replaces some arrays, None leaves one out, `changes` are made to the config."""

    def make(model: Any, arrays: dict[str, Any] | None = None, **changes: Any) -> Path:
        tensors, config = timm.export(model)
        tensors = {name: tensor for name, tensor in (tensors | (arrays or {})).items() if tensor is not None}
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        return tmp_path / "model.safetensors"

    return make


@pytest.fixture
def bare_timm(make_model: Any, write_timm: Any) -> Callable[..., Path]:
    """A small model of timm without a word of ours beside it; `args` are its model_args."""

    def make(arrays: Any = None, args: Any = None, changes: Any = None, **settings: Any) -> Path:
        path = write_timm(make_model(activation="gelu", **settings), arrays)
        config = {"model_args": {"num_heads": 2, **(args or {})}, **(changes or {})}
        path.with_name("config.json").write_text(json.dumps(config))
        return path

    return make
