"""torchvision's ViTs, against the same encoder put together from PyTorch's own layers."""

from functools import partial

import pytest
import torch
from torch import nn

from vitlab.data.preprocess import CentralCrop
from vitlab.errors import WeightsError
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.weights.layout import Beside, parameter_shapes
from vitlab.weights.load import fit, read
from vitlab.weights.torchvision import contents_of, name_table

Norm = partial(nn.LayerNorm, eps=1e-6)
PREFIX = "encoder.layers.encoder_layer_"
WIDTH, DEPTH, HEADS, PATCH, ROWS, CLASSES = 16, 2, 4, 4, 5, 3


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = Norm(WIDTH), Norm(WIDTH)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 24), nn.GELU(), nn.Dropout(0.0), nn.Linear(24, WIDTH), nn.Dropout(0.0)
        )

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Reference(nn.Module):
    """A ViT with the parameters of torchvision's, by its names."""

    def __init__(self, representation):
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1, ROWS, WIDTH))
        self.encoder.layers = nn.Sequential()
        for index in range(DEPTH):
            self.encoder.layers.add_module(f"encoder_layer_{index}", Layer())
        self.encoder.ln = Norm(WIDTH)
        self.heads = nn.Sequential()
        if representation:
            self.heads.add_module("pre_logits", nn.Linear(WIDTH, representation))
            self.heads.add_module("act", nn.Tanh())
        self.heads.add_module("head", nn.Linear(representation or WIDTH, CLASSES))

    def forward(self, images):
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        return self.heads(self.encoder.ln(self.encoder.layers(tokens + self.encoder.pos_embedding))[:, 0])


@pytest.fixture
def reference(tmp_path):
    def make(representation=None, rename=None, **changes):
        torch.manual_seed(0)
        model = Reference(representation).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
        state = {(rename or str)(name): tensor for name, tensor in model.state_dict().items()}
        path = tmp_path / "vit.pth"
        torch.save({name: tensor for name, tensor in (state | changes).items() if tensor is not None}, path)
        return model, path

    return make


def loaded(path, **said):
    contents = read(path, num_heads=HEADS, **said)
    return fit(contents, path, contents.settings, contents.image_spec, contents.classes)


def older(name):
    return name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2.")


@pytest.mark.parametrize("representation", [None, 6])
@pytest.mark.parametrize("rename", [None, older])
def test_the_logits_are_those_of_the_same_encoder_of_pytorch(reference, representation, rename):
    theirs, path = reference(representation, rename)
    result = loaded(path)
    count = len(result.report.matched)
    assert result.report.lines() == [f"{count} parameters matched", "? guessed  images as for SWAG's weights"]
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = theirs.double()(images.double())
        assert torch.allclose(result.model.eval().double()(images.double()), expected, rtol=0, atol=1e-12)


def test_the_settings_are_those_of_torchvision(reference):
    settings = loaded(reference(representation=6)[1]).model.settings
    assert (settings.image_size, settings.stem.patch_size) == (Size(8, 8), Size(4, 4))
    assert (settings.activation, settings.norm_eps, settings.representation_dim) == ("gelu", 1e-6, 6)


@pytest.mark.parametrize(("side", "fraction", "interpolation"), [(2, 1.0, "bicubic"), (56, 0.875, "bilinear")])
def test_images_are_prepared_as_torchvision_does_at_that_size(reference, side, fraction, interpolation):
    _, path = reference(**{"encoder.pos_embedding": torch.zeros(1, side**2 + 1, WIDTH)})
    spec = read(path, num_heads=HEADS).image_spec
    assert (spec.fit, spec.interpolation) == (CentralCrop(fraction=fraction), interpolation)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("width", "patch", "size", "edge", "interpolation"),
    [
        (768, 16, 224, 256, "bilinear"),
        (768, 32, 224, 256, "bilinear"),
        (1024, 16, 224, 242, "bilinear"),
        (1024, 32, 224, 256, "bilinear"),
        (1280, 14, 224, 224, "bicubic"),
        (768, 16, 384, 384, "bicubic"),
        (1024, 16, 512, 512, "bicubic"),
        (1280, 14, 518, 518, "bicubic"),
    ],
)
def test_images_are_prepared_as_torchvision_does_for_that_model(tmp_path, width, patch, size, edge, interpolation):
    settings = ViTSettings(
        image_size=size, stem=Patches(patch_size=patch), width=width, depth=1, num_heads=16, mlp_dim=4
    )
    shapes, table = {}, name_table(settings)
    for name, shape in parameter_shapes(settings):
        place = table[name]
        shapes[place.source] = (place.parts * shape[0], *shape[1:])
    shapes["conv_proj.weight"] = (width, 3, patch, patch)
    contents = contents_of(tmp_path / "vit.pth", shapes, Beside())
    spec = contents.image_spec
    assert contents.missing == () and (spec.height, spec.interpolation) == (size, interpolation)
    assert spec.fit.fraction == pytest.approx(size / edge)
    heads, images = contents.guessed
    assert heads == f"num_heads {16 if width > 768 else 12}"
    assert images == (
        f"images resized to {edge} and cut, bilinear, not as for SWAG's linear weights"
        if interpolation == "bilinear"
        else "images as for SWAG's weights"
    )


def test_a_grid_that_is_not_square_needs_its_size(reference):
    _, path = reference(**{"encoder.pos_embedding": torch.zeros(1, 7, WIDTH)})
    with pytest.raises(WeightsError, match=r"6 positions of patches.*give trained_size"):
        read(path, num_heads=HEADS)
    assert read(path, Size(8, 12), HEADS).settings.image_size == Size(8, 12)


def test_the_number_of_heads_must_be_known(reference):
    with pytest.raises(WeightsError, match="how many heads share a width of 16; give num_heads"):
        read(reference()[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.ln.bias": None}, "'encoder.norm.bias' is missing"),
        ({"encoder.pos_embedding": None}, "not a complete ViT of torchvision"),
        ({f"{PREFIX}0.mlp.0.weight": None}, "not a complete ViT of torchvision"),
        ({"extra.weight": torch.zeros(1)}, "has 'extra.weight'"),
        ({"conv_proj.weight": torch.zeros(16, 1, 4, 4)}, "images of 1 channels"),
        ({f"{PREFIX}1.self_attention.in_proj_weight": torch.zeros(16, 16)}, r"has shape \[16, 16\], not \[48, 16\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(reference, changes, message):
    with pytest.raises(WeightsError, match=message) as error:
        loaded(reference(**changes)[1])
    assert "\n" not in str(error.value)
