"""The recipes against tables 3 and 4 of the paper, transcribed here once more, and against the reference data where it is."""

import csv
import re

import pytest

from vitlab.data.catalog import entry
from vitlab.data.randaugment import RandAugment
from vitlab.models.resnet import ResNetSettings
from vitlab.studies.recipe import expectations, find_recipe, recipes, steps_for
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Sigmoid, Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear

JFT, I21K, I1K = "JFT-300M", "ImageNet-21k", "ImageNet"
TABLE3 = {
    # recipe: (model, data set, epochs, base rate, decay of the rate, weight decay, dropout)
    "jft/B16": ("ViT-B/16", JFT, 7, 8e-4, "linear", 0.1, 0.0),
    "jft/B32": ("ViT-B/32", JFT, 7, 8e-4, "linear", 0.1, 0.0),
    "jft/L32": ("ViT-L/32", JFT, 7, 6e-4, "linear", 0.1, 0.0),
    "jft/L16": ("ViT-L/16", JFT, 7, 4e-4, "linear", 0.1, 0.0),
    "jft/L16-14ep": ("ViT-L/16", JFT, 14, 4e-4, "linear", 0.1, 0.0),
    "jft/H14": ("ViT-H/14", JFT, 14, 3e-4, "linear", 0.1, 0.0),
    "jft/R50x1": ("R50x1", JFT, 7, 1e-3, "linear", 0.1, 0.0),
    "jft/R50x2": ("R50x2", JFT, 7, 1e-3, "linear", 0.1, 0.0),
    "jft/R101x1": ("R101x1", JFT, 7, 8e-4, "linear", 0.1, 0.0),
    "jft/R152x1": ("R152x1", JFT, 7, 6e-4, "linear", 0.1, 0.0),
    "jft/R152x2": ("R152x2", JFT, 7, 6e-4, "linear", 0.1, 0.0),
    "jft/R50+B16": ("R50+ViT-B/16", JFT, 7, 8e-4, "linear", 0.1, 0.0),
    "jft/R50+B32": ("R50+ViT-B/32", JFT, 7, 8e-4, "linear", 0.1, 0.0),
    "jft/R50+L32": ("R50+ViT-L/32", JFT, 7, 2e-4, "linear", 0.1, 0.0),
    "jft/R50+L16": ("R50+ViT-L/16", JFT, 7, 4e-4, "linear", 0.1, 0.0),
    "jft/R50+L16-14ep": ("R50+ViT-L/16", JFT, 14, 4e-4, "linear", 0.1, 0.0),
    "imagenet21k/B16": ("ViT-B/16", I21K, 90, 1e-3, "linear", 0.03, 0.1),
    "imagenet21k/B32": ("ViT-B/32", I21K, 90, 1e-3, "linear", 0.03, 0.1),
    "imagenet21k/L16": ("ViT-L/16", I21K, 90, 1e-3, "linear", 0.03, 0.1),
    "imagenet21k/L16-30ep": ("ViT-L/16", I21K, 30, 1e-3, "linear", 0.03, 0.1),
    "imagenet21k/L32": ("ViT-L/32", I21K, 90, 1e-3, "linear", 0.03, 0.1),
    "imagenet21k/L32-30ep": ("ViT-L/32", I21K, 30, 1e-3, "linear", 0.03, 0.1),
    "imagenet/B16": ("ViT-B/16", I1K, 300, 3e-3, "cosine", 0.3, 0.1),
    "imagenet/B32": ("ViT-B/32", I1K, 300, 3e-3, "cosine", 0.3, 0.1),
    "imagenet/L16": ("ViT-L/16", I1K, 300, 3e-3, "cosine", 0.3, 0.1),
    "imagenet/L32": ("ViT-L/32", I1K, 300, 3e-3, "cosine", 0.3, 0.1),
    "imagenet/H14": ("ViT-H/14", I1K, 300, 3e-3, "cosine", 0.3, 0.1),
}
TABLE4 = {
    "imagenet": ("ImageNet", 20_000, (0.003, 0.01, 0.03, 0.06)),
    "cifar100": ("CIFAR-100", 10_000, (0.001, 0.003, 0.01, 0.03)),
    "cifar10": ("CIFAR-10", 10_000, (0.001, 0.003, 0.01, 0.03)),
    "pets": ("Oxford-IIIT Pets", 500, (0.001, 0.003, 0.01, 0.03)),
    "flowers": ("Oxford Flowers-102", 500, (0.001, 0.003, 0.01, 0.03)),
    "vtab": ("VTAB (19 tasks)", 2_500, (0.01,)),
}
DATA = {JFT: "JFT-300M", I21K: "imagenet21k", I1K: "imagenet"}
FAMILIES = ("jft/", "imagenet21k/", "imagenet/")


