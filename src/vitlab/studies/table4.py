"""Table 4 (appendix B.1.1): how the models are fine-tuned, and whether our recipes are that."""

from vitlab.studies.published import read_table
from vitlab.studies.recipe import find_recipe
from vitlab.studies.study import Sheet, Study
from vitlab.studies.transcript import Line, at_every_scale, sheet
from vitlab.train.optimizer import SGD

RECIPES = {
    "ImageNet": "imagenet",
    "CIFAR-100": "cifar100",
    "CIFAR-10": "cifar10",
    "Oxford-IIIT Pets": "pets",
    "Oxford Flowers-102": "flowers",
    "VTAB (19 tasks)": "vtab",
}
"""Our recipe for each row."""
STATED = {
    "momentum": "0.9",
    "batch": "512",
    "decay": "cosine",
    "weight decay": "0",
    "clipping": "1",
    "pixels": "384",
}
NOTE = (
    "The rates are those that one is chosen from. The values of all rows are from the caption and appendix B.1.1: SGD with "
    "momentum 0.9, batch 512, cosine decay, no weight decay, gradients clipped at norm 1, 384 pixels."
)


def lines() -> list[Line]:
    """Return what the paper says of each data set, with the recipe of ours for it."""
    found: list[Line] = []
    for row in read_table("table4"):
        rates = ", ".join(f"{float(rate):g}" for rate in row["base_lrs"].split())
        name = RECIPES[row["dataset"]]
        found.append(
            Line((row["dataset"],), name, _values(name), {"steps": row["steps"], "base rates": rates, **STATED})
        )
    return found


def _values(name: str) -> dict[str, str]:
    recipe = find_recipe(name, "finetune")
    train, sgd = recipe.train, recipe.train.optimizer
    assert isinstance(sgd, SGD)  # as every recipe that is named above
    return {
        "steps": str(train.steps),
        "base rates": ", ".join(f"{rate:g}" for rate in recipe.lrs),
        "momentum": f"{sgd.momentum:g}",
        "batch": str(train.batch_size),
        "decay": train.schedule.type.lower(),
        "weight decay": f"{sgd.weight_decay:g}",
        "clipping": "none" if train.clip_norm is None else f"{train.clip_norm:g}",
        "pixels": str(recipe.image_size),
    }


def made() -> Sheet:
    """Return the table with ours beside it."""
    return sheet("Fine-tuning", ("data",), lines(), NOTE)


STUDY = Study(
    name="table4",
    title="Fine-tuning recipes",
    question="Are our recipes for fine-tuning those of the paper?",
    found="SGD with momentum, a few thousand steps, and one of at most four rates, chosen on images held out for it.",
    source="Table 4, appendix B.1.1",
    editions=at_every_scale(made),
)
