"""The model card beside an exported file: what it is, how good it is on which data, how to run it, and what it cannot do."""

from collections.abc import Sequence

from vitlab.data.fit import CentralCrop, resized_edge
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import one_line
from vitlab.models.classifier import Classifier

_CLASSES_SHOWN = 1000
_FILTERS = {"bilinear": "BILINEAR", "bicubic": "BICUBIC"}


def card_for(model: Classifier, name: str, checks: Sequence[str], facts: Sequence[str], dynamic_size: bool) -> str:
    """Return the card of the file `name` in Markdown; `checks` are what was compared, `facts` how good the model is."""
    settings, spec = model.settings, model.image_spec
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = ["any height and width; positions are resized to them. It was trained for"] if dynamic_size else ["exactly"]
    kind = "one of them applies (softmax)" if model.probabilities == "softmax" else "each stands for itself (sigmoid)"
    sections = [
        f"# {one_line(name)}",
        f"{settings.family} of {parameters:,} parameters: {settings.describe()}. Written by vitlab.",
        "## How good it is",
        "\n".join(f"- {one_line(fact)}" for fact in facts or ["Not known: no figures came with the weights."]),
        "\n".join(f"- {one_line(check)}" for check in checks),
        "## Images",
        f"Input `images`: uint8, [batch, 3, height, width], RGB, {sizes[0]} {spec.height}×{spec.width} pixels. "
        f"{_fit(spec)} Mean and deviation are inside the file: do not normalise.",
        "## Classes",
        f"Outputs `logits` [batch, {settings.num_classes}], of which {kind}, and `features`, which the head reads.\n\n"
        + _classes(model)
        if settings.num_classes
        else "None: the output `features` is what a head would read.",
        "## Run it",
        _code(name, spec) if name.endswith(".onnx") else _program(name),
        "## Limits",
        "- The model answers with its classes whatever the image shows, also where none of them is on it.\n"
        "- Figures hold for images like those that they were measured on; measure it on yours.\n"
        "- Classes that are rare in the training data, and groups of people or places that are missing there, are likely to be "
        "recognised worse.",
        "## Licence",
        "Of the weights and of the data that they were trained on: to be filled in by whoever gives this file away.",
    ]
    return "\n\n".join(sections) + "\n"


def _fit(spec: ImageSpec) -> str:
    size, how = f"{spec.height}×{spec.width}", f"{spec.interpolation}, antialiased"
    if isinstance(spec.fit, CentralCrop):
        edges = " and ".join(
            str(resized_edge(side, spec.fit.fraction)) for side in dict.fromkeys((spec.height, spec.width))
        )
        return (
            f"The image is resized ({how}) until it covers {edges} pixels a side, and {size} are cut out of its middle."
        )
    return f"The whole image is resized to {size} ({how}), whatever its shape."


def _classes(model: Classifier) -> str:
    """Return the class names in their order."""
    if not model.classes:
        return "Their names are not known."
    shown = ", ".join(f"{index} {one_line(each)}" for index, each in enumerate(model.classes[:_CLASSES_SHOWN]))
    rest = len(model.classes) - _CLASSES_SHOWN
    return shown + (f", and {rest:,} more (in the file's metadata, `vitlab.classes`)" if rest > 0 else "")


def _code(name: str, spec: ImageSpec) -> str:
    """Return a program of a few lines that needs numpy, Pillow and onnxruntime."""
    method = f"Image.Resampling.{_FILTERS[spec.interpolation]}"
    lines = ['image = Image.open("image.jpg").convert("RGB")']
    if isinstance(spec.fit, CentralCrop):
        across, down = (resized_edge(side, spec.fit.fraction) for side in (spec.width, spec.height))
        left, top = (across - spec.width) // 2, (down - spec.height) // 2
        box = f"({left}, {top}, {left + spec.width}, {top + spec.height})"
        lines.append(f"image = ImageOps.fit(image, ({across}, {down}), {method}).crop({box})")
    else:
        lines.append(f"image = image.resize(({spec.width}, {spec.height}), {method})")
    body = "\n".join(lines)
    return (
        "```python\nimport numpy as np, onnxruntime\nfrom PIL import Image, ImageOps\n\n"
        f'session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])\n{body}\n'
        'outputs = session.run(None, {"images": np.asarray(image).transpose(2, 0, 1)[None]})\n'
        "print(outputs[0].argmax(axis=1))\n```\n\n"
        f"Or `vitlab predict {name} image.jpg`, which also turns photos upright and converts their colours to sRGB."
    )


def _program(name: str) -> str:
    return (
        f'```python\nimport torch\n\nmodel = torch.export.load("{name}").module()\n'
        'print(model(images)["logits"].argmax(dim=1))  # images as above\n```\n\n'
        "`torch.export.load` may run what is in a file: load only those whose maker you trust. The .onnx form is only data."
    )
