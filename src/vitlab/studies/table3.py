"""Table 3 (appendix B.1): how the models are pre-trained, and whether our recipes are that."""

import re
from collections.abc import Iterator, Sequence

from vitlab.studies.published import read_table
from vitlab.studies.recipe import Recipe, recipes
from vitlab.studies.study import Sheet, Study
from vitlab.studies.transcript import Line, at_every_scale, sheet
from vitlab.train.optimizer import Adam

DATA = {"JFT-300M": "JFT-300M", "ImageNet-21k": "imagenet21k", "ImageNet": "imagenet"}
"""The paper's data sets, and our names of them."""
EVERY_VIT = "ViT-*"
NOTE = (
    "The values of all rows, from the caption and section 4.1: Adam with β₁ 0.9 and β₂ 0.999, batch 4,096, 10,000 steps of "
    "warm-up, 224 pixels, gradients clipped at norm 1 for ImageNet alone. “ViT-*” stands for each ViT, “7/14” for two runs."
)


def lines() -> list[Line]:
    """Return what the paper says of each run of the table, with the recipe of ours for it."""
    return [line for row in read_table("table3") for line in _lines(row)]


def _lines(row: dict[str, str]) -> Iterator[Line]:
    data = row["dataset"]
    ours = [recipe for recipe in recipes().values() if recipe.data == DATA[data] and _is_of_table(recipe)]
    models = _spread(row["models"])
    if models == [EVERY_VIT]:
        models = [f"ViT-{recipe.models[0]}" for recipe in ours]
    for model in models:
        for epochs in row["epochs"].split("/"):
            wanted = (_name(model), float(epochs))
            recipe = next((each for each in ours if (each.models[0], each.epochs) == wanted), None)
            paper = {
                "base rate": f"{float(row['base_lr']):g}",
                "decay": row["lr_decay"],
                "weight decay": f"{float(row['weight_decay']):g}",
                "dropout": f"{float(row['dropout']):g}",
                **_stated(data),
            }
            yield Line((model, data, epochs), recipe.name if recipe else "", _values(recipe) if recipe else {}, paper)


def _stated(data: str) -> dict[str, str]:
    """Return what caption and text say of every run on `data`."""
    return {
        "Adam": "0.9, 0.999",
        "batch": "4096",
        "warm-up": "10000",
        "pixels": "224",
        "clipping": "1" if data == "ImageNet" else "none",
    }


def _values(recipe: Recipe) -> dict[str, str]:
    train = recipe.train
    adam = train.optimizer
    assert isinstance(adam, Adam)  # else it is not of the table
    return {
        "base rate": f"{train.lr:g}",
        "decay": train.schedule.type.lower(),
        "weight decay": f"{adam.weight_decay:g}",
        "dropout": f"{float(recipe.model.get('dropout', 0)):g}",
        "Adam": f"{adam.beta1:g}, {adam.beta2:g}",
        "batch": str(train.batch_size),
        "warm-up": str(train.schedule.warmup_steps),
        "pixels": str(recipe.image_size),
        "clipping": "none" if train.clip_norm is None else f"{train.clip_norm:g}",
    }


def _is_of_table(recipe: Recipe) -> bool:
    return recipe.verb == "pretrain" and recipe.source.startswith("table 3") and recipe.epochs is not None


def _spread(models: str) -> Sequence[str]:
    """Return the models of a row: "ViT-B/{16,32}" are two."""
    found = re.fullmatch(r"(.*)\{(.*)\}", models)
    return [found[1] + each for each in found[2].split(",")] if found else [models]


def _name(model: str) -> str:
    """Return our name of a model of the paper."""
    return f"BiT-{model}" if re.fullmatch(r"R\d+x\d", model) else model.replace("ViT-", "")


def made() -> Sheet:
    """Return the table with ours beside it."""
    return sheet("Pre-training", ("model", "data", "epochs"), lines(), NOTE)


STUDY = Study(
    name="table3",
    title="Pre-training recipes",
    question="Are our recipes for pre-training those of the paper?",
    found="Rates, decays and dropout of every model on the three sets: large data want little regularisation, ImageNet much.",
    source="Table 3, appendix B.1",
    editions=at_every_scale(made),
)
