"""The recipes on the command line: listed, carried out, changed, and refused where they do not fit."""

import json

import pytest

from tests.end_to_end.conftest import TINY, vitlab

SMALL = ("--out", "out", "--epochs", 2, *TINY)


def test_every_recipe_is_listed_and_shown_in_full(within):
    from vitlab.studies.recipe import recipes

    listed = within("recipes")
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert listed.code == 0 and set(recipes()) <= set(names) and len(names) == len(recipes()) + 2
    shown = within("recipes", "jft/L16")
    for words in (
        "7 epochs: 517,823 steps",
        "0.0004",
        "Linear to 1e-05",
        "10,000 steps of warm-up",
        "table 3",
        "not stated",
        "86.30",
    ):
        assert words in shown.out, words


def test_recipes_are_there_for_programs_too(within):
    every = json.loads(within("recipes", "--json").out)
    one = json.loads(within("recipes", "cifar10", "--json").out)
    assert one in every and one["train"]["steps"] == 10_000 and one["lrs"] == [0.001, 0.003, 0.01, 0.03]
    assert {"pretrained": "jft/H14", "finetuned": "cifar10", "on": "CIFAR-10", "top1": 99.5} in [
        {name: row[name] for name in ("pretrained", "finetuned", "on", "top1")}
        for row in one["expected"]
        if row["source"] == "table 6"
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("pretrain", "digits", "--recipe", "jft/L61"), ["--recipe", "no recipe 'jft/L61'", "did you mean 'jft/L16'?"]),
        (("pretrain", "digits", "--recipe", "zzz"), ["no recipe 'zzz'", "vitlab recipes"]),
        (("recipes", "cifar01"), ["no recipe 'cifar01'", "did you mean 'cifar10'?"]),
        (("pretrain", "digits", "--recipe", "cifar10"), ["cifar10 is for `vitlab finetune`", "vitlab recipes"]),
        (("finetune", "digits", "--recipe", "jft/L16"), ["jft/L16 is for `vitlab pretrain`"]),
        (("finetune", "digits", "--recipe", "cifar10"), ["cifar10 starts from weights", "give --weights"]),
        (
            ("pretrain", "digits", "--recipe", "jft/L16", "--model", "B/16"),
            ["--model B/16", "recipe jft/L16 is for L/16", "choose jft/B16"],
        ),
        (("pretrain", "digits", "--recipe", "jft/R50x1", "--model", "ResNet-R50x1"), ["is for BiT-R50x1"]),
        (
            ("pretrain", "digits", "--recipe", "jft/B32", "--steps", 10_000),
            ["warm-up of 10,000 steps", "which has 10,000", "--set train.schedule.warmup_steps=1000"],
        ),
        (("pretrain", "digits", "--recipe", "jft/B32", "--epochs", 3), ["warm-up of 10,000 steps", "which has 2 "]),
        (
            ("pretrain", "digits", "--recipe", "jft/B32", "--set", "train.schedule.warmup_steps=90", "--steps", 90),
            ["90 steps"],
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(refused, command, words):
    refused(*command, words=words)


def test_a_recipe_for_other_weights_is_refused(refused, trained):
    start = ("finetune", "digits", "--out", "out", "--weights", trained, "--recipe")
    refused(*start, "imagenet-512", words=["--weights", "recipe imagenet-512 is for L/16 and H/14", "choose imagenet"])
    refused(*start, "scratch", words=["scratch starts from nothing", "leave out --weights"])
    refused(*start, "cifar10", "--steps", 500, words=["warm-up of 500 steps", "--set train.schedule.warmup_steps=50"])


def test_a_refusal_is_one_line_and_exit_code_2():
    done = vitlab("pretrain", "digits", "--recipe", "jft/L16", "--model", "B/16")
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1, done.err


def test_a_recipe_of_the_paper_is_carried_out_and_what_was_changed_is_said(within, tmp_path):
    changes = ("--set", "train.schedule.warmup_steps=1", "--image-size", 32, "--batch-size", 1024)
    done = within("pretrain", "digits", "--recipe", "jft/B32", *SMALL, *changes)
    assert done.code == 0, done.err
    said = [
        "recipe   jft/B32",
        "model.image_size: 224×224 -> 32×32",
        "train.batch_size: 4096 -> 1024",
        "warmup_steps: 10000 -> 1",
    ]
    assert [words for words in said if words not in done.err] == [], done.err
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["recipe"], config["train"]["lr"], config["train"]["steps"]) == ("jft/B32", 8e-4, 4)
    assert (config["model"]["head_bias"], config["train"]["objective"]["type"]) == (-10.0, "Sigmoid")
    assert config["augment"]["flip"] is False  # digits


def test_a_batch_larger_than_the_data_is_said(within, trained, photos, tmp_path):
    change = ("--set", "train.schedule.warmup_steps=0")
    done = within(
        "finetune", photos, "--weights", trained, "--recipe", "pets", "--steps", 2, *change, *TINY, "--batch-size", 64
    )
    assert done.code == 0, done.err
    assert "advice   a batch of 64 shows the 21 training images more than once in each update" in done.err
    assert (tmp_path / "runs" / "pets-photos" / "model.safetensors").exists()
