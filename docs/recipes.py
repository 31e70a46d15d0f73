"""Write docs/recipes.md, every recipe with its numbers and where they are from: `python docs/recipes.py`."""

from pathlib import Path

from vitlab.studies.cookbook import table
from vitlab.studies.recipe import Recipe, recipes

TARGET = Path(__file__).with_name("recipes.md")
HEAD = """# Recipes

Written by `python docs/recipes.py`; do not edit. `vitlab recipes NAME` shows one of them in full.

A recipe is data: `src/vitlab/studies/recipes/*.json`. `--recipe NAME` takes all of it, options and `--set` change any value, and
what was changed is printed before the first step. Four recipes are ours and meant for a laptop: `transfer`, `scratch`, `pretrain`
and `masked`; they are what runs without `--recipe` (but `bit` for the weights of a ResNet), and they adapt: the warm-up is a tenth
of a shorter run. The others keep the warm-up that was published, and refuse a run that is not longer, until
`--set train.schedule.warmup_steps=` says otherwise.

Epochs are passes over the training images that a run has, rounded up to whole steps: 7 epochs of 303 million images in batches of
4,096 are 517,823 steps. A rate belongs to the batch beside it; with another `--batch-size` it stays as it is. Of several
that a recipe has, the column shows the one that is taken; the paper chose the best on a part held out of the training images.

A batch of 4,096 runs anywhere: it is divided into pieces that fit the memory, and the update is that of the whole batch. Every
process gets as many pieces; a batch that does not divide so is refused with the nearest that does. A batch larger than the data
set shows images more than once in an update, which is said.

"""
TABLES = {
    "pretrain": "## Pre-training\n\nImageNet: top-1 after fine-tuning at 384 pixels, in the paper.\n\n",
    "finetune": "## Fine-tuning\n\n",
}


def page() -> str:
    """Return the text of docs/recipes.md."""
    parts = [HEAD]
    for verb, title in TABLES.items():
        columns = ["name", "model", "made for", "length", "batch", "rate", "decay"]
        columns.append("ImageNet" if verb == "pretrain" else "rates to choose from")
        rows = [[*row[:1], *row[2:8], _last(recipes()[row.name]), row.source] for row in table() if row.verb == verb]
        parts.append(title + _markdown([*columns, "source"], rows))
    parts.append("## What the sources do not state\n\n")
    for line, names in _unstated().items():
        parts.append(f"- {line}: {_shortened(names)}\n")
    return "".join(parts)


def _last(recipe: Recipe) -> str:
    if recipe.verb == "finetune":
        return ", ".join(f"{rate:g}" for rate in recipe.lrs)
    wanted = ("table 5", "table 6", "section 4.6")
    found = [
        row for row in recipe.expected if row.finetuned == "imagenet" and row.on == "ImageNet" and row.source in wanted
    ]
    return f"{found[0].top1:.2f}" if found else ""


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    numbers = {"batch", "rate", "decay", "ImageNet"}
    lines = [columns, ["---:" if column in numbers else "---" for column in columns]]
    lines += [[f"`{name}`", *rest] for name, *rest in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _unstated() -> dict[str, list[str]]:
    """Return each remark, with the recipes that it is about."""
    remarks: dict[str, list[str]] = {}
    for recipe in recipes().values():
        for line in recipe.unstated:
            remarks.setdefault(line, []).append(recipe.name)
    return remarks


def _shortened(names: list[str]) -> str:
    """Return names as text, those of a family in one where most of it is there."""
    words: list[str] = []
    for family in dict.fromkeys(name.split("/")[0] for name in names):
        all_of_it = [name for name in recipes() if name.startswith(f"{family}/")]
        others = [f"`{name}`" for name in all_of_it if name not in names]
        most = len(all_of_it) > 2 and len(others) < 2
        listed = [f"`{name}`" for name in names if name.split("/")[0] == family]
        words += [f"`{family}/*`" + (f" but {others[0]}" if others else "")] if most else listed
    return ", ".join(words)


if __name__ == "__main__":
    TARGET.write_text(page())
