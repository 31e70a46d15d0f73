"""MACs by hand, against the paper's table 6, and against torch's own counter of operations."""

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import vitlab as package
from vitlab.cost.flops import cost, count_macs, macs_of, taps
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty
from vitlab.models.vit import Axial, ViT
from vitlab.nn.axial_resnet import AXIAL, AxisAttention
from vitlab.nn.grid import Size
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned2D, Relative
from vitlab.nn.resnet import BIT, HYBRID, StdConv

# Measured from the official code with a head of 1,000 classes, in 10⁹ and as printed there.
GMACS = {
    ("Ti/16", 224): "1.254",
    ("S/16", 224): "4.599",
    ("S/32", 224): "1.143",
    ("B/32", 224): "4.409",
    ("B/16", 224): "17.564",
    ("B/8", 224): "78.15",
    ("L/32", 224): "15.378",
    ("L/16", 224): "61.555",
    ("H/14", 224): "167.295",
    ("B/32", 384): "13.04",
    ("B/16", 384): "55.48",
    ("L/32", 384): "45.28",
    ("L/16", 384): "191.07",
    ("L/16", 512): "362.0",
    ("H/14", 518): "1016.7",
    ("Scaling/32", 224): "3.55",
    ("Axial-B/32", 224): "8.45",
    ("Axial-B/16", 224): "33.5",
}
# Table 6: model, epochs, exaFLOPs as printed, and by the formula from the MACs of the official code.
TABLE6 = [
    ("B/32", 7, 55, 56.3),
    ("B/16", 7, 224, 223.7),
    ("L/32", 7, 196, 195.9),
    ("L/16", 7, 783, 783.6),
    ("L/16", 14, 1567, 1567.2),
    ("H/14", 14, 4262, 4258.6),
    ("BiT-R50x1", 7, 50, 50.7),
    ("BiT-R50x2", 7, 199, 198.9),
    ("BiT-R101x1", 7, 96, 95.6),
    ("BiT-R152x1", 7, 141, 140.8),
    ("BiT-R152x2", 7, 563, 559.3),
    ("BiT-R152x2", 14, 1126, 1118.6),
    ("BiT-R200x3", 14, 3306, 3291),
    ("R50+B/32", 7, 106, 106.0),
    ("R50+B/16", 7, 274, 272.7),
    ("R50+L/32", 7, 246, 245.5),
    ("R50+L/16", 7, 859, 832.8),
    ("R50+L/16", 14, 1668, 1665.5),
]
MISPRINT = ("R50+L/16", 7)
JFT = {"num_classes": 18291, "train_images": 303_000_000}


@pytest.mark.parametrize(("name", "size"), GMACS, ids=str)
def test_macs_are_those_of_the_official_code(name, size):
    printed = GMACS[name, size]
    digits = len(printed.partition(".")[2])
    assert f"{cost(name, image_size=size).macs / 1e9:.{digits}f}" == printed


@pytest.mark.parametrize(("name", "epochs", "printed", "formula"), TABLE6)
def test_table_6_comes_out(name, epochs, printed, formula):
    settings = settings_for(name)
    if settings.type == "ViT":
        settings = settings.model_copy(update={"representation_dim": settings.width})
    exaflops = cost(settings, epochs=epochs, **JFT).exaflops
    assert exaflops == pytest.approx(formula, rel=0.003)
    if (name, epochs) == MISPRINT:
        assert exaflops == pytest.approx(1668 / 2, rel=0.003)
        assert exaflops < 0.975 * printed
    else:
        assert exaflops == pytest.approx(printed, rel=0.025)


def test_a_name_alone_gives_table_6_too():
    """Without its representation layer a model costs less, by nothing that shows."""
    assert cost("R50+L/16", epochs=14, **JFT).exaflops == pytest.approx(1665.5, rel=0.001)


