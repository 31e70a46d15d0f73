"""BiT-HyperRule: how the recipe "bit" follows from the size of a data set and of its images."""

from vitlab.data.transforms import Augment, ResizeCrop
from vitlab.studies.recipe import Recipe, recipes
from vitlab.train.objective import Softmax
from vitlab.train.schedule import Staircase

SMALL_AREA = 96 * 96
RULE = (
    (500_000, (20_000, 500, (6_000, 12_000, 18_000))),
    (20_000, (10_000, 500, (3_000, 6_000, 9_000))),
    (0, (500, 100, (200, 300, 400))),
)
"""From so many images on: updates, warm-up, and where the rate is divided by ten (the released code)."""


def hyperrule(images: int, area: int) -> Recipe:
    """Return the recipe "bit" for a training set of so many `images` of so many pixels each (Kolesnikov et al. 2020, section 3.3).

    500 updates below 20,000 images, 10,000 below 500,000, else 20,000, the rate divided by ten three times; MixUp 0.1 from 20,000
    images on; images below 96×96 pixels are cropped to 128 out of 160, others to 384 out of 448 (the released code: 480 out of
    512).
    """
    steps, warmup, boundaries = next(rule for least, rule in RULE if images >= least)
    recipe = recipes()["bit"]
    changes = {
        "steps": steps,
        "schedule": Staircase(warmup_steps=warmup, boundaries=boundaries),
        "objective": Softmax(mixup=0.1 if images >= 20_000 else 0.0),
    }
    crop = ResizeCrop(fraction=128 / 160 if area < SMALL_AREA else 384 / 448)
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=changes),
            "augment": Augment(crop=crop),
            "image_size": hyperrule_size(area),
        }
    )


def hyperrule_size(area: int) -> int:
    """Return the side that BiT-HyperRule trains images of `area` pixels at."""
    return 128 if area < SMALL_AREA else 384
