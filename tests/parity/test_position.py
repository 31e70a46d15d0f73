"""Fixed positions and poolings against big_vision and timm."""

import pytest
import safetensors.torch
import torch

from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool
from vitlab.nn.position import sincos
from vitlab.weights.load import load

VITS = ["vit_sincos_gap", "vit_sincos_map_rep", "vit_learn_map", "vit_learn_gap", "vit_learn_tok"]


@pytest.mark.parametrize("name", ["14x14x64", "7x7x32", "3x5x8", "24x24x192"])
def test_sines_and_cosines_are_those_of_big_vision(golden, agree, name):
    case = golden(f"posemb/sincos2d_{name}")
    config = case.config
    ours = sincos(Grid(config["h"], config["w"]), config["width"], config["temperature"])
    agree(case.name, ours[None], case.arrays("npz")["pos"], **case.tolerance)


@pytest.mark.parametrize("name", VITS)
def test_every_stage_is_that_of_big_vision(golden, agree, to_images, name):
    case = golden(f"big_vision/{name}")
    model, io = load(case.path("params"), trained_size=tuple(case.config["image"])).eval(), case.arrays("io")
    images, stage, prefix = to_images(io["input"]), f"{case.name} stages", model.settings.num_prefix
    with torch.inference_mode():
        patches = model.stem(images).unflatten(1, tuple(model.settings.grid))
        agree(stage, patches, io["stem"], **case.tolerance)
        through = model.embed(images)
        agree(stage, through[:, prefix:], io["with_posemb"], **case.tolerance)
        for index, block in enumerate(model.encoder.layers):
            through = block(through)
            agree(stage, through, io[f"block{index:02d}"], **case.tolerance)
        encoded = model.encode(model.embed(images))
        agree(stage, encoded, io["encoded"], **case.tolerance)
        agree(stage, model.pooling(encoded), io["head_input"], **case.tolerance)
        agree(stage, model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)


SIGLIP = {
    "attention.query": "q",
    "attention.key": "kv",
    "attention.value": "kv",
    "attention.out": "proj",
    "norm": "norm",
    "mlp.hidden": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}
BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.query": "attn.qkv",
    "attention.key": "attn.qkv",
    "attention.value": "attn.qkv",
    "attention.out": "attn.proj",
    "mlp.hidden": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}


def from_timm(tensors, depth):
    """Return timm's tensors by our names: queries, keys and values lie in one matrix there."""
    parts = {"stem.projection": "patch_embed.proj", "encoder.norm": "norm", "head": "head"}
    parts |= {f"pooling.{ours}": f"attn_pool.{theirs}" for ours, theirs in SIGLIP.items()}
    for layer in range(depth):
        parts |= {f"encoder.blocks.{layer}.{ours}": f"blocks.{layer}.{theirs}" for ours, theirs in BLOCK.items()}
    found = {"position.table": tensors["pos_embed"], "pooling.probe": tensors["attn_pool.latent"]}
    for ours, theirs in parts.items():
        fused = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}.get(theirs.rpartition(".")[2])
        for leaf in ("weight", "bias"):
            tensor = tensors[f"{theirs}.{leaf}"]
            if fused:
                tensor = tensor.chunk(len(fused))[fused.index(ours.rpartition(".")[2])]
            found[f"{ours}.{leaf}"] = tensor
    return found


def test_attention_pooling_is_that_of_siglip_in_timm(golden, agree, to_images):
    case = golden("timm/vit_map_siglip")
    config, io = case.config, case.arrays("io")
    settings = ViTSettings(
        image_size=Size(*config["img_size"]),
        stem=Patches(patch_size=Size(config["patch_size"], config["patch_size"])),
        width=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_dim=int(config["mlp_ratio"] * config["embed_dim"]),
        pool=AttentionPool(),
        activation="gelu",
        num_classes=config["num_classes"],
    )
    model = build(settings).eval()
    found = from_timm(safetensors.torch.load_file(case.path("params_safetensors")), config["depth"])
    assert set(found) == {name for name, _ in model.named_parameters()}
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            parameter.copy_(found[name].reshape(parameter.shape))
        images = to_images(io["input"])
        agree(f"{case.name} stages", model.stem(images), io["patch_embed"], **case.tolerance)
        agree(f"{case.name} stages", model.encode(model.embed(images)), io["tokens"], **case.tolerance)
        agree(f"{case.name} stages", model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
        exact = model.double()(images.double())
        agree(f"{case.name} float64", exact, io["output_float64"], atol=1e-10, rtol=1e-10)