def ours(model):
    """Return our name of a model of the paper's tables."""
    name = model.replace("ViT-", "").replace("x1+", "+").replace("ResNet", "R")
    return f"BiT-{name}" if re.fullmatch(r"R\d+x\d", name) else name


def read(shared, name):
    with (shared / "paper" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def spread(models):
    """Return the models of a row of table 3: "ViT-B/{16,32}" are two."""
    found = re.fullmatch(r"(.*)\{(.*)\}", models)
    return [found[1] + each for each in found[2].split(",")] if found else [models]


@pytest.mark.parametrize("name", TABLE3)
def test_pre_training_is_that_of_table_3(name):
    model, data, epochs, rate, decay, weight_decay, dropout = TABLE3[name]
    recipe = find_recipe(name, "pretrain")
    train = recipe.train
    assert recipe.models == (ours(model),) and recipe.data == DATA[data] and recipe.epochs == epochs
    assert (train.batch_size, train.lr, recipe.image_size) == (4096, rate, 224)
    assert train.optimizer == Adam(beta1=0.9, beta2=0.999, weight_decay=weight_decay)
    schedules = {"linear": Linear(warmup_steps=10_000, end=1e-5), "cosine": Cosine(warmup_steps=10_000)}
    assert train.schedule == schedules[decay]
    assert recipe.model.get("dropout", 0.0) == dropout
    assert train.clip_norm == (1.0 if data == I1K else None)  # the caption: only for ImageNet
    assert train.objective == Sigmoid(label_smoothing=1e-4 if data == I1K else 0.0)
    assert recipe.model["head_bias"] == -10 and train.average is None
    assert recipe.augment.crop.area == (0.05, 1.0) and recipe.augment.flip


@pytest.mark.parametrize(
    ("size", "magnitude", "mixup"),
    [("Ti16", None, 0.0), ("S32", None, 0.0), ("S16", 0, 0.0), ("B32", 10, 0.2), ("B16", 10, 0.2), ("L16", 15, 0.5)],
)
def test_augreg_augments_each_size_as_its_code_does(size, magnitude, mixup):
    """RANDAUG_DEF and MIXUP_DEF of big_vision's vit_i21k.py."""
    recipe = recipes()[f"augreg/{size}"]
    assert recipe.augment.randaugment == (None if magnitude is None else RandAugment(num_ops=2, magnitude=magnitude))
    assert recipe.train.objective == Sigmoid(mixup=mixup) and recipe.train.optimizer.moment_dtype == "bfloat16"


def test_there_is_a_recipe_for_every_row_of_table_3_and_no_other():
    found = {name for name in recipes() if name.startswith(FAMILIES)}
    assert found == {*TABLE3, "jft/B16-masked"}


def test_table_3_is_transcribed_without_a_slip(shared):
    printed = {
        (
            model,
            row["dataset"],
            int(epochs),
            float(row["base_lr"]),
            row["lr_decay"],
            *map(float, (row["weight_decay"], row["dropout"])),
        )
        for row in read(shared, "table3_pretraining.csv")
        for model in spread(row["models"])
        for epochs in row["epochs"].split("/")
    }
    (all_vits,) = [row for row in printed if row[0] == "ViT-*"]
    assert {row for row in TABLE3.values() if row[1] != I1K} == printed - {all_vits}
    assert {row[1:] for row in TABLE3.values() if row[1] == I1K} == {all_vits[1:]}


@pytest.mark.parametrize("name", TABLE4)
def test_fine_tuning_is_that_of_table_4(name):
    _, steps, rates = TABLE4[name]
    recipe = find_recipe(name, "finetune")
    train = recipe.train
    assert (train.steps, recipe.lrs, recipe.epochs) == (steps, rates, None) and train.lr in rates
    assert train.optimizer == SGD(momentum=0.9, weight_decay=0.0) and train.objective == Softmax()
    assert (train.batch_size, train.clip_norm, recipe.image_size, recipe.models) == (512, 1.0, 384, ())
    assert isinstance(train.schedule, Cosine) and recipe.augment.flip
    assert round(384 / recipe.augment.crop.fraction) == 448


def test_table_4_is_transcribed_without_a_slip(shared):
    rows = read(shared, "table4_finetuning.csv")
    printed = {(row["dataset"], int(row["steps"]), tuple(map(float, row["base_lrs"].split()))) for row in rows}
    assert set(TABLE4.values()) == printed


def test_the_rows_of_table_2_are_larger_and_averaged():
    """Appendix B.1.1: 512 pixels for ViT-L/16, 518 for ViT-H/14, Polyak averaging with a factor of 0.9999."""
    recipe, plain = find_recipe("imagenet-512"), find_recipe("imagenet")
    assert (recipe.image_size, dict(recipe.image_sizes), recipe.models) == (512, {"H/14": 518}, ("L/16", "H/14"))
    assert recipe.train == plain.train.model_copy(update={"average": 0.9999})


def test_masked_patch_prediction_is_that_of_appendix_b_1_2():
    recipe = find_recipe("jft/B16-masked")
    assert (recipe.train.steps, recipe.train.lr, recipe.train.batch_size) == (1_000_000, 2e-4, 4096)
    assert recipe.train.schedule == Cosine(warmup_steps=10_000) and recipe.train.objective == MaskedPatches()
    assert recipe.epochs is None


@pytest.mark.parametrize(
    ("name", "steps"),
    [("jft/B16", 517_822), ("jft/L16-14ep", 1_035_645), ("jft/H14", 1_035_645), ("imagenet/B16", 93_836)],
)
def test_epochs_are_as_many_steps_as_the_paper_has(name, steps):
    """To one step: a last step that shows what is left is made here."""
    recipe = find_recipe(name)
    assert recipe.train.steps - steps in (0, 1)
    assert recipe.train.steps * 4096 >= recipe.epochs * recipe.images > (recipe.train.steps - 1) * 4096


def test_imagenet_without_the_part_held_out_has_the_steps_of_the_paper():
    assert steps_for(300, 1_268_355, 4096) == 92_898


@pytest.mark.parametrize("name", TABLE3)
def test_rates_climb_for_10_000_steps_and_end_where_they_should(name):
    train = find_recipe(name).train
    base, end = TABLE3[name][3], 1e-5 if TABLE3[name][4] == "linear" else 0.0
    middle = 10_000 + (train.steps - 10_000) // 2
    assert (train.rate(0), train.rate(5_000)) == pytest.approx((0.0, train.rate(10_000) / 2), rel=0.02)
    assert train.rate(10_000) == pytest.approx(base)
    assert train.rate(middle) == pytest.approx((base + end) / 2, rel=1e-4)
    assert train.rate(train.steps) == pytest.approx(end, abs=1e-12)


def test_every_recipe_is_for_a_data_set_that_there_is():
    named = {recipe.data for recipe in recipes().values()} - {"", "JFT-300M", "vtab/*"}
    assert all(entry(name) for name in named) and len(named) >= 6


def test_what_vtab_turns_off_is_turned_off_for_its_tasks():
    """Kolesnikov et al. 2020, appendix F: where a mirrored or cropped image is another answer."""
    changes = find_recipe("vtab").augment_on
    assert all(entry(name) for name in changes)
    unmirrored = {name for name, change in changes.items() if change.get("flip") is False}
    uncropped = {name for name, change in changes.items() if change.get("crop") == {"type": "NoCrop"}}
    assert unmirrored == {"vtab/dspr-orient", "vtab/snorb-azim", "vtab/dspr-loc"}
    assert uncropped == {f"vtab/{task}" for task in ("clevr-count", "clevr-dist", "dmlab", "kitti-dist", "dspr-loc")}


def expected(name, on, source):
    found = [row for row in expectations() if (row.pretrained, row.on, row.source) == (name, on, source)]
    assert len(found) == 1, (name, on, source)
    return found[0]


LONG = {"Pets": "Oxford-IIIT Pets", "Oxford-IIIT-Pets": "Oxford-IIIT Pets", "Flowers": "Oxford Flowers-102"}
AFTER = {"ViT-H/14 JFT": "jft/H14", "ViT-L/16 JFT": "jft/L16-14ep", "ViT-L/16 I21k": "imagenet21k/L16"}


def test_the_accuracies_of_table_2_are_those_expected(shared):
    for row in read(shared, "table2_sota.csv"):
        if row["dataset"] == "TPUv3-core-days":
            continue
        for column, name in {**AFTER, "BiT-L R152x4": "BiT-L R152x4"}.items():
            mean, _, deviation = row[column].partition("±")
            found = expected(name, row["dataset"], "table 2")
            assert (found.top1, found.deviation) == (float(mean), float(deviation) if deviation else None)


def test_the_accuracies_of_tables_5_and_6_are_those_expected(shared):
    """Table 6 has models that table 3 gives no rate for: R152x2 and R200x3 for 14 epochs."""
    for row in read(shared, "table6_scaling.csv"):
        models, epochs = (ours(row["model"]),), float(row["epochs"])
        name = next(
            (
                each.name
                for each in recipes().values()
                if (each.data, each.models, each.epochs) == (JFT, models, epochs)
            ),
            None,
        )
        if name is None:
            assert (row["model"], row["epochs"]) in (("ResNet152x2", "14"), ("ResNet200x3", "14"))
            continue
        for data in ("ImageNet", "ImageNet ReaL", "CIFAR-10", "CIFAR-100", "Pets", "Flowers"):
            assert expected(name, LONG.get(data, data), "table 6").top1 == float(row[data])
    for row in read(shared, "table5_pretraining_data.csv"):
        for model, value in list(row.items())[2:]:
            name = f"{DATA[row['pretraining']]}/{ours(model).replace('/', '')}"
            if value and name in TABLE3:
                assert expected(name, LONG.get(row["transfer"], row["transfer"]), "table 5").top1 == float(value)


def test_the_accuracies_of_table_9_are_those_expected(shared):
    for row in read(shared, "table9_vtab.csv"):
        for column, name in AFTER.items():
            assert expected(name, f"VTAB {row['task']}", "table 9").top1 == float(row[column])


def test_what_is_expected_belongs_to_recipes_and_is_an_accuracy():
    outside = {"BiT-L R152x4", "augreg/B_32"}
    for row in expectations():
        assert row.pretrained in outside or find_recipe(row.pretrained, "pretrain")
        assert not row.finetuned or find_recipe(row.finetuned, "finetune")
        assert 0 < row.top1 < 100 and row.source
    assert len({(row.pretrained, row.on, row.source, row.note) for row in expectations()}) == len(expectations())


def test_resnets_are_those_of_bit():
    from vitlab.models.catalog import settings_for

    for name in ("jft/R50x1", "jft/R152x2"):
        assert isinstance(settings_for(find_recipe(name).models[0]), ResNetSettings)
