"""One small model in every layout that Google's ViT code saved."""

import re

import numpy as np
import pytest
import torch

from vitlab.errors import WeightsError
from vitlab.models.classifier import empty
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, Mean
from vitlab.nn.position import Learned1D, SinCos2D
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem
from vitlab.weights.big_vision import is_tree, layout_of, prefix_of, resnet_shape, resnet_table, settings_of
from vitlab.weights.load import load, load_with_report
from vitlab.weights.official import LINEN, RELEASED

OFFICIAL, ROOT = "Transformer/posembed_input/pos_embedding", "pos_embedding"
SMALL = [
    {},
    {"representation_dim": 6},
    {"pool": Mean()},
    {"num_classes": None},
    {"stem": Patches(patch_size=Size(2, 4)), "num_heads": 4, "image_size": Size(8, 16)},
]


@pytest.fixture
def write(tmp_path):
    def write(arrays):
        np.savez(tmp_path / "tree.npz", **arrays)
        return tmp_path / "tree.npz"

    return write


def stacked(arrays):
    """The same arrays with the blocks' on top of each other."""
    found = {}
    for name, array in arrays.items():
        found.setdefault(re.sub(r"encoderblock_\d+/", "encoderblock/", name), []).append(array)
    return {name: np.stack(layers) if "encoderblock/" in name else layers[0] for name, layers in found.items()}


def rooted(arrays):
    """The same arrays with big_vision's position table: in the root, and added before the class token stands in front."""
    found = dict(arrays)
    table = found.pop(OFFICIAL)
    if "cls" in found:
        found["cls"], table = found["cls"] + table[:, :1], table[:, 1:]
    return found | {ROOT: table}


def with_map_head(arrays, head):
    rng, block = np.random.default_rng(1), "Transformer/encoderblock_0/"
    found = {f"{head}probe": rng.normal(size=(1, 1, 16))}
    for name, array in arrays.items():
        if name.startswith(block) and "LayerNorm_1" not in name:
            found[name.replace(block, head)] = rng.normal(size=array.shape)
    return dict(arrays) | {name: array.astype(np.float32) for name, array in found.items()}


def same(model, other):
    return all(torch.equal(mine, other.get_parameter(name)) for name, mine in model.named_parameters())


def test_both_naming_schemes_are_told_by_the_names(make_settings, make_arrays):
    for naming in (RELEASED, LINEN):
        names = make_arrays(make_settings(), naming)
        assert layout_of(names).block == naming
        assert is_tree(names)
    assert not is_tree(["resnet/root_block/standardized_conv2d/kernel"])


@pytest.mark.parametrize("changes", SMALL)
def test_shapes_tell_the_settings(tmp_path, make_settings, make_arrays, changes):
    settings = make_settings(**changes)
    shapes = {name: array.shape for name, array in make_arrays(settings).items()}
    assert settings_of(tmp_path, shapes) == settings


def test_a_grid_that_is_not_square_needs_the_trained_size(tmp_path, make_settings, make_arrays):
    settings = make_settings(image_size=Size(9, 12), pool=ClassToken())
    shapes = {name: array.shape for name, array in make_arrays(settings).items()}
    assert settings_of(tmp_path, shapes, Size(9, 12)) == settings


@pytest.mark.parametrize("naming", [RELEASED, LINEN], ids=["released", "linen"])
@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/", "img/", "params/img/", "opt/target/img/"])
def test_what_stands_before_the_names_says_nothing_of_the_model(write, make_settings, make_arrays, prefix, naming):
    arrays = make_arrays(make_settings(), naming)
    plain = load(write(arrays))
    others = {"opt/state/step": np.zeros((), np.int64), "params/txt/embedding/kernel": np.zeros((2, 2), np.float32)}
    prefixed = {prefix + name: array for name, array in arrays.items()}
    assert prefix_of(prefixed | others) == prefix
    loaded = load_with_report(write(prefixed | others))
    assert same(loaded.model, plain)
    assert loaded.report.extra == sorted(others)
    assert not loaded.report.missing


@pytest.mark.parametrize("naming", [RELEASED, LINEN], ids=["released", "linen"])
def test_stacked_blocks_are_the_same_blocks(write, make_settings, make_arrays, naming):
    arrays = make_arrays(make_settings(depth=3), naming)
    plain = load(write(arrays))
    loaded = load_with_report(write(stacked(arrays)))
    assert loaded.model.settings == plain.settings
    assert same(loaded.model, plain)
    assert loaded.report.extra == []


def test_each_array_of_a_stack_is_read_once(write, make_settings, make_arrays, monkeypatch):
    read, real = [], np.lib.format.read_array
    path = write(stacked(make_arrays(make_settings(depth=3))))
    monkeypatch.setattr(
        "vitlab.weights.format.npy.read_array", lambda *args, **more: read.append(1) or real(*args, **more)
    )
    load(path)
    with np.load(path) as file:
        assert len(read) == len(file.files)


@pytest.mark.parametrize("pool", [ClassToken(), Mean()], ids=lambda pool: pool.type)
def test_a_table_in_the_root_has_no_row_for_the_class_token(write, make_settings, make_arrays, pool):
    arrays = make_arrays(make_settings(pool=pool), LINEN)
    official, model = load(write(arrays)).eval(), load(write(rooted(arrays))).eval()
    assert model.settings.position == Learned1D(class_token=isinstance(pool, Mean))
    assert model.position.table.shape == (1, 4, 16)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model(images), official(images))


