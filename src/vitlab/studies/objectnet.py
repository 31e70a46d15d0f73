"""ObjectNet (appendix D.9): what is left of a fine-tuned model's accuracy on images of the same classes but another kind."""

from collections.abc import Mapping, Sequence
from functools import partial

from vitlab.data.fit import CentralCrop
from vitlab.data.source import Source
from vitlab.evals.classify import classify
from vitlab.models.classifier import Classifier
from vitlab.studies.pictures import SHIFTS, identity, shifted
from vitlab.studies.plan import evaluation_source
from vitlab.studies.published import read_table
from vitlab.studies.rivals import lead
from vitlab.studies.spread import percent
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.suite import OBJECTNET_MIDDLE
from vitlab.studies.work import Measurement, Piece, Result, Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

OWN = "own test images"
STARTS = ("pre-trained", "from scratch")


def edition(world: World) -> Edition:
    """Return the study in `world`: a network is fine-tuned with and without pre-training, and evaluated on its own test images
    and on shifted ones.
    """
    sources, middle = _sources(world), OBJECTNET_MIDDLE if world.scale == "paper" else None
    inputs = {"sources": {name: identity(source) for name, source in sources.items()}, "middle": middle}
    measure = partial(_measure, sources=sources, middle=middle)
    grid: dict[str, Piece] = {}
    for start in STARTS:
        for seed in world.seeds:
            model = _finetuned(world, start, seed)
            grid[f"{start}, seed {seed}"] = Measurement(f"shifted-{model.name}", measure, (model,), inputs)
    return Edition(world.words, grid, partial(sheet, world))


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
    published = [["evaluated on", "top-1", "top-5"], *(list(row.values()) for row in read_table("objectnet"))]
    note = (
        "ViT-H/14, pre-trained on JFT-300M and fine-tuned on ImageNet; of models from scratch the paper says nothing."
    )
    return Sheet([ours, Table("In the paper", published, note)], [], _finding(world, results))


def _finding(world: World, results: Results) -> Finding:
    top1 = {name: [results.over(_labels(world, start), f"{name} top1") for start in STARTS] for name in _names(world)}
    own, _ = top1.pop(OWN)
    words, falls = list[str](), list[bool]()
    for name, (trained, scratch) in top1.items():
        fall = lead(trained, own)
        if fall is None:
            return Finding(None, "The pre-trained network is not evaluated on every kind of images.")
        words.append(f"{name} {percent(trained)} % (the one from scratch {percent(scratch) or '?'} %)")
        falls.append(fall.mean < -fall.deviation)
    return Finding(
        all(falls),
        f"The pre-trained network has {percent(own)} % top-1 on its own test images, and of shifted ones: {', '.join(words)}.",
    )


def _measure(models: Sequence[Classifier], *, sources: Mapping[str, Source], middle: float | None) -> Result:
    (model,) = models
    found: dict[str, float] = {}
    usual = model.image_spec
    for name, source in sources.items():
        model.image_spec = (
            usual.model_copy(update={"fit": CentralCrop(fraction=middle)}) if middle and name != OWN else usual
        )
        predictions = classify(model, source)
        found |= {f"{name} top{k}": predictions.top(k) for k in (1, 5)}
    return found


def _sources(world: World) -> Mapping[str, Source]:
    test = world.tasks[_task(world)]().test
    if world.scale == "paper":
        return {OWN: test, "ObjectNet": evaluation_source("objectnet")}
    return {OWN: test, **{name: shifted(test, name) for name in SHIFTS}}


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


STUDY = Study(
    name="objectnet",
    title="Evaluation under a shift",
    question="How much of its accuracy does a model keep on images of the same classes that are of another kind?",
    found=(
        "ViT-H/14 has 88.55 % top-1 on ImageNet and 61.7 % on ObjectNet, whose objects are in other places, at other angles and "
        "before other backgrounds; top-5 there is 82.1 %."
    ),
    source="Appendix D.9",
    editions=in_every_world(edition),
    minutes=1,
)
