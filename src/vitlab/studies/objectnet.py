"""ObjectNet (appendix D.9): what is left of a fine-tuned model's accuracy on images of the same classes but another kind."""

from collections.abc import Mapping, Sequence
from functools import partial

from vitlab.config import Settings, to_json
from vitlab.data.fit import CentralCrop
from vitlab.data.source import Source
from vitlab.evals.classify import classify
from vitlab.models.classifier import Classifier
from vitlab.studies.pictures import SHIFTS, Pictures, shifted
from vitlab.studies.plan import evaluation_source
from vitlab.studies.rivals import lead
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.suite import OBJECTNET_MIDDLE
from vitlab.studies.transfer import percent
from vitlab.studies.work import Measurement, Piece, Result, Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

PAPER: Mapping[str, str] = {"ObjectNet top-1": "61.7", "ObjectNet top-5": "82.1"}
"""What the paper says of ViT-H/14, in percent; its top-1 on ImageNet is 88.55 (table 2)."""
OWN = "own test images"
STARTS = ("pre-trained", "from scratch")


def edition(world: World) -> Edition:
    """Return the study in `world`: a network is fine-tuned with and without pre-training, and evaluated on its own test images
    and on shifted ones.
    """
    sources, middle = _sources(world), OBJECTNET_MIDDLE if world.scale == "paper" else None
    inputs = {"sources": {name: _identity(source) for name, source in sources.items()}, "middle": middle}
    measure = partial(_measure, sources=sources, middle=middle)
    grid: dict[str, Piece] = {}
    for start in STARTS:
        for seed in world.seeds:
            model = _finetuned(world, start, seed)
            grid[f"{start}, seed {seed}"] = Measurement(f"shifted-{model.name}", measure, (model,), inputs)
    return Edition(world.words, grid, partial(sheet, world), minutes=2)


def sheet(world: World, results: Results) -> Sheet:
    """Return top-1 and top-5 on every kind of images with the paper's beside, and whether the shift costs accuracy."""
    rows = [["evaluated on", *(f"{start}, {top}" for start in STARTS for top in ("top-1", "top-5"))]]
    for name in _names(world):
        found = [results.over(_labels(world, start), f"{name} {top}") for start in STARTS for top in ("top1", "top5")]
        rows.append([name, *map(percent, found)])
    note = (
        f"In percent, mean and sample deviation over seeds, of {_network(world)} after fine-tuning on {_task(world)}."
    )
    ours = Table("Accuracy on its own and on shifted images", rows, note)
    published = [["ViT-H/14, on", "%"], ["ImageNet top-1", "88.55"], *([name, value] for name, value in PAPER.items())]
    note = "After fine-tuning on ImageNet, pre-trained on JFT-300M. It has no model that is not pre-trained."
    return Sheet([ours, Table("In the paper", published, note)], [], _finding(world, results))


def _finding(world: World, results: Results) -> Finding:
    runs = {start: _labels(world, start) for start in STARTS}
    own = {start: results.over(labels, f"{OWN} top1") for start, labels in runs.items()}
    words, falls = list[str](), list[bool]()
    for name in _names(world)[1:]:
        found = {start: results.over(labels, f"{name} top1") for start, labels in runs.items()}
        fall, ahead = lead(found["pre-trained"], own["pre-trained"]), lead(found["pre-trained"], found["from scratch"])
        if fall is None or ahead is None:
            return Finding(None, "Not every model is measured on every kind of images.")
        words.append(f"{name} {fall.words()} ({ahead.words()} of the one from scratch)")
        falls.append(fall.mean < -fall.deviation)
    return Finding(
        all(falls), f"Compared with its own test images, the pre-trained network is, on images {'; '.join(words)}."
    )


def _measure(models: Sequence[Classifier], *, sources: Mapping[str, Source], middle: float | None) -> Result:
    (model,) = models
    found: dict[str, float] = {}
    usual = model.image_spec
    for name, source in sources.items():
        crop = middle is not None and name != OWN
        model.image_spec = usual.model_copy(update={"fit": CentralCrop(fraction=middle)}) if crop else usual
        predictions = classify(model, source)
        found |= {f"{name} top{k}": predictions.top(k) for k in (1, 5)}
    return found


def _sources(world: World) -> dict[str, Source]:
    test = world.tasks[_task(world)]().test
    if world.scale == "paper":
        return {OWN: test, "ObjectNet": evaluation_source("objectnet")}
    return {OWN: test} | {name: shifted(test, name) for name in SHIFTS}


def _names(world: World) -> list[str]:
    return [OWN, *(("ObjectNet",) if world.scale == "paper" else SHIFTS)]


def _task(world: World) -> str:
    return "imagenet" if world.scale == "paper" else "digits"


def _network(world: World) -> str:
    return "H/14" if world.scale == "paper" else world.usual


def _finetuned(world: World, start: str, seed: int) -> Training:
    network = _network(world)
    weights = world.pretrained(network, "large", seed) if start == "pre-trained" else None
    return world.finetuned(weights, world.networks[network], _task(world), seed)


def _labels(world: World, start: str) -> list[str]:
    return [f"{start}, seed {seed}" for seed in world.seeds]


def _identity(source: Source) -> object:
    if isinstance(source, Pictures):
        return source.digest
    return to_json(source) if isinstance(source, Settings) else str(source)


STUDY = Study(
    name="objectnet",
    title="Evaluation under a shift",
    question="How much of its accuracy does a model keep on images of the same classes that are of another kind?",
    found="ViT-H/14, of 88.55 % top-1 on ImageNet, has 61.7 % on ObjectNet, whose images are of other places, angles and backgrounds; top-5 is 82.1 %.",
    source="Appendix D.9",
    editions=in_every_world(edition),
)