@pytest.mark.parametrize("head", ["MAPHead_0/", ""], ids=["a layer of its own", "inlined"])
def test_attention_pooling_is_read_where_it_lies(write, make_settings, make_arrays, head):
    arrays = with_map_head(rooted(make_arrays(make_settings(pool=Mean()), LINEN)), head)
    loaded = load_with_report(write(arrays))
    assert loaded.model.settings == make_settings(pool=AttentionPool())
    assert loaded.report.extra == []
    key = arrays[f"{head}MultiHeadDotProductAttention_0/key/kernel"]
    assert torch.equal(loaded.model.pooling.attention.key.weight, torch.from_numpy(key.reshape(16, 16).T.copy()))


def test_positions_that_are_computed_need_the_image_size(write, make_settings, make_arrays):
    arrays = make_arrays(make_settings(), LINEN)
    del arrays[OFFICIAL]
    path = write(arrays)
    with pytest.raises(WeightsError, match=r"does not say its image size.*trained_size=\(height, width\)"):
        load(path)
    model = load(path, trained_size=(8, 12))
    assert model.settings.position == SinCos2D() and model.settings.grid == Grid(2, 3)
    assert load(path, trained_size=8, image_size=16).settings.grid == Grid(4, 4)


def test_a_hybrid_may_have_a_prefix_and_a_stack_too(write, make_settings, make_arrays):
    stem = ResNetStem(depths=(1, 2), root_width=32, patch_size=Size(1, 2))
    arrays = make_arrays(make_settings(stem=stem, image_size=Size(32, 64)), LINEN)
    path = write({f"params/{name}": array for name, array in stacked(rooted(arrays)).items()})
    assert load(path, trained_size=(32, 64)).settings.stem == stem


QUERY = "Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"
SCALE = "Transformer/encoderblock/LayerNorm_0/scale"


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({QUERY: None}, "is not a complete ViT"),
        ({QUERY: np.zeros((16, 2, 8), np.float32)}, "is not a complete ViT"),
        ({QUERY: np.zeros((3, 16, 2, 8), np.float32)}, r"query/kernel' has shape \[3, 16, 2, 8\], not \[2, 16, 2, 8\]"),
        ({SCALE: np.zeros((), np.float32)}, "is not a complete ViT"),
        ({SCALE: np.zeros((2_000_000_000, 0), np.float32)}, "'depth' = 2000000000"),
        ({SCALE: np.zeros((0, 16), np.float32)}, "depth"),
        ({ROOT: np.zeros((1, 5, 16), np.float32)}, "5 positions, not a square grid"),
        ({ROOT: np.zeros(4, np.float32)}, "is not a complete ViT"),
        ({"MAPHead_0/probe": np.zeros((1, 1, 16), np.float32)}, r"'pooling\.\S+' is missing"),
    ],
    ids=range(9),
)
def test_a_tree_that_is_no_whole_model_is_refused_in_one_line(write, make_settings, make_arrays, arrays, what):
    whole = stacked(rooted(make_arrays(make_settings(), LINEN)))
    path = write({name: array for name, array in (whole | arrays).items() if array is not None})
    with pytest.raises(WeightsError, match=what) as error:
        load(path)
    assert "\n" not in str(error.value)


def resnet_arrays(settings):
    rng, table = np.random.default_rng(0), resnet_table(settings)
    shapes = {name: tuple(parameter.shape) for name, parameter in empty(settings).named_parameters()}
    assert set(table) == set(shapes)
    return {table[name]: rng.normal(size=resnet_shape(shape)).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("unit", [PreActivation(padding="ignored"), PostActivation()], ids=lambda unit: unit.type)
@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
@pytest.mark.parametrize("num_classes", [3, None])
def test_a_resnet_is_matched_completely(write, unit, prefix, num_classes):
    settings = ResNetSettings(depths=(2, 1), root_width=32, num_classes=num_classes, unit=unit)
    arrays = {f"{prefix}{name}": array for name, array in resnet_arrays(settings).items()}
    loaded = load_with_report(write(arrays))
    assert loaded.model.settings == settings
    assert loaded.report.extra == []
    conv = arrays[f"{prefix}block1/unit{'1' if unit.type == 'PostActivation' else '01'}/conv2/kernel"]
    assert torch.equal(loaded.model.stages[0][0].conv2.weight, torch.from_numpy(conv.transpose(3, 2, 0, 1).copy()))


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"root_block/conv_root/kernel": np.zeros((7, 7, 3, 33), np.float32)}, "a root of 33 channels"),
        ({"root_block/conv_root/kernel": np.zeros((), np.float32)}, "is not a complete ResNet"),
        ({"norm-pre-head/scale": None}, "'norm.weight' is missing"),
        ({"block1/unit01/conv2/kernel": np.zeros((3, 3, 32), np.float32)}, r"has shape \[3, 3, 32\]"),
        ({"Transformer/encoder_norm/scale": np.zeros(8, np.float32)}, "no model that is known here"),
    ],
    ids=range(5),
)
def test_a_tree_that_is_no_whole_resnet_is_refused(write, arrays, what):
    whole = resnet_arrays(ResNetSettings(depths=(1,), root_width=32, num_classes=3))
    path = write({name: array for name, array in (whole | arrays).items() if array is not None})
    with pytest.raises(WeightsError, match=what):
        load(path)
