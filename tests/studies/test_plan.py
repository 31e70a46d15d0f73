from dataclasses import replace

import pytest
import torch

from vitlab.data.digits import Digits
from vitlab.data.fractals import Fractals
from vitlab.errors import SettingsError
from vitlab.models.catalog import build_named, settings_for
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.studies.plan import Asked, choose_device, divided_as, evaluation_source, plan_finetune, plan_pretrain
from vitlab.train.masked import MaskedPatches
from vitlab.weights.save import save

ON_CPU = {"device": "cpu"}


def test_a_folder_needs_no_other_argument():
    plan = plan_finetune(Asked(data="digits", **ON_CPU))
    assert plan.settings.recipe == "scratch" and plan.settings.weights is None
    assert plan.settings.model.num_classes == 10 and plan.settings.model.representation_dim is None
    assert set(plan.settings.evals) == {"test"} and plan.differences == []
    keys = [[side.read(index).key for index in range(len(side))] for side in (plan.train, plan.evals["test"])]
    assert not set(keys[0]) & set(keys[1]) and len(keys[0]) + len(keys[1]) == len(Digits())


def test_digits_are_never_mirrored_and_other_images_are():
    assert not plan_finetune(Asked(data="digits", **ON_CPU)).settings.augment.flip
    assert plan_pretrain(Asked(data="fractals", **ON_CPU)).settings.augment.flip


def test_options_win_over_the_recipe_and_set_over_options():
    asked = Asked(data="digits", lr=0.5, steps=40, batch_size=32, seed=7, changes=("train.lr=0.25",), **ON_CPU)
    train = plan_finetune(asked).settings.train
    assert (train.lr, train.steps, train.batch_size, train.seed) == (0.25, 40, 32, 7)
    assert (train.schedule.warmup_steps, train.eval_every, train.checkpoint_every) == (4, 4, 4)


def test_what_differs_from_the_recipe_is_said():
    plan = plan_finetune(Asked(data="digits", lr=0.5, changes=("model.dropout=0.1",), **ON_CPU))
    assert plan.differences == ["model.dropout: 0.0 -> 0.1", "train.lr: 0.001 -> 0.5"]


def test_epochs_are_passes_over_the_training_side():
    plan = plan_finetune(Asked(data="digits", epochs=2, batch_size=100, **ON_CPU))
    assert plan.settings.train.steps == -(-2 * len(plan.train) // 100)


def test_steps_and_batch_are_what_set_says_wherever_they_count():
    steps, batch = "train.steps=20", "train.batch_size=16"
    train = plan_finetune(Asked(data="digits", changes=(steps,), **ON_CPU)).settings.train
    assert (train.steps, train.schedule.warmup_steps, train.eval_every, train.checkpoint_every) == (20, 2, 2, 2)
    plan = plan_finetune(Asked(data="digits", epochs=2, changes=(batch,), **ON_CPU))
    assert plan.settings.train.steps == -(-2 * len(plan.train) // 16)
    both = plan_finetune(Asked(data="digits", epochs=2, changes=(steps, batch), **ON_CPU)).settings.train
    assert (both.steps, both.schedule.warmup_steps) == (20, 2)


def test_pretraining_keeps_the_layer_before_the_head():
    model = plan_pretrain(Asked(data="digits", model="Mini/4", image_size=16, **ON_CPU)).settings.model
    assert model.representation_dim == model.width


def test_masked_pretraining_has_no_head_and_no_layer_before_it():
    settings = plan_pretrain(Asked(data="digits", model="Mini/4", recipe="masked", image_size=16, **ON_CPU)).settings
    assert (settings.recipe, settings.model.num_classes, settings.model.representation_dim) == ("masked", None, None)
    assert settings.train.objective == MaskedPatches() and settings.train.lr == 2e-4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"changes": ("train.objective=MaskedPatches",)}, "no use for a head"),
        ({"recipe": "masked", "model": "BiT-R50x1"}, "needs patches to mask"),
        ({"recipe": "masked", "changes": ("train.objective=Softmax",)}, "use --recipe pretrain"),
        ({"recipe": "masked", "changes": ("train.objective.masked=0.95",)}, "use replaced 0.05 at most"),
    ],
)
def test_masking_what_cannot_be_masked_is_refused_before_anything_is_made(asked, words):
    with pytest.raises(SettingsError, match=words):
        plan_pretrain(Asked(data="digits", image_size=32, **asked, **ON_CPU))


