"""What the config.json beside a file of timm says, and what it may not."""

import json

import pytest
import safetensors.torch
import torch

from vitlab.config import to_json
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.errors import SettingsError, WeightsError
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.weights.layout import parameter_shapes
from vitlab.weights.load import load_with_report, read
from vitlab.weights.timm import file_shape, name_table, place_of
from vitlab.weights.timm_config import BIT_UNIT

CHANGED = {
    "pool_include_prefix": True,
    "dynamic_img_pad": True,
    "pre_norm": True,
    "qk_norm": True,
    "proj_bias": False,
}.items()


def test_a_config_that_was_changed_after_us_is_believed(make_model, write_timm):
    model = make_model(classes=("ant", "bee", "cat"))
    head = {"head.weight": torch.zeros(2, 16), "head.bias": torch.zeros(2)}
    path = write_timm(model, head, num_classes=2, label_names=["dog", "emu"])
    contents = read(path)
    assert (contents.settings.num_classes, contents.classes) == (2, ("dog", "emu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, "config.json: num_classes is 4, but 3 in model.safetensors; put the config beside"),
        (
            {"label_names": ["ant", "bee"]},
            "config.json: label_names has 2 names, but there are 3 classes in model.safetensors",
        ),
        ({"label_names": {"0": "ant", "3": "cat"}}, "label_names has 4 names"),
        ({"global_pool": "map"}, "config.json: global_pool is 'map', but 'token' in model.safetensors; put the config"),
        ({"global_pool": "max"}, "global_pool 'max' is not known here, only token, avg, map; see"),
        ({"architecture": "vit_small_patch16_rope_224"}, "is a vit_small_patch16_rope_224"),
        ({"architecture": "vit_base_patch16_rpn_224"}, "is a vit_base_patch16_rpn_224"),
        (
            {"pretrained_cfg": {"crop_mode": "border"}},
            "crop_mode 'border'.*; change it, and prepare the images yourself",
        ),
        (
            {"pretrained_cfg": {"crop_mode": "squash", "crop_pct": 0.9}},
            "crop_mode 'squash' with crop_pct 0.9 .*; change it, and",
        ),
        (
            {"pretrained_cfg": {"interpolation": "random"}},
            "interpolation 'random' is not known here, only bilinear and bicubic; change",
        ),
        ({"pretrained_cfg": {"input_size": [3, 16, 16]}}, "5 positions, not the 4×4 of 16×16 pixels"),
        ({"pretrained_cfg": 3}, "config.json: 'pretrained_cfg' is no single value; correct it, or get it again"),
        ({"model_args": {"img_size": "large"}}, "img_size"),
        ({"model_args": {"num_heads": 2, "img_size": 12}}, "5 positions, not the 3×3 of 12×12 pixels"),
        ({"model_args": {"num_heads": 2, "act_layer": "silu"}}, "act_layer 'silu' is not known here, only .*; see"),
        *(
            ({"model_args": {"num_heads": 2, name: value}}, f"{name} .* is not known here, only")
            for name, value in CHANGED
        ),
        (
            {"model_args": {"num_heads": 2, "norm_layer": "layernorm2d"}},
            'norm_layer "layernorm2d" is not known here, nor',
        ),
        ({"model_args": {"num_heads": 3}}, "config.json: num_heads is 3, which does not divide 16; put"),
        ({"model_args": {}}, "how many heads share a width of 16; give num_heads"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(bare_timm, changes, message):
    with pytest.raises((WeightsError, SettingsError), match=message) as error:
        read(bare_timm(changes=changes))
    assert "\n" not in str(error.value)


def test_a_model_of_other_channels_is_refused_for_them_and_not_for_what_its_config_says_of_them(bare_timm):
    one = {"model_args": {"num_heads": 2, "in_chans": 1}, "pretrained_cfg": {"mean": [0.5], "std": [0.5]}}
    with pytest.raises(WeightsError, match="images of 1 channels; only RGB models can be read"):
        read(bare_timm({"patch_embed.proj.weight": torch.zeros(16, 1, 4, 4)}, changes=one))


def test_options_that_change_nothing_that_is_computed_are_left_alone(bare_timm):
    options = {
        "dynamic_img_size": True,
        "weight_init": "skip",
        "drop_path_rate": 0.1,
        "pos_drop_rate": 0.1,
        "in_chans": 3,
    }
    assert (
        read(bare_timm(args=options | {"qk_norm": False, "norm_layer": None, "final_norm": True})).settings.depth == 2
    )


@pytest.fixture
def a_bit(tmp_path):
    """A small BiT of timm; `config` is its config.json, None where there is none."""

    def make(config=None):
        settings = ResNetSettings(image_size=Size(32, 32), depths=(1, 1), root_width=32, unit=BIT_UNIT, num_classes=3)
        table = name_table(settings)
        tensors = {
            place_of(table, name).source: torch.ones(file_shape(name, settings, shape))
            for name, shape in parameter_shapes(settings)
        }
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path / "model.safetensors"

    return make


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_args": {"global_pool": "max"}}, 'global_pool "max" is not known here, only "avg" is'),
        ({"global_pool": "max"}, 'global_pool "max" is not known here, only "avg" is'),
        ({"pretrained_cfg": {"global_pool": ""}}, 'global_pool "" is not known here, only "avg" is'),
        ({"model_args": {"output_stride": 16}}, "output_stride 16 is not known here, only 32 is"),
        ({"model_args": {"act_layer": "silu"}}, 'act_layer "silu" is not known here, only "relu" is'),
        ({"model_args": {"avg_down": True}}, "avg_down true is not known here, nor what it changes"),
    ],
)
def test_an_option_that_would_make_another_bit_is_refused_by_name(a_bit, config, message):
    with pytest.raises(WeightsError, match=rf"config\.json: {message}"):
        read(a_bit(config))
    known = {"global_pool": "avg", "output_stride": 32, "act_layer": "relu", "in_chans": 3, "drop_rate": 0.1}
    assert read(a_bit({"global_pool": "avg", "model_args": known})).settings.depths == (1, 1)


LEGACY = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "input_size": [3, 8, 12],
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "first_conv": "patch_embed.proj",
}


