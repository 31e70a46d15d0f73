"""The names that timm and transformers give to parameters, and models filled from their files."""

import safetensors.torch
import torch

FUSED = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}
"""Matrices that lie in one there."""
TIMM_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.query": "attn.qkv",
    "attention.key": "attn.qkv",
    "attention.value": "attn.qkv",
    "attention.out": "attn.proj",
    "mlp.hidden": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}
TIMM_POOL = {
    "attention.query": "q",
    "attention.key": "kv",
    "attention.value": "kv",
    "attention.out": "proj",
    "norm": "norm",
    "mlp.hidden": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}
HF_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attention.query": "attention.attention.query",
    "attention.key": "attention.attention.key",
    "attention.value": "attention.attention.value",
    "attention.out": "attention.output.dense",
    "mlp.hidden": "intermediate.dense",
    "mlp.out": "output.dense",
}


def units(settings, prefix, theirs, layers):
    """Return our names of the parts of a ResNet's units, behind `prefix`, mapped to theirs."""
    found = {}
    for stage, depth in enumerate(settings.depths):
        for unit in range(depth):
            ours, other = f"{prefix}stages.{stage}.{unit}", f"{theirs}stages.{stage}.{layers}.{unit}"
            parts = {f"{kind}{number}": f"{kind}{number}" for kind in ("conv", "norm") for number in (1, 2, 3)}
            parts |= {"conv_proj": "downsample.conv", "norm_proj": "downsample.norm"}
            found |= {f"{ours}.{part}": f"{other}.{name}" for part, name in parts.items()}
    return found


def timm_resnet(settings):
    root = {"root.conv": "stem.conv", "norm": "norm", "head": "head.fc"}
    return root | units(settings, "", "", "blocks")


def timm_vit(settings):
    table = {"class_token": "cls_token", "position.table": "pos_embed", "head": "head"}
    table |= {"encoder.norm": "norm", "pooling.norm": "fc_norm", "stem.projection": "patch_embed.proj"}
    table |= {"stem.embedding.projection": "patch_embed.proj"}
    if settings.pool.type == "AttentionPool":
        table |= {f"pooling.{ours}": f"attn_pool.{theirs}" for ours, theirs in TIMM_POOL.items()}
        table["pooling.probe"] = "attn_pool.latent"
    if settings.stem.type == "ResNetStem":
        root = "patch_embed.backbone." + ("stem." if settings.stem.depths else "")
        table |= {"stem.root.conv": f"{root}conv", "stem.root.norm": f"{root}norm"}
        table |= units(settings.stem, "stem.", "patch_embed.backbone.", "blocks")
    for layer in range(settings.depth):
        table |= {f"encoder.blocks.{layer}.{ours}": f"blocks.{layer}.{theirs}" for ours, theirs in TIMM_BLOCK.items()}
    return table


def hf_resnet(settings, prefix="", bit="bit."):
    root = {"root.conv": "embedder.convolution", "root.norm": "embedder.norm", "norm": "norm"}
    table = {prefix + ours: bit + theirs for ours, theirs in root.items()} | {"head": "classifier.1"}
    return table | units(settings, prefix, f"{bit}encoder.", "layers")


def hf_vit(settings):
    embeddings = "vit.embeddings."
    table = hf_resnet(settings.stem, "stem.", f"{embeddings}patch_embeddings.backbone.bit.")
    table |= {"class_token": f"{embeddings}cls_token", "position.table": f"{embeddings}position_embeddings"}
    table |= {"stem.embedding.projection": f"{embeddings}patch_embeddings.projection"}
    table |= {"encoder.norm": "vit.layernorm", "head": "classifier"}
    for layer in range(settings.depth):
        ours, theirs = f"encoder.blocks.{layer}", f"vit.encoder.layer.{layer}"
        table |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in HF_BLOCK.items()}
    return table


@torch.no_grad()
def fill(model, path, table):
    """Copy the tensors of a file into `model`; each has a place."""
    tensors, used = safetensors.torch.load_file(path), set()
    for ours, parameter in model.named_parameters():
        module, _, leaf = ours.rpartition(".")
        name = table[ours] if ours in table else f"{table[module]}.{leaf}"
        tensor = tensors[name]
        if fused := FUSED.get(name.split(".")[-2] if "." in name else ""):
            tensor = tensor.chunk(len(fused))[fused.index(module.rpartition(".")[2])]
        parameter.copy_(tensor.reshape(parameter.shape))
        used.add(name)
    assert used == set(tensors)
    return model.eval()
