"""The world of the paper: its networks, data sets and recipes. It needs a cluster, and data in the place of JFT-300M."""

from collections.abc import Callable, Mapping
from functools import partial

from vitlab.data.catalog import data_folder
from vitlab.data.open import AnySource, open_data
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import DataError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings
from vitlab.studies.plan import choose_device, choose_workers, evaluation_source
from vitlab.studies.recipe import Recipe, RunSettings, find_recipe, micro_batch_for, recipes
from vitlab.studies.table6 import name_of, read_paper
from vitlab.studies.world import Task, Upstream, World
from vitlab.train.precision import best_precision

LARGE = "jft"
"""The folder of data sets in which a large labelled data set stands for JFT-300M, which was never published."""
FAMILIES: Mapping[Upstream, str] = {"small": "imagenet/", "medium": "imagenet21k/", "large": "jft/"}
FALLBACK = {"small": "imagenet/B16", "medium": "imagenet21k/B16", "large": "jft/B16"}
RESNET_FALLBACK = "jft/R152x2"
"""The recipes of networks that table 3 does not name on these data, its closest."""
NETWORKS = {name: settings_for(name) for name in ("b/32", *dict.fromkeys(name_of(row.model) for row in read_paper()))}


def _large() -> AnySource:
    place = data_folder() / LARGE
    if not place.exists():
        what = "is needed, and was never published"
        raise DataError("JFT-300M", what, f"put or link a large labelled data set of your own at {place}")
    opened = open_data(str(place))
    return opened.whole or opened.train or next(iter(opened.evals.values()))


def _recipe(network: str, data: Upstream) -> Recipe:
    """Return the recipe of table 3, its closest for a network that it does not name on these data.

    It names ResNets and hybrids on JFT-300M alone: elsewhere they keep that recipe, for as many epochs as a ViT has there.
    """
    short = network.removeprefix("BiT-").replace("/", "")
    if (name := FAMILIES[data] + short) in recipes():
        return find_recipe(name, "pretrain")
    closest = find_recipe(FALLBACK[data], "pretrain")
    if not short.startswith("R"):
        return closest
    own = FAMILIES["large"] + short
    own = find_recipe(own if own in recipes() else RESNET_FALLBACK, "pretrain")
    return own if data == "large" else own.model_copy(update={"epochs": closest.epochs})


def _pretrain(model: AnySettings, network: str, data: Upstream) -> RunSettings:
    source, recipe = SETS[data](), _recipe(network, data)
    model = recipe.fresh(model.model_copy(update={"num_classes": len(source.classes)}))
    return run_settings(recipe, model, source, {})


def _finetune(model: AnySettings, task: str) -> RunSettings:
    given, recipe = _task(task), find_recipe(task, "finetune")
    changes = {"num_classes": len(given.train.classes), "image_size": recipe.size_for(model)}
    return run_settings(recipe, model.model_copy(update=changes), given.train, {"test": given.test})


def run_settings(recipe: Recipe, model: AnySettings, source: AnySource, evals: Mapping[str, AnySource]) -> RunSettings:
    """Return the run of `recipe` with `model` on `source`, on the best device that is here, with a checkpoint every hundredth."""
    device = choose_device("auto")
    train = recipe.training(recipe.steps_on(source)).model_copy(update={"precision": best_precision(device)})
    train = train.model_copy(
        update={"micro_batch_size": micro_batch_for(model, train), "checkpoint_every": max(1, train.steps // 100)}
    )
    return RunSettings(
        recipe=recipe.name,
        model=model,
        train_data=source,
        evals=evals,
        image_spec=ImageSpec(height=model.image_size.height, width=model.image_size.width),
        augment=recipe.augment_for(source, model.image_size),
        train=train,
        workers=choose_workers(None, source),
        device=str(device),
    )


def named_set(name: str) -> AnySource:
    """Return the training images of a data set of the catalog."""
    opened = open_data(name)
    assert opened.train is not None  # those that are pre-trained on have them
    return opened.train


def named_task(name: str) -> Task:
    """Return the training and test images of a data set of the catalog."""
    return Task(named_set(name), evaluation_source(name))


SETS: Mapping[Upstream, Callable[[], AnySource]] = {
    "small": partial(named_set, "imagenet"),
    "medium": partial(named_set, "imagenet21k"),
    "large": _large,
}
TASKS: Mapping[str, str] = {
    "imagenet": "imagenet",
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "pets": "pets",
    "flowers": "flowers102",
}
"""The recipes of table 4, and the data sets that they are for."""


def _task(recipe: str) -> Task:
    return named_task(TASKS[recipe])


PAPER = World(
    scale="paper",
    words=f"the paper's data sets and networks, and in the place of JFT-300M your own data in {LARGE}",
    sets=SETS,
    titles={"small": "ImageNet", "medium": "ImageNet-21k", "large": "your data in the place of JFT-300M"},
    tasks={recipe: partial(_task, recipe) for recipe in TASKS},
    networks=NETWORKS,
    usual="B/16",
    task="imagenet",
    shots=5,
    seeds=(0,),
    pretrain=_pretrain,
    finetune=_finetune,
)
