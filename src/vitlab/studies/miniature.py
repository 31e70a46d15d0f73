"""The demo: the paper's whole story in miniature, on data that comes with the package.

A small ViT is pre-trained on generated fractals and fine-tuned on a few hundred real digits at a higher resolution, its position
embeddings resized; the same model is trained on those digits from scratch; both are repeated three times as long; and linear heads
are fitted to frozen features. Every training is an ordinary run folder; one that is finished is not run again, so an interrupted
demo goes on where it stopped.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vitlab import files
from vitlab.data.digits import Digits
from vitlab.data.fractals import Fractals
from vitlab.data.loader import pixels_of
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Part
from vitlab.data.transforms import Augment, InceptionCrop
from vitlab.evals.fewshot import fewshot
from vitlab.inspection import charts, embeddings, figures
from vitlab.inspection.drawing import Drawing
from vitlab.models.classifier import build
from vitlab.models.vit import ViT, ViTSettings
from vitlab.nn.grid import as_size
from vitlab.nn.patches import Patches
from vitlab.studies import run
from vitlab.studies.findings import Figure
from vitlab.studies.recipe import Origin, RunSettings
from vitlab.studies.report import render
from vitlab.train.config import TrainSettings
from vitlab.train.objective import Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.progress import Terminal
from vitlab.train.run import read_metrics
from vitlab.train.schedule import Cosine, Linear
from vitlab.weights.load import load

LOW, HIGH, PATCH = 16, 24, 4
"""Pixels in pre-training and in fine-tuning, and of a patch: 4×4 patches become 6×6."""
TRAIN = Digits(part=Part(side="train", fraction=0.8))
TEST = Digits(part=Part(side="test", fraction=0.8))
SHOTS = 10
LONGER = 3
"""How many times the steps the longer trainings on digits take."""


@dataclass(frozen=True)
class Scale:
    """How much of it is run."""

    name: str
    fractals: Fractals
    pretraining_steps: int
    transfer_steps: int
    seeds: tuple[int, ...]


FULL = Scale("full", Fractals(num_classes=200, images_per_class=50, image_size=8, views=1), 1200, 60, (0, 1, 2))
QUICK = Scale("quick", Fractals(num_classes=4, images_per_class=20, image_size=8, views=1), 6, 6, (0, 1))


@dataclass(frozen=True)
class Row:
    """One line of the table: an experiment, and its top-1 on the test digits for every seed."""

    name: str
    top1: list[float]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.top1))

    @property
    def deviation(self) -> float:
        """The sample standard deviation over seeds."""
        return float(np.std(self.top1, ddof=1))


@dataclass(frozen=True)
class Group:
    """Runs on the digits that differ only in their seed; `folder` is the beginning of their folders' names."""

    name: str
    folder: str
    train: TrainSettings
    weights: Origin | None


def run_miniature(scale: Scale, out: Path, console: Console, say: Callable[[str], None]) -> list[Row]:
    """Run what is not yet run of the demo in the folder `out`, write its page, print its table, and return the rows.

    Raises:
        RunFolderError: the folder holds something else, or a demo of another version or scale.
        Interrupted: it was asked to stop; the same command goes on.
    """
    say(f"1/3  pre-training: {len(scale.fractals):,} fractals of {len(scale.fractals.classes)} classes, {LOW} pixels")
    pretrained = _cell(_pretraining(scale), out / "pretrained", console, say)
    groups = _groups(scale, Origin(path=str(pretrained.resolve()), sha256=files.sha256(pretrained)))
    say(f"2/3  {len(TRAIN)} real digits at {HIGH} pixels, {len(scale.seeds)} seeds each")
    rows: list[Row] = []
    for group in groups:
        paths = [_cell(_on_digits(group, seed), out / f"{group.folder}-{seed}", console, say) for seed in scale.seeds]
        rows.append(Row(group.name, [_final_top1(path.parent) for path in paths]))
    say(f"3/3  linear heads on frozen features, {SHOTS} digits a class")
    model = load(pretrained)
    assert isinstance(model, ViT)  # it is what `_model` describes
    untrained = [build(_model(LOW, None), seed) for seed in scale.seeds]
    rows += [
        Row(f"linear {SHOTS}-shot, pre-trained features", [fewshot(model, TRAIN, TEST, SHOTS, s) for s in scale.seeds]),
        Row(
            f"linear {SHOTS}-shot, untrained features",
            [fewshot(other, TRAIN, TEST, SHOTS, s) for other, s in zip(untrained, scale.seeds, strict=True)],
        ),
    ]
    page = _write_page(scale, rows, out, _figures(scale, out, groups, model))
    _print_table(rows, console)
    say(f"page     {page}")
    return rows


