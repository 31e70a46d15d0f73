"""The names that big_vision gives to parameters, and models filled from its files."""

import torch

from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, FirstPatch, Mean
from vitlab.nn.position import Learned1D, SinCos2D
from vitlab.weights.official import LINEN, name_table, to_ours

POOLS = {"gap": Mean(), "map": AttentionPool(), "tok": ClassToken(), "0": FirstPatch()}
POSITIONS = {"learn": Learned1D(class_token=False), "sincos2d": SinCos2D()}


def resnet_table(settings):
    """Return our names of a pre-activation ResNet's parameters mapped to big_vision's."""
    table = {"root.conv.weight": "root_block/conv_root/kernel"}
    table |= pair("norm", "norm-pre-head", "scale") | pair("head", "head", "kernel")
    for stage, depth in enumerate(settings.depths):
        for unit in range(depth):
            ours, theirs = f"stages.{stage}.{unit}", f"block{stage + 1}/unit{unit + 1:02d}"
            for part in ("1", "2", "3", "_proj") if unit == 0 else ("1", "2", "3"):
                table[f"{ours}.conv{part}.weight"] = f"{theirs}/conv{part}/kernel"
                table |= {} if part == "_proj" else pair(f"{ours}.norm{part}", f"{theirs}/gn{part}", "scale")
    return table


def vit_table(settings):
    """Return our names of a ViT's parameters mapped to big_vision's."""
    table = name_table(settings, LINEN) | {"position.table": "pos_embedding"}
    if isinstance(settings.position, SinCos2D):
        del table["position.table"]
    if isinstance(settings.pool, AttentionPool):
        ours, theirs = "pooling", "MAPHead_0"
        table |= {f"{ours}.probe": f"{theirs}/probe"} | pair(f"{ours}.norm", f"{theirs}/LayerNorm_0", "scale")
        for part in ("query", "key", "value", "out"):
            table |= pair(f"{ours}.attention.{part}", f"{theirs}/MultiHeadDotProductAttention_0/{part}", "kernel")
        table |= pair(f"{ours}.mlp.hidden", f"{theirs}/MlpBlock_0/Dense_0", "kernel")
        table |= pair(f"{ours}.mlp.out", f"{theirs}/MlpBlock_0/Dense_1", "kernel")
    return table


def pair(ours, theirs, weight):
    return {f"{ours}.weight": f"{theirs}/{weight}", f"{ours}.bias": f"{theirs}/bias"}


@torch.no_grad()
def fill_resnet(model, arrays, table=None):
    """Copy the arrays of a file into a ResNet; all of them have a place."""
    table = table or resnet_table(model.settings)
    assert set(table.values()) == set(arrays)
    for ours, parameter in model.named_parameters():
        parameter.copy_(to_ours(ours, arrays[table[ours]], tuple(parameter.shape)))


def vit_settings(config):
    image, representation = config["image"], config.get("rep_size")
    return ViTSettings(
        image_size=Size(image, image) if isinstance(image, int) else Size(*image),
        stem=Patches(patch_size=Size(*config["patch_size"])),
        width=config["width"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_dim=config["mlp_dim"] or 4 * config["width"],
        position=POSITIONS[config["posemb"]],
        pool=POOLS[config["pool_type"]],
        representation_dim=config["width"] if representation is True else representation or None,
        num_classes=config["num_classes"],
    )


@torch.no_grad()
def load_vit(config, arrays):
    """Build the model of a big_vision file."""
    settings = vit_settings(config)
    model, table = build(settings), vit_table(settings)
    assert {f"params/{name}" for name in table.values()} == set(arrays)
    for ours, parameter in model.named_parameters():
        parameter.copy_(to_ours(ours, arrays[f"params/{table[ours]}"], tuple(parameter.shape)))
    return model