@given(size=st.integers(1, 20), kernel=st.integers(1, 7), stride=st.integers(1, 3), padding=st.integers(0, 3))
def test_taps_are_those_that_fall_on_the_image(size, kernel, stride, padding):
    padding = min(padding, kernel - 1)
    outputs = max((size + 2 * padding - kernel) // stride + 1, 0)
    found = 0
    for output in range(outputs):
        for tap in range(kernel):
            found += 0 <= output * stride + tap - padding < size
    assert taps(size, outputs, kernel, stride, padding) == found


class AllOnes(StdConv):
    """On an image of ones, every output is the number of its taps that fall on the image."""

    def standardised(self):
        return torch.ones_like(self.weight)


@given(
    height=st.integers(1, 15),
    width=st.integers(1, 15),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.sampled_from([1, 2]),
    style=st.sampled_from([HYBRID, BIT]),
)
def test_a_convolution_counts_no_padding(height, width, kernel, stride, style):
    module = AllOnes(2, 3, kernel, stride, style)
    image = torch.ones(1, 2, height, width)
    output = module(image)
    assert macs_of(module, image, output) == int(output.detach().sum())


def test_a_convolution_by_hand():
    """3×3 of stride 2 on 5×4: SAME pads 1 and 1 above and below, 0 and 1 at the sides; symmetric 1 everywhere."""
    image = torch.ones(1, 1, 5, 4)
    for style, found in ((HYBRID, (2 + 3 + 2) * (3 + 2)), (BIT, (2 + 3 + 2) * (2 + 3))):
        module = AllOnes(1, 1, 3, 2, style)
        assert macs_of(module, image, module(image)) == found


# 8×8 pixels in patches of 4×4, width 16, MLP 32, 3 classes: the patches cost 4 · 48 · 16, the head 16 · 3.
ENDS = 4 * 48 * 16 + 16 * 3


def block(tokens, attended, products=2):
    return tokens * (4 * 16 * 16 + 2 * 16 * 32 + products * attended * 16)


def test_a_model_with_a_class_token_counts_every_token_in_every_block(make_settings):
    assert cost(make_settings(depth=1)).macs == ENDS + block(5, 5)
    assert cost(make_settings()).macs == ENDS + 2 * block(5, 5)


def test_kinds_by_hand(make_settings):
    assert cost(make_settings(registers=2)).macs == ENDS + 2 * block(7, 7)
    assert cost(make_settings(pool=Mean())).macs == ENDS + 2 * block(4, 4)
    assert cost(make_settings(position=Relative())).macs == ENDS + 2 * block(5, 5, products=3)
    assert cost(make_settings(representation_dim=10)).macs == ENDS + 2 * block(5, 5) + 16 * 10 - 6 * 3
    assert cost(make_settings(num_classes=None)).macs == ENDS + 2 * block(5, 5) - 16 * 3
    axial = make_settings(attention=Axial(), position=Learned2D(), pool=Mean())
    assert cost(axial).macs == ENDS + 4 * block(4, 2)
    read = 2 * 16 * 16 + 2 * 4 * 16 * 16 + 2 * 4 * 16 + 2 * 16 * 32
    assert cost(make_settings(pool=AttentionPool())).macs == ENDS + 2 * block(4, 4) + read


def operations(module, run):
    """Half of what torch's counter finds while `run()`; it counts the taps on padding too."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def forward(model):
    image = torch.empty(1, 3, *model.settings.image_size, device="meta")
    if isinstance(model, ViT):
        return model.head(model.pool(model.encode(model.embed(image))))
    return model(image)


@pytest.mark.parametrize("name", ["Ti/16", "Axial-Ti/16", "S/7"])
def test_torch_counts_the_same_where_nothing_is_padded(name):
    settings = settings_for(name, num_classes=7, image_size=(64, 96))
    model = empty(settings)
    assert cost(settings).macs == operations(model, lambda: forward(model))


@pytest.mark.parametrize("name", ["R50+Ti/16", "R50+Ti/32", "R+Ti/16", "BiT-R50x1", "ResNet-R50x1", "AxialResNet-50"])
def test_torch_counts_little_more_where_something_is_padded(name):
    """More by the padding alone: everything is counted, nothing twice."""
    model = empty(settings_for(name))
    with_padding = operations(model, lambda: forward(model))
    convolutions = padded(model)
    assert 0 < convolutions < 0.06 * with_padding
    assert sum(count_macs(model).values()) == with_padding - convolutions


def padded(model):
    """The taps of a model's convolutions that fall on padding: on every image what a kernel of ones loses at the edges."""
    lost = []

    def compare(module, inputs, output):
        every = output.numel() * module.weight[0].numel()
        lost.append(every - macs_of(module, inputs[0], output))

    handles = [m.register_forward_hook(compare) for m in model.modules() if isinstance(m, StdConv)]
    forward(model)
    for handle in handles:
        handle.remove()
    return sum(lost)


@pytest.mark.parametrize("length", [2, 5])
def test_attention_along_an_axis_multiplies_what_torch_counts(length):
    module = AxisAttention(64, length, 8, AXIAL).to("meta")
    x = torch.empty(3, length, 64, device="meta")
    linear = 3 * length * 64 * 128
    assert macs_of(module, x, module(x)) + linear == operations(module, lambda: module(x))


def test_size_and_classes_can_be_replaced_in_whatever_is_given(make_model):
    model = make_model()
    larger = cost(model, num_classes=5, image_size=(8, 12))
    assert larger == cost(model.settings, num_classes=5, image_size=(8, 12))
    assert larger.macs == 6 * 48 * 16 + 16 * 5 + 2 * block(7, 7)
    assert larger.parameters == cost(model).parameters + 2 * 16 + 2 * 17
    assert cost("B/16", num_classes=10) == cost(settings_for("B/16", num_classes=10))
    assert cost("B/16", image_size=(160, 96)) == cost(settings_for("B/16", image_size=(160, 96)))


def test_a_model_is_left_as_it_was(make_model):
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = cost(model, num_classes=9, image_size=16)
    after = model.state_dict()
    assert result != cost(model)
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert model.training and model.settings.num_classes == 3 and model.settings.image_size == Size(8, 8)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in model.parameters())