def test_a_resnet_is_fine_tuned_by_the_rule_of_its_own_paper_unless_asked_otherwise(tmp_path):
    shape = ResNetSettings(image_size=(32, 32), depths=(1,), root_width=32, num_classes=7)
    save(build(shape), tmp_path / "model.safetensors")
    asked = Asked(data="digits", weights=tmp_path, **ON_CPU)
    by_rule, by_paper = plan_finetune(asked).settings, plan_finetune(replace(asked, recipe="transfer")).settings
    assert (by_rule.recipe, tuple(by_rule.model.image_size), by_rule.train.steps) == ("bit", (128, 128), 500)
    assert by_rule.train.schedule.boundaries == (200, 300, 400)
    assert (by_paper.recipe, tuple(by_paper.model.image_size)) == ("transfer", (32, 32))


PAPERS = {"data": "digits", "recipe": "imagenet/B32", "image_size": 32, **ON_CPU}


def test_the_epochs_of_a_recipe_are_passes_over_the_data_whatever_the_batch():
    no_warmup = ("train.schedule.warmup_steps=0",)
    plan = plan_pretrain(Asked(**PAPERS, changes=no_warmup))
    assert plan.settings.train.steps == -(-300 * len(plan.train) // 4096) and plan.settings.train.lr == 3e-3
    smaller = plan_pretrain(Asked(**PAPERS, batch_size=100, changes=no_warmup))
    assert smaller.settings.train.steps == 3 * len(plan.train)
    assert "train.batch_size: 4096 -> 100" in smaller.differences
    assert plan_pretrain(Asked(**PAPERS, steps=7, changes=no_warmup)).settings.train.steps == 7


def test_a_recipe_brings_its_model():
    plan = plan_pretrain(Asked(**PAPERS, changes=("train.schedule.warmup_steps=0",)))
    model = plan.settings.model
    assert (model.stem.cell, model.dropout, model.head_bias, model.representation_dim) == (
        Size(32, 32),
        0.1,
        -10.0,
        768,
    )
    augreg = Asked(**(PAPERS | {"recipe": "augreg/B32"}), changes=("train.schedule.warmup_steps=0",))
    assert plan_pretrain(augreg).settings.model.representation_dim is None


def test_a_warm_up_has_to_be_shorter_than_the_run():
    for steps, warmup in ((10, 10), (10, 11), (1, 1)):
        with pytest.raises(SettingsError, match="not shorter than the run"):
            plan_finetune(
                Asked(data="digits", steps=steps, changes=(f"train.schedule.warmup_steps={warmup}",), **ON_CPU)
            )
    longest = ("train.schedule.warmup_steps=9",)
    assert plan_finetune(Asked(data="digits", steps=10, changes=longest, **ON_CPU)).settings.train.steps == 10


def test_the_masked_recipe_of_the_paper_has_no_head_either():
    settings = plan_pretrain(Asked(data="digits", recipe="jft/B16-masked", image_size=32, **ON_CPU)).settings
    assert (settings.model.num_classes, settings.train.steps) == (None, 1_000_000)


def test_a_recipe_for_weights_without_weights_is_refused():
    with pytest.raises(SettingsError, match="--recipe: bit starts from weights"):
        plan_finetune(Asked(data="digits", recipe="bit", **ON_CPU))


def test_weights_bring_their_model_and_their_preparation(tmp_path):
    given = build_named("Mini/4", num_classes=7, image_size=16)
    given.image_spec = given.image_spec.model_copy(update={"interpolation": "bicubic"})
    save(given, tmp_path / "model.safetensors")
    plan = plan_finetune(Asked(data="digits", weights=tmp_path, image_size=24, **ON_CPU))
    assert plan.settings.recipe == "transfer" and plan.settings.weights.path.endswith("model.safetensors")
    assert tuple(plan.settings.model.image_size) == (24, 24) and plan.settings.model.num_classes == 10
    assert (plan.settings.image_spec.height, plan.settings.image_spec.interpolation) == (24, "bicubic")


def test_a_new_head_has_no_bias_from_the_weights(tmp_path):
    given = build(settings_for("Mini/4", 10, 16).model_copy(update={"head_bias": -10.0}), classes=Digits().classes)
    save(given, tmp_path / "model.safetensors")
    assert plan_finetune(Asked(data="digits", weights=tmp_path, **ON_CPU)).settings.model.head_bias == 0.0


def test_a_large_batch_is_divided_and_a_small_one_is_not():
    large = plan_finetune(Asked(data="digits", model="B/16", image_size=224, batch_size=512, **ON_CPU)).settings.train
    assert large.micro_batch_size is not None and 512 % large.micro_batch_size == 0
    assert plan_finetune(Asked(data="digits", batch_size=8, **ON_CPU)).settings.train.micro_batch_size is None


def test_a_batch_is_divided_for_the_processes_that_share_it_and_for_exact_bits():
    asked = Asked(data="digits", batch_size=64, **ON_CPU)
    assert plan_finetune(replace(asked, world=4)).settings.train.pieces == 4
    exact = replace(asked, changes=("train.exact=true",))
    assert {plan_finetune(replace(exact, world=world)).settings.train.pieces for world in (1, 2, 4, 8)} == {8}
    with pytest.raises(SettingsError, match=r"--batch-size: 64 images .* use 63 or 66"):
        plan_finetune(replace(asked, world=3))


def test_a_run_keeps_the_pieces_that_it_was_started_with(tmp_path):
    asked = Asked(data="digits", batch_size=64, **ON_CPU)
    stored = plan_finetune(replace(asked, world=4)).settings
    (tmp_path / "config.json").write_text(stored.model_dump_json())
    assert plan_finetune(divided_as(asked, tmp_path)).settings == stored
    own = divided_as(replace(asked, changes=("train.micro_batch_size=8",)), tmp_path)
    assert plan_finetune(own).settings.train.pieces == 8
    assert divided_as(asked, tmp_path / "nowhere") == asked
    other = replace(asked, batch_size=60)
    assert plan_finetune(divided_as(other, tmp_path)).settings.train.batch_size == 60


def test_the_evaluation_part_of_a_ready_split_is_its_test():
    assert evaluation_source("digits") == Digits()


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(SettingsError, match="--device"):
        choose_device(name)


def test_a_device_is_found():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


def test_few_images_and_no_weights_are_advised_against(tmp_path):
    (advice,) = plan_finetune(Asked(data="digits", **ON_CPU)).advice
    assert advice.startswith("161 images a class are few")
    save(build_named("Mini/4", num_classes=7, image_size=16), tmp_path / "model.safetensors")
    assert plan_finetune(Asked(data="digits", weights=tmp_path, **ON_CPU)).advice == []
    many = plan_finetune(Asked(data="digits", **ON_CPU))
    assert replace(many, train=Fractals(num_classes=10, images_per_class=1000)).advice == []


def test_a_size_and_a_setting_that_contradict_each_other_are_refused():
    with pytest.raises(SettingsError, match="--image-size"):
        plan_finetune(Asked(data="digits", changes=("image_spec.height=20",), **ON_CPU))


def test_evaluating_on_training_images_is_said_in_one_line(caplog):
    plan_finetune(Asked(data="digits", eval_data="digits", **ON_CPU))
    (line,) = caplog.messages
    assert line.startswith("--eval-data: 1,797 of 1,797 images to evaluate on") and "\n" not in line