def _model(size: int, num_classes: int | None) -> ViTSettings:
    return ViTSettings(
        image_size=as_size(size),
        stem=Patches(patch_size=as_size(PATCH)),
        width=64,
        depth=4,
        num_heads=4,
        mlp_dim=256,
        num_classes=num_classes,
    )


def _pretraining(scale: Scale) -> RunSettings:
    steps = scale.pretraining_steps
    return RunSettings(
        recipe="demo-pretraining",
        model=_model(LOW, len(scale.fractals.classes)),
        train_data=scale.fractals,
        image_spec=ImageSpec(height=LOW, width=LOW),
        augment=Augment(crop=InceptionCrop(area=(0.5, 1.0)), flip=False),
        train=TrainSettings(
            steps=steps,
            batch_size=128,
            lr=5e-3,
            optimizer=Adam(weight_decay=0.1),
            schedule=Linear(warmup_steps=steps // 10, end=1e-5),
            objective=Softmax(),
            checkpoint_every=max(1, steps // 4),
        ),
    )


def _groups(scale: Scale, weights: Origin) -> list[Group]:
    """Return the runs on digits: the paper's fine-tuning, the same from scratch, and the best we know for longer runs of both.

    Tried for each were SGD at 0.03, 0.1 and 0.3, and Adam at 1e-3 to 8e-3.
    """
    short, long = scale.transfer_steps, LONGER * scale.transfer_steps
    return [
        Group(
            f"pre-trained on fractals, fine-tuned for {short} steps", "finetuned", _training(short, SGD(), 0.1), weights
        ),
        Group(f"the same model from scratch, {short} steps", "scratch", _training(short, SGD(), 0.1), None),
        Group(f"pre-trained, {long} steps", "finetuned-longer", _training(long, Adam(weight_decay=0.1), 2e-3), weights),
        Group(f"from scratch, {long} steps", "scratch-longer", _training(long, Adam(weight_decay=0.1), 4e-3), None),
    ]


def _training(steps: int, optimizer: Adam | SGD, lr: float) -> TrainSettings:
    schedule = Cosine(warmup_steps=steps // 10)
    return TrainSettings(
        steps=steps, batch_size=64, lr=lr, optimizer=optimizer, schedule=schedule, eval_every=max(1, steps // 4)
    )


def _on_digits(group: Group, seed: int) -> RunSettings:
    return RunSettings(
        recipe=f"demo-{group.folder}",
        model=_model(HIGH, len(TRAIN.classes)),
        weights=group.weights,
        train_data=TRAIN,
        evals={"test": TEST},
        image_spec=ImageSpec(height=HIGH, width=HIGH),
        augment=Augment(crop=InceptionCrop(area=(0.6, 1.0)), flip=False),
        train=group.train.model_copy(update={"seed": seed}),
    )


def _cell(settings: RunSettings, folder: Path, console: Console, say: Callable[[str], None]) -> Path:
    """Return the finished model of the run in `folder`, running or resuming it where it is not finished."""
    watcher = Terminal(console, brief=True)
    if (folder / "config.json").exists():
        run.resume(folder, watcher, lambda _: None, asked=settings)
    else:
        run.start(settings, folder, watcher, lambda _: None)
    if settings.evals:
        say(f"     {folder.name}: top-1 {100 * _final_top1(folder):.1f} %")
    return folder / "model.safetensors"


def _final_top1(folder: Path) -> float:
    return next(float(event["value"]) for event in reversed(read_metrics(folder)) if event["name"] == "test/top1")


def _print_table(rows: list[Row], console: Console) -> None:
    table = Table(
        "", "top-1", "±", box=None, header_style="bold", title=f"on {len(TEST):,} test digits", title_justify="left"
    )
    for row in rows:
        table.add_row(row.name, f"{100 * row.mean:.1f} %", f"{100 * row.deviation:.1f}")
    console.print(table)


def _write_page(scale: Scale, rows: list[Row], out: Path, drawn: list[Figure]) -> Path:
    """Write `table.json` and the page `index.html` into `out`, and return the page."""
    table = [{"name": row.name, "top1": row.top1, "mean": row.mean, "deviation": row.deviation} for row in rows]
    files.write_atomic(out / "table.json", (json.dumps(table, indent=2) + "\n").encode())
    context = {
        "rows": rows,
        "scale": scale,
        "train": len(TRAIN),
        "test": len(TEST),
        "low": LOW,
        "high": HIGH,
        "shots": SHOTS,
        "longer": LONGER,
        "benefit": rows[0].mean - rows[1].mean,
        "benefit_longer": rows[2].mean - rows[3].mean,
        "figures": drawn,
    }
    path = out / "index.html"
    files.write_atomic(path, render("miniature.html", context).encode())
    return path


def _figures(scale: Scale, out: Path, groups: list[Group], pretrained: ViT) -> list[Figure]:
    tuned = load(out / f"{groups[0].folder}-{scale.seeds[0]}")
    assert isinstance(tuned, ViT)  # it is what `_model` describes
    shown = np.linspace(0, len(TEST) - 1, 8).astype(int)
    digits = [pixels_of(TEST.read(int(index))) for index in shown]
    pairs = [figures.rollout_overlay(tuned, digit) for digit in digits]
    titles = [TEST.classes[int(TEST.labels[index])] for index in shown]
    fractals = [pixels_of(scale.fractals.read(int(i))) for i in np.linspace(0, len(scale.fractals) - 1, 14).astype(int)]
    return [
        Figure(
            "What it was pre-trained on",
            "Fractals, drawn from formulas: no photograph was used.",
            figures.pictures(fractals),
        ),
        Figure(
            "Learning curves",
            "Left, pre-training. Middle and right, on the digits, the mean over seeds.",
            _curves(scale, out, groups),
        ),
        Figure(
            "Patch filters",
            "Principal components of the filters that read a patch (the paper's figure 7, left).",
            figures.filters(embeddings.filter_components(pretrained)),
        ),
        Figure(
            "Position similarity",
            "How alike the learned position of each patch is to every other; nearby ones are alike (figure 7, centre).",
            figures.similarity(embeddings.position_similarity(pretrained).numpy()),
        ),
        Figure(
            "What the model looks at",
            "Test digits, and what reaches the decision (figure 6).",
            figures.rollouts([image for image, _ in pairs], [look for _, look in pairs], titles),
        ),
    ]


def _curves(scale: Scale, out: Path, groups: list[Group]) -> Drawing:
    def mean_curve(cells: list[str], name: str) -> charts.Curve:
        runs = [[event for event in read_metrics(out / cell) if event["name"] == name] for cell in cells]
        steps = [event["step"] for event in runs[0]]
        return steps, np.mean([[event["value"] for event in run] for run in runs], axis=0).tolist()

    cells = {group.folder: [f"{group.folder}-{seed}" for seed in scale.seeds] for group in groups}
    return charts.curves(
        {
            "pre-training loss": {"train": mean_curve(["pretrained"], "train/loss")},
            "training loss on digits": {kind: mean_curve(runs, "train/loss") for kind, runs in cells.items()},
            "test top-1 on digits": {kind: mean_curve(runs, "test/top1") for kind, runs in cells.items()},
        }
    )
