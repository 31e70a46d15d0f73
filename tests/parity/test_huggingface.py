"""BiT and a hybrid against transformers."""

import pytest
import torch

from tests.parity.names import fill, hf_resnet, hf_vit
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem

UNIT = PostActivation(variance_eps=1e-8, std_eps=0.0, norm_eps=1e-5)
BITS = {
    "bit_preact": PreActivation(variance_eps=1e-8),
    "bit_preact_same": PreActivation(variance_eps=1e-8, padding="same"),
    "bit_bottleneck_same": UNIT,
}


@pytest.mark.parametrize("name", BITS)
def test_every_stage_of_a_bit_is_that_of_transformers(golden, agree, to_images, name):
    case = golden(f"hf/{name}")
    config, io = case.config, case.arrays("io")
    settings = ResNetSettings(
        image_size=Size(*config["fed_image"]),
        depths=tuple(config["depths"]),
        root_width=config["embedding_size"],
        unit=BITS[name],
        num_classes=len(config["id2label"]),
    )
    model = fill(build(settings), case.path("params_safetensors"), hf_resnet(settings))
    with torch.inference_mode():
        images = to_images(io["input"])
        features = model.root(images)
        agree(f"{case.name} stages", features[:1], io["hidden_00"], **case.tolerance)
        for number, stage in enumerate(model.stages, start=1):
            features = stage(features)
            agree(f"{case.name} stages", features[:1], io[f"hidden_{number:02d}"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)


def test_every_stage_of_a_hybrid_is_that_of_transformers(golden, agree, to_images):
    case = golden("hf_hybrid/vit_hybrid_r11")
    config, io = case.config, case.arrays("io")
    backbone, patch = config["backbone_config"], Size(config["patch_size"], config["patch_size"])
    settings = ViTSettings(
        image_size=Size(*config["fed_image"]),
        stem=ResNetStem(
            depths=tuple(backbone["depths"]), root_width=backbone["embedding_size"], patch_size=patch, unit=UNIT
        ),
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_dim=config["intermediate_size"],
        activation=config["hidden_act"],
        norm_eps=config["layer_norm_eps"],
        num_classes=len(config["id2label"]),
    )
    model = fill(build(settings), case.path("params_safetensors"), hf_vit(settings))
    with torch.inference_mode():
        images = to_images(io["input"])
        through = model.embed(images)
        agree(f"{case.name} stages", through, io["hidden_00"], **case.tolerance)
        for number, block in enumerate(model.encoder.layers, start=1):
            through = block(through)
            agree(f"{case.name} stages", through, io[f"hidden_{number:02d}"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
