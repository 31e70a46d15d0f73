"""A small ViT from fresh weights on CIFAR-10 in minutes, and timm's of the same shape in the same loop on the same images.

    python benchmarks/cifar10.py CIFAR10 OUT [STEPS]

CIFAR10 is a folder of parquet files with a train and a test part. Both models see the same images in the same order with the same
augmentation, optimizer and schedule; they differ in what is ours and timm's: the code of the model and its first weights. Runs that
are in OUT already go on where they stopped. Prints a table; the curves are in the run folders.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlab.data.loader import TrainBatches
from vitlab.evals.classify import Accuracy
from vitlab.models.classifier import Classifier, build
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.studies.plan import Asked, plan_pretrain
from vitlab.train.loop import train
from vitlab.train.progress import Terminal
from vitlab.train.run import RunFolder, describe_environment, read_metrics
from vitlab.train.state import TrainState

CHANGES = (
    *("model.representation_dim=null", "model.dropout=0.0", "model.activation=gelu"),
    *("train.optimizer.weight_decay=0.05", "train.schedule=Cosine", "train.schedule.warmup_steps=500"),
    *("train.objective.label_smoothing=0.1", 'augment.crop={"type": "InceptionCrop", "area": [0.35, 1.0]}'),
)


def by_timm(settings: ViTSettings, seed: int) -> nn.Module:
    """Return timm's ViT of the same shape, as it starts by itself."""
    import peers  # noqa: F401  # makes torchvision importable beside a CPU-only torch, where it is
    import timm

    torch.manual_seed(seed)
    ratio = settings.mlp_dim / settings.width
    shape = {"embed_dim": settings.width, "depth": settings.depth, "num_heads": settings.num_heads, "mlp_ratio": ratio}
    patch = cast(Patches, settings.stem).patch_size.height
    size = settings.image_size.height
    vit: Any = timm.models.vision_transformer.VisionTransformer
    return vit(img_size=size, patch_size=patch, num_classes=settings.num_classes, **shape)


class Foreign(nn.Module):
    """Another library's model with what our loop and evaluator ask of one."""

    probabilities = "softmax"

    def __init__(self, body: nn.Module, ours: Classifier) -> None:
        super().__init__()
        self.body, self.settings, self.image_spec, self.classes = body, ours.settings, ours.image_spec, ours.classes

    def forward(self, images: Tensor) -> Tensor:
        """Return its logits."""
        return self.body(images)


def main(data: str, out: Path, steps: int) -> None:
    asked = Asked(
        data=data, model="Mini/4", image_size=32, steps=steps, lr=1e-3, batch_size=128, workers=1, eval_every=1000,
        checkpoint_every=500, device="cpu", changes=CHANGES,
    )  # fmt: skip
    plan = plan_pretrain(asked)
    model = build(plan.settings.model, plan.settings.train.seed, plan.train.classes)
    model.image_spec = plan.settings.image_spec
    makers: dict[str, Callable[[], nn.Module]] = {
        "vitlab": lambda: model,
        "timm": lambda: Foreign(by_timm(cast(ViTSettings, plan.settings.model), 0), model),
    }
    lines = ["| model | parameters | minutes | top-1 on 10,000 test images |", "| --- | --- | --- | --- |"]
    for name, make in makers.items():
        made = cast(Classifier, make())
        minutes = run(out / name, plan, made)
        values = {event["name"]: event["value"] for event in read_metrics(out / name)}
        parameters = sum(parameter.numel() for parameter in made.parameters()) / 1e6
        lines.append(f"| {name} | {parameters:.2f} M | {minutes:.1f} | {100 * values['test/top1']:.2f} % |")
    print("\n".join(lines))


def run(folder: Path, plan: Any, model: Classifier) -> float:
    """Train `model` as planned in `folder`, from where it stopped if it did; return the minutes that it took in all."""
    settings = plan.settings
    state = TrainState.start(model, settings.train)
    environment = describe_environment(torch.device("cpu"), settings.workers)
    fresh = not (folder / "config.json").exists()
    clock, start = folder / "seconds.json", time.monotonic()
    with RunFolder.create(folder, {}, environment) if fresh else RunFolder.reopen(folder) as opened:
        opened.restore_checkpoint(state)
        before = json.loads(clock.read_text()) if clock.exists() else 0.0
        size = settings.train.batch_size // settings.train.pieces
        batches = TrainBatches(
            plan.train, plan.train.labels, settings.image_spec, settings.augment, size, settings.train.seed
        )
        evaluators = {name: Accuracy(source, batch_size=250) for name, source in plan.evals.items()}
        train(state, batches, settings.train, opened, evaluators, Terminal(console()), settings.workers)
        if not isinstance(model, Foreign):
            opened.save_model(state)
        seconds = before + time.monotonic() - start
        clock.write_text(json.dumps(seconds))
    return seconds / 60


def console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 5000)
