"""The parts of a model: each counted by hand, and all against torch's own counter."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitlab.cost.flops import cost, count_macs, macs_of
from vitlab.cost.parts import ORDER, PRODUCTS, PROJECTIONS, part_of
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build, empty
from vitlab.models.vit import Axial, ViT
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned2D, Relative
from vitlab.nn.resnet import StdConv

TOKENS, WIDTH, MLP, CLASSES = 5, 16, 32, 3  # what `make_settings` has: 8×8 pixels in patches of 4×4, 2 blocks


def macs(settings):
    return {part.name: part.macs for part in cost(settings).parts if part.macs}


def test_the_parts_of_a_vit_by_hand(make_settings):
    assert macs(make_settings()) == {
        "embedding": 4 * 48 * WIDTH,
        PROJECTIONS: 2 * TOKENS * 4 * WIDTH * WIDTH,
        PRODUCTS: 2 * 2 * TOKENS * TOKENS * WIDTH,
        "MLP": 2 * TOKENS * 2 * WIDTH * MLP,
        "head": WIDTH * CLASSES,
    }
    parameters = {part.name: part.parameters for part in cost(make_settings()).parts}
    assert parameters == {
        "embedding": 48 * WIDTH + WIDTH,
        "tokens and positions": WIDTH + TOKENS * WIDTH,
        PROJECTIONS: 2 * 4 * (WIDTH * WIDTH + WIDTH),
        PRODUCTS: 0,
        "MLP": 2 * (2 * WIDTH * MLP + WIDTH + MLP),
        "norms": 2 * 2 * 2 * WIDTH + 2 * WIDTH,
        "head": WIDTH * CLASSES + CLASSES,
    }


def test_kinds_have_their_parts(make_settings):
    plain = macs(make_settings())
    assert macs(make_settings(position=Relative()))[PRODUCTS] == 1.5 * plain[PRODUCTS]
    assert macs(make_settings(representation_dim=10))["representation"] == 10 * WIDTH
    assert "head" not in macs(make_settings(num_classes=None))
    read = 2 * WIDTH * WIDTH + 2 * 4 * WIDTH * WIDTH + 2 * 4 * WIDTH + 2 * WIDTH * MLP
    assert macs(make_settings(pool=AttentionPool()))["pooling"] == read
    axial = macs(make_settings(attention=Axial(), position=Learned2D(), pool=Mean()))
    assert axial[PRODUCTS] == 2 * 2 * 2 * 4 * 2 * WIDTH
    scaled = make_settings(layer_scale=0.1, registers=2)
    assert sum(part.parameters for part in cost(scaled).parts) == cost(scaled).parameters


@pytest.mark.parametrize("name", ["Mini/8", "R26+Ti/32", "R+Ti/16", "Axial-Ti/32", "ResNet-R50x1", "AxialResNet-50"])
def test_parts_are_all_of_a_model_in_order(name):
    found = cost(name, num_classes=7, image_size=64)
    assert sum(part.macs for part in found.parts) == found.macs > 0
    assert sum(part.parameters for part in found.parts) == found.parameters > 0
    names = [part.name for part in found.parts]
    assert names == sorted(names, key=ORDER.index) and len(set(names)) == len(names)


def test_a_resnet_and_a_hybrid_are_told_by_their_stages():
    stages = [f"stage {number}" for number in range(1, 5)]
    assert [part.name for part in cost("BiT-R50x1", image_size=64).parts] == ["root", *stages, "norms", "head"]
    hybrid = [part.name for part in cost("R50+Ti/16", image_size=64).parts]
    assert hybrid[:5] == ["root", *stages[:3], "embedding"] and PRODUCTS in hybrid
    axial = dict.fromkeys(part.name for part in cost("AxialResNet-50", image_size=64).parts)
    assert {*stages, PROJECTIONS, PRODUCTS, "tokens and positions"} <= set(axial)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("class_token", "tokens and positions"),
        ("encoder.blocks.11.position.table", "tokens and positions"),
        ("encoder.blocks.0.attention.relative.table", "tokens and positions"),
        ("encoder.blocks.0.row.attention", PRODUCTS),
        ("encoder.blocks.0.row.attention.query.weight", PROJECTIONS),
        ("encoder.blocks.0.branch1.scale", "norms"),
        ("stem.stages.2.0.conv_proj.weight", "stage 3"),
        ("stem.embedding.projection.weight", "embedding"),
        ("stages.0.1.rows", PRODUCTS),
        ("stages.0.1.rows.qkv.weight", PROJECTIONS),
        ("position.rows", "tokens and positions"),
        ("pooling.attention.query.weight", "pooling"),
    ],
)
def test_a_name_has_its_part(name, part):
    assert part_of(name) == part


def forward(model, image):
    return model.head(model.pool(model.encode(model.embed(image)))) if isinstance(model, ViT) else model(image)


def counted(model, image):
    """Half of the operations that torch counts: under the MATH backend, for what the fused one does it does not see on a CPU."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        forward(model, image)
    return counter.get_total_flops() // 2


def padding(model, image):
    """The products of convolutions with padding, which torch counts and the paper does not."""
    lost = []

    def note(module: nn.Module, inputs, output):
        lost.append(output.numel() * module.weight[0].numel() - macs_of(module, inputs[0], output))

    for module in model.modules():
        if isinstance(module, StdConv):
            module.register_forward_hook(note)
    with torch.no_grad():
        forward(model, image)
    return sum(lost)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Ti/16", {}),
        ("Ti/16", {"pool": AttentionPool()}),
        ("Axial-Ti/16", {}),
    ],
)
def test_torch_counts_the_same_in_real_numbers(name, changes):
    settings = settings_for(name, 7, (64, 48)).model_copy(update=changes)
    model = build(settings).eval().requires_grad_(False)
    assert counted(model, torch.rand(1, 3, 64, 48)) == cost(settings).macs


def test_relative_positions_are_counted_by_pairs_of_tokens(make_settings):
    """We multiply every query with all 2n - 1 offsets and pick the n of its pairs: torch counts the n - 1 others too."""
    settings = make_settings(position=Relative())
    model = build(settings).eval().requires_grad_(False)
    others = 2 * TOKENS * (TOKENS - 1) * WIDTH
    assert counted(model, torch.rand(1, 3, 8, 8)) == cost(settings).macs + others


@pytest.mark.parametrize("name", ["R26+Ti/32", "BiT-R50x1", "ResNet-R50x1", "AxialResNet-50"])
def test_torch_counts_the_padding_besides(name):
    """The difference is exactly the taps that fall on padding: 1 % for a ResNet at 224 pixels, more of small images."""
    settings = settings_for(name, 7, 64)
    model, image = build(settings).eval().requires_grad_(False), torch.rand(1, 3, 64, 64)
    with_padding = counted(model, image)
    assert with_padding - cost(settings).macs == padding(model, image) > 0


def test_the_fused_kernel_is_not_seen_by_torch():
    """Why the test above needs the MATH backend: if this fails, torch has learnt to count and the switch can go."""
    model = build(settings_for("Ti/16", 7, 64)).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(model, torch.rand(1, 3, 64, 64))
    missed = cost(model).macs - counter.get_total_flops() // 2
    assert missed == {part.name: part.macs for part in cost(model).parts}[PRODUCTS]


def test_modules_are_counted_by_name():
    counts = count_macs(empty(settings_for("Mini/8", 7, 32)))
    assert counts["head"] == 128 * 7 and counts["encoder.blocks.3.mlp.out"] == 17 * 512 * 128