def test_a_config_of_the_first_kind_has_everything_at_its_top(make_model, write_timm):
    path = write_timm(make_model(activation="gelu", image_size=Size(8, 12), width=192, num_heads=3))
    path.with_name("config.json").write_text(json.dumps(LEGACY | {"labels": ["ant", "bee", "cat"]}))
    contents = read(path)
    assert contents.settings.image_size == Size(8, 12)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert contents.image_spec == ImageSpec(height=8, width=12, fit=CentralCrop(fraction=1.0), mean=mean, std=std)
    assert contents.classes == ("ant", "bee", "cat") and contents.guessed == ()


def test_class_names_may_be_where_the_preparation_is(bare_timm):
    names, others = ["ant", "bee", "cat"], ["dog", "emu", "fox"]
    assert read(bare_timm(changes={"pretrained_cfg": {"label_names": names}})).classes == tuple(names)
    assert read(bare_timm(changes={"label_names": others, "pretrained_cfg": {"label_names": names}})).classes == tuple(
        others
    )
    assert read(bare_timm(changes={"pretrained_cfg": {"label_names": ["one", "two"]}})).classes == ()  # of another head


@pytest.mark.parametrize("names", [["ant", "bee", "cat"], {"2": "cat", "0": "ant", "1": "bee"}])
def test_class_names_are_a_list_or_a_dictionary(bare_timm, names):
    assert read(bare_timm(changes={"label_names": names})).classes == ("ant", "bee", "cat")


def test_without_a_config_the_width_tells_the_heads_and_timm_the_rest(make_model, write_timm):
    path = write_timm(make_model(width=192, num_heads=3, activation="gelu"))
    path.with_name("config.json").write_text('{"of": "something else"}')
    assert len(read(path).guessed) == 3
    path.with_name("config.json").unlink()
    contents = read(path)
    assert (contents.settings.num_heads, contents.settings.activation) == (3, "gelu")
    assert contents.image_spec == ImageSpec(height=8, width=8, fit=CentralCrop(fraction=0.9), interpolation="bicubic")
    assert contents.classes == ()
    assert load_with_report(path).report.lines()[1:] == [
        "? guessed  num_heads 3; activation gelu; images bicubic, the middle 0.9"
    ]
    assert read(path, num_heads=3).guessed == ("activation gelu", "images bicubic, the middle 0.9")


def test_without_a_config_the_size_of_a_bit_is_a_guess_too(a_bit):
    assert read(a_bit()).guessed == ("image_size 224×224", "images bilinear, the middle 0.875")
    assert read(a_bit(), Size(64, 64)).guessed == ("images bilinear, the middle 0.875",)


def test_the_architecture_tells_the_tanh_form_of_gelu(bare_timm):
    assert read(bare_timm(changes={"architecture": "vit_so400m_patch16_siglip_256"})).settings.activation == "gelu_tanh"
    assert read(bare_timm(changes={"architecture": "vit_so400m_patch14_siglip_224"})).settings.activation == "gelu"


def test_the_architecture_tells_the_heads_where_the_width_does_not(bare_timm):
    path = bare_timm(width=768, num_heads=12, changes={"architecture": "vit_base_patch16_gap_224", "model_args": {}})
    assert read(path).settings.num_heads == 16


def test_the_caller_says_the_heads_and_the_size(make_model, write_timm):
    path = write_timm(make_model(num_heads=4, image_size=Size(8, 12)))
    path.with_name("config.json").unlink()
    settings = read(path, Size(8, 12), 4).settings
    assert (settings.num_heads, settings.image_size) == (4, Size(8, 12))


def test_settings_of_ours_that_the_file_cannot_have_are_not_believed(make_model, write_timm):
    model = make_model()
    settings = to_json(model.settings)
    for block in (
        3,
        {"settings": settings | {"depth": 100_000}},
        {"settings": settings | {"width": -1}},
        {"settings": 1},
    ):
        assert read(write_timm(model, vitlab=block)).settings.depth == 2
