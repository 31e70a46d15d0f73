"""Small files that claim large models. Each entry of CLAIMS writes one into a folder and says by what words it is refused."""

import json

import numpy as np

from tests.faults.hostile import safetensors

CLAIMS = {}
HUGE = 10**18


def claim(words, *cases):
    """Enter a function of (path, *case), path being where model.safetensors belongs, once for each of `cases`."""

    def enter(function):
        for case in cases or [()]:
            name = " ".join([function.__name__.replace("_", " "), *(str(part)[:60] for part in case)])
            assert name not in CLAIMS
            CLAIMS[name] = (words, lambda path, case=case: function(path, *case))
        return function

    return enter


def write(path, shapes, metadata=None, **configs):
    """Write a file whose arrays are zeros of `shapes`, and the configs beside it."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, shape in shapes.items():
        begin = len(data)
        data += bytes(4 * int(np.prod([float(size) for size in shape])))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, len(data)]}
    safetensors(path, header, data)
    for name, config in configs.items():
        path.with_name(f"{name}.json").write_text(config if isinstance(config, str) else json.dumps(config))


def timm(width=16, classes=3):
    parts = {"norm1": (width,), "norm2": (width,), "attn.proj": (width, width), "mlp.fc2": (width, 2 * width)}
    block = {f"{name}.weight": shape for name, shape in parts.items()} | {f"{name}.bias": (width,) for name in parts}
    block |= {"attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,)}
    block |= {"mlp.fc1.weight": (2 * width, width), "mlp.fc1.bias": (2 * width,)}
    return {
        "patch_embed.proj.weight": (width, 3, 4, 4),
        **dict.fromkeys(("patch_embed.proj.bias", "norm.weight", "norm.bias"), (width,)),
        "cls_token": (1, 1, width),
        "pos_embed": (1, 5, width),
        "head.weight": (classes, width),
        "head.bias": (classes,),
        **{f"blocks.0.{name}": shape for name, shape in block.items()},
    }


TIMM = {"model_args": {"num_heads": 4}}


def huggingface(width=16, classes=3):
    layer, square = "vit.encoder.layer.0.", (width, width)
    parts = ("attention.query", "attention.key", "attention.value", "output.dense")
    shapes = dict.fromkeys([f"{layer}attention.{name}" for name in parts], square)
    shapes |= {f"{layer}intermediate.dense": (2 * width, width), f"{layer}output.dense": (width, 2 * width)}
    shapes |= {"vit.embeddings.patch_embeddings.projection": (width, 3, 4, 4), "classifier": (classes, width)}
    shapes |= dict.fromkeys(("vit.layernorm", f"{layer}layernorm_before", f"{layer}layernorm_after"), (width,))
    tokens = {"vit.embeddings.cls_token": (1, 1, width), "vit.embeddings.position_embeddings": (1, 5, width)}
    weights = {f"{name}.weight": shape for name, shape in shapes.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in shapes.items()} | tokens


HUGGINGFACE = {"model_type": "vit", "num_attention_heads": 4}
GOOD = {"timm": (timm(), TIMM), "huggingface": (huggingface(), HUGGINGFACE)}
"""Files of the same making that claim nothing."""


@claim("is damaged \\('settings\\.(width|depth|mlp_dim|registers|num_classes|representation_dim)' = ", *[
    ({"width": 10**12 + 1, "num_heads": 7},),
    ({"depth": 10**12},),
    *[({name: HUGE},) for name in ("mlp_dim", "registers", "num_classes", "representation_dim")],
])  # fmt: skip
@claim("is damaged \\('settings\\.(root_width|stem\\.depths(\\.0)?|image_size\\.0|depths.0)' = ", *[
    ({"type": "ResNet", "root_width": 32 * HUGE},),
    ({"type": "ResNet", "depths": [10**10]},),
    ({"stem": {"type": "ResNetStem", "depths": [10**10]}},),
    ({"stem": {"type": "ResNetStem", "depths": [1] * 14, "root_width": 65536}, "image_size": 65536},),
    ({"image_size": [HUGE, HUGE]},),
])  # fmt: skip
@claim(
    "layers are more than a model can hold; use at most 1,000",
    ({"depth": 1001},),
    ({"type": "ResNet", "depths": [600] * 2},),
)
@claim(
    "holds 40 tensors for 41 layers", ({"depth": 41},), ({"depth": 1, "stem": {"type": "ResNetStem", "depths": [40]}},)
)
@claim("does not fit the model: 'class_token' is missing", *[
    ({"position": position, "stem": {"type": "Patches", "patch_size": [1, 1]}, "width": 12, "image_size": [2048, 2000]},)
    for position in ({"type": "SinCos2D"}, {"type": "Relative"}, {"type": "Learned1D"})
])  # fmt: skip
def our_header(path, changes):
    header = {"settings": {"type": "ViT"} | changes, "image_spec": {}, "classes": []}
    write(path, {f"a{index}": (0,) for index in range(40)}, {"vitlab": json.dumps(header)})


@claim("is damaged \\(nested too deeply\\)", ("[" * 200_000 + "]" * 200_000,))
@claim("\\(more than 400,000 values\\)", ("[" + "[]," * 200_000 + "0]",))
def a_deep_header_of_ours(path, text):
    write(path, {"a": (0,)}, {"vitlab": text})


@claim("config.json: is not JSON \\(nested too deeply\\)", ('{"a":' + "[" * 200_000,))
@claim("config.json: is not JSON \\(more than 400,000 values\\)", ('{"a":[' + '{"":0},' * 590_000 + "0]}",))
@claim("config.json: is larger than 4,194,304 bytes", ('{"a":"' + "x" * (4 << 20) + '"}',))
def a_config(path, text):
    write(path, timm(), config=text)


@claim("label_names", ({str(10**12): "x"},), ({str(10**8): "x"},))
def names_of_timm(path, names):
    write(path, timm(), config=TIMM | {"label_names": names})


@claim("19,000 layers are more than a model can hold")
def many_blocks_of_timm(path):
    write(path, timm() | {f"blocks.{layer}.x": (0,) for layer in range(1, 19_000)}, config=TIMM)


@claim("is of no model that can be built \\('(mlp_dim|num_classes)' = |not a square grid", *[
    (name, shape) for name, shape in (
        ("blocks.0.mlp.fc1.weight", (HUGE, 0)), ("head.weight", (HUGE, 0)), ("reg_token", (1, HUGE, 0))
    )
])  # fmt: skip
def dimensions_of_timm(path, name, shape):
    write(path, timm() | {name: shape}, config=TIMM)


@claim("'num_classes' = |id2label names 0 classes", (10**10, {}), (HUGE, {}), (10**7, {}))
def classes_of_transformers(path, classes, names):
    write(path, huggingface() | {"classifier.weight": (classes, 0)}, config=HUGGINGFACE | {"id2label": names})