class OnlyMeta(TorchDispatchMode):
    """Notes every tensor that takes memory."""

    def __init__(self):
        super().__init__()
        self.seen, self.real = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.seen += 1
            self.real += [(str(function), result.shape)] if result.device.type != "meta" else []
        return result


@pytest.mark.parametrize("name", ["H/14", "R50+B/16", "AxialResNet-50"])
def test_counting_computes_nothing_and_needs_no_memory(name):
    with OnlyMeta() as mode:
        cost(name)
    assert mode.seen > 100 and mode.real == []


def test_a_cost_is_a_value(make_settings):
    found = cost(make_settings(), train_images=1e6, epochs=2.5)
    assert found.gflops == 2 * found.macs / 1e9
    assert found.exaflops == pytest.approx(6 * found.macs * 2.5e6 / 1e18)
    assert cost(make_settings()).exaflops is None
    with pytest.raises(FrozenInstanceError):
        found.macs = 0


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"epochs": 7}, "train_images is missing"),
        ({"train_images": 1000}, "epochs is missing"),
        ({"train_images": 0, "epochs": 7}, "0 images and 7 epochs are no training"),
        ({"train_images": 10, "epochs": float("nan")}, "no training"),
    ],
)
def test_half_a_training_is_refused(training, said):
    with pytest.raises(SettingsError, match=said):
        cost("Mini/8", **training)


@pytest.mark.parametrize("change", [{"num_classes": 0}, {"image_size": 4}, {"image_size": (224, 0)}])
def test_what_does_not_fit_is_refused(change):
    with pytest.raises(SettingsError):
        cost("Mini/8", **change)
    with pytest.raises(SettingsError):
        cost(settings_for("Mini/8"), **change)


def test_a_name_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'B/16'"):
        cost("BB/16")


def test_the_public_name_is_the_function_after_the_folder_was_imported():
    assert package.cost("Mini/8") == cost("Mini/8")


def test_the_public_name_is_the_function_before_the_folder_is_imported():
    code = (
        "import vitlab\n"
        "first = vitlab.cost('Mini/8')\n"
        "import vitlab.cost.flops as flops\n"
        "from vitlab import cost\n"
        "assert first == flops.cost('Mini/8') == cost('Mini/8') == vitlab.cost('Mini/8')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
