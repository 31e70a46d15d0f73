"""The models of transformers, read from the folders that it writes, and their names."""

import json
import shutil

import pytest
import torch

import vitlab
from vitlab.models.classifier import empty
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.weights import huggingface_resnet as resnet
from vitlab.weights.huggingface import IN_FILES, IN_MEMORY, contents_of, name_table
from vitlab.weights.layout import Beside
from vitlab.weights.load import load_with_report

UNIT = PostActivation(variance_eps=1e-8, std_eps=0.0, norm_eps=1e-5)
BACKBONE = {"layer_type": "bottleneck", "global_padding": "same", "embedding_dynamic_padding": True}
CASES = ["vit_cls", "vit_gelutanh_eps1e6", "vit_model_pooler", "vit_mim"]
# Not vit_cls_interp as it was run: transformers resizes positions bicubically, the paper bilinearly. Its weights are read below.


@pytest.fixture
def folder(golden, tmp_path):
    """The folder of a case; one that shares another's weights has only its config."""

    def find(case):
        for role in ("config", "params_safetensors"):
            shutil.copy(case.path(role), tmp_path)
        return tmp_path

    return find


@pytest.mark.parametrize("name", CASES)
def test_every_block_is_that_of_transformers(golden, agree, to_images, folder, name):
    case = golden(f"hf/{name}")
    io, loaded = case.arrays("io"), load_with_report(folder(case) / "model.safetensors")
    model = loaded.model.eval()
    with torch.inference_mode():
        images = to_images(io["input"])
        through = model.embed(images)
        if name == "vit_mim":  # some patches are its mask token, which is no part of the trunk
            masked = torch.from_numpy(io["bool_masked_pos"]).bool()
            through[:, 1:][masked] = torch.from_numpy(io["hidden_00"])[:, 1:][masked]
        agree(f"{case.name} blocks", through, io["hidden_00"], **case.tolerance)
        for number, block in enumerate(model.encoder.layers, start=1):
            agree(
                f"{case.name} weights",
                block.attention_weights(through),
                io[f"attention_{number - 1:02d}"],
                **case.tolerance,
            )
            through = block(through)
            agree(f"{case.name} blocks", through, io[f"hidden_{number:02d}"], **case.tolerance)
        if "last_hidden_state" in io:
            agree(f"{case.name} output", model.encoder.norm(through), io["last_hidden_state"], **case.tolerance)
            agree(f"{case.name} output", model(images), io["pooler_output"], **case.tolerance)
        elif "output" in io:
            agree(f"{case.name} output", model(images), io["output"], **case.tolerance)


def test_the_decoder_of_masked_images_is_named_and_left(golden):
    report = load_with_report(golden("hf/vit_mim").path("params_safetensors")).report
    assert report.extra == ["decoder.0.bias", "decoder.0.weight", "vit.embeddings.mask_token"]
    assert report.missing == []


def test_positions_for_another_size_are_resized_as_the_paper_does(golden):
    case = golden("hf/vit_cls_interp")
    report = load_with_report(case.path("params_safetensors"), image_size=tuple(case.config["fed_image"])).report
    assert report.resized == ["position.table 4×4 -> 6×5"]


def test_a_pooler_is_the_representation_layer(golden):
    settings = vitlab.load(golden("hf/vit_model_pooler").path("params_safetensors")).settings
    assert (settings.representation_dim, settings.num_classes, settings.qkv_bias) == (48, None, False)


LISTED = ["base_patch16_224", "base_patch32_384", "large_patch16_224", "huge_patch14_224"]
LISTINGS = [
    *((f"hf/listing_vit_{name}", IN_MEMORY) for name in LISTED),
    *((f"hf_hybrid/listing_legacy_vit_{name}", IN_FILES) for name in [*LISTED, "large_patch32_384"]),
]


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTModel"])
@pytest.mark.parametrize(("name", "naming"), LISTINGS, ids=[name for name, _ in LISTINGS])
def test_names_and_shapes_are_those_of_transformers(golden, tmp_path, name, naming, kind):
    listing = golden(name).json()
    shapes = {theirs: tuple(shape) for theirs, shape in listing[kind].items()}
    contents = contents_of(tmp_path / "model.safetensors", shapes, Beside())
    assert {piece.source: piece.shape for piece in contents.pieces.values()} == shapes
    assert contents.missing == contents.extra == ()
    assert str(contents.settings.image_size.height) == listing["model"].rpartition("_")[2]
    model = empty(contents.settings)
    prefix = "vit." if contents.settings.num_classes else ""
    table = name_table(contents.settings, naming, prefix)
    assert {table[ours] for ours, _ in model.named_parameters()} == set(shapes)
    if contents.settings.num_classes:
        assert sum(parameter.numel() for parameter in model.parameters()) == listing["num_params"]


BITS = {
    "bit_preact": PreActivation(variance_eps=1e-8),
    "bit_preact_same": PreActivation(variance_eps=1e-8, padding="same"),
    "bit_bottleneck_same": UNIT,
}


@pytest.mark.parametrize("name", BITS)
def test_every_stage_of_a_bit_is_that_of_transformers(golden, agree, to_images, folder, name):
    case = golden(f"hf/{name}")
    model, io = load_whole(case, folder), case.arrays("io")
    assert model.settings.unit == BITS[name]
    with torch.inference_mode():
        images = to_images(io["input"])
        features = model.root(images)
        agree(f"{case.name} stages", features[:1], io["hidden_00"], **case.tolerance)
        for number, stage in enumerate(model.stages, start=1):
            features = stage(features)
            agree(f"{case.name} stages", features[:1], io[f"hidden_{number:02d}"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)


def test_every_stage_of_a_hybrid_is_that_of_transformers(golden, agree, to_images, folder):
    case = golden("hf_hybrid/vit_hybrid_r11")
    model, io = load_whole(case, folder), case.arrays("io")
    assert model.settings.stem.unit == UNIT
    with torch.inference_mode():
        images = to_images(io["input"])
        through = model.embed(images)
        agree(f"{case.name} stages", through, io["hidden_00"], **case.tolerance)
        for number, block in enumerate(model.encoder.layers, start=1):
            through = block(through)
            agree(f"{case.name} stages", through, io[f"hidden_{number:02d}"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)


def load_whole(case, folder):
    """Return the model of a case's folder, all of which is used."""
    loaded = load_with_report(folder(case) / "model.safetensors", trained_size=tuple(case.config["fed_image"]))
    assert loaded.report.extra == loaded.report.missing == []
    return loaded.model.eval()


@pytest.mark.parametrize(
    ("name", "reads", "config"),
    [
        ("bit_50", resnet.contents_of, {}),
        ("vit_hybrid_base_bit_384", contents_of, {"num_attention_heads": 12, "backbone_config": BACKBONE}),
    ],
)
def test_names_and_shapes_of_a_resnet_are_those_of_transformers(golden, tmp_path, name, reads, config):
    listing = golden(f"hf_hybrid/listing_legacy_{name}").json()
    shapes = {theirs: tuple(shape) for theirs, shape in listing["state_dict"].items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    contents = reads(tmp_path / "model.safetensors", shapes, Beside(folder=tmp_path))
    assert {piece.source: piece.shape for piece in contents.pieces.values()} == shapes
    assert contents.missing == contents.extra == ()
    assert sum(parameter.numel() for parameter in empty(contents.settings).parameters()) == listing["num_params"]
