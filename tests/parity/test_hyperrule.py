"""BiT-HyperRule against the released code."""

import pytest

from vitlab.studies.hyperrule import hyperrule, hyperrule_size

SIZES = ["1000", "19999", "20000", "50000", "499999", "500000", "1281167"]


@pytest.mark.parametrize("images", SIZES)
def test_rates_steps_and_mixup_are_those_of_the_rule(golden, agree, images):
    case = golden("bit_original/hyperrule").json()["by_dataset_size"][images]
    recipe = hyperrule(int(images), 224 * 224)
    train = recipe.training(recipe.train.steps)
    rates = {int(step): rate for step, rate in case["lr"].items() if rate is not None}
    assert case["lr"][str(recipe.train.steps)] is None  # the rule ends there
    agree("bit_original/hyperrule", [train.rate(step) for step in rates], list(rates.values()), rtol=1e-9)
    assert (train.objective.mixup, train.batch_size, train.optimizer.momentum) == (case["mixup"], 512, 0.9)
    assert train.optimizer.weight_decay == 0 and train.clip_norm is None


@pytest.mark.parametrize(("side", "crop"), [(32, 128), (95, 128), (96, 384), (500, 384)])
def test_small_images_are_cropped_to_128_and_others_to_384(side, crop):
    fraction = hyperrule(1000, side * side).augment.crop.fraction
    assert hyperrule_size(side * side) == crop
    assert round(crop / fraction) == {128: 160, 384: 448}[crop]
