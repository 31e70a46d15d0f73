"""Masked patches against labels and no pre-training: what is trained, that it can be fine-tuned, and what the finding says."""

import io

from rich.console import Console

from vitlab.studies import masked_patches
from vitlab.studies.ablation import task_of
from vitlab.studies.cell import Studio
from vitlab.studies.conduct import PIECES, conduct, open_folder, results
from vitlab.studies.masked_patches import ARMS, FEWER, MASKED, SCRATCH, SUPERVISED
from vitlab.studies.study import Edition, Results
from vitlab.studies.work import Training
from vitlab.studies.world_miniature import MINIATURE
from vitlab.train.masked import MaskedPatches

GRID = masked_patches.STUDY.at("miniature").grid


def starts():
    return {arm: GRID[f"{arm}, seed 0"].start for arm in ARMS}


def test_every_arm_is_trained_alike_before_it_is_fine_tuned():
    trainings = [start.settings.train for start in starts().values()]
    assert {(train.steps, train.batch_size, train.lr) for train in trainings} == {(1000, 64, 3e-3)}
    assert starts()[SUPERVISED] == MINIATURE.pretrained()
    assert starts()[SCRATCH].settings.train_data == MINIATURE.tasks[task_of(MINIATURE)]().train
    assert {starts()[arm].settings.train_data for arm in (MASKED, FEWER)} == {MINIATURE.sets["large"]()}
    objectives = [starts()[arm].settings.train.objective for arm in (MASKED, FEWER)]
    assert objectives == [MaskedPatches(corrupted=0.5), MaskedPatches(corrupted=0.15)]
    assert starts()[MASKED].settings.model.num_classes is None


def test_a_model_of_masked_patches_is_fine_tuned(tmp_path):
    short = {"steps": 2, "batch_size": 4, "checkpoint_every": None}
    tuned = GRID[f"{MASKED}, seed 0"]
    first, second = (
        Training(each.name, each.settings.model_copy(update={"train": each.settings.train.model_copy(update=short)}))
        for each in (tuned.start, tuned)
    )
    second = Training(second.name, second.settings, start=first)
    edition = Edition("", {"tuned": second}, lambda found: found)
    open_folder(tmp_path, "miniature")
    conduct([edition], tmp_path, Studio(Console(file=io.StringIO()), lambda line: None), lambda piece: None)
    assert results(edition, tmp_path)["tuned"]["test/count"] == len(MINIATURE.tasks[task_of(MINIATURE)]().test)
    assert first.folder(tmp_path / PIECES).exists()


def told(**top1):
    by_label = {f"{arm}, seed {seed}": top1[arm.split()[0]] + 0.01 * seed for arm in ARMS for seed in (0, 1)}
    given = {label: {"test/top1": by_label[label]} for label in GRID}
    return masked_patches.sheet(MINIATURE, Results(given)).finding.agrees


def test_masked_patches_lie_between_nothing_and_labels():
    assert told(scratch=0.5, masked=0.6, supervised=0.7) is True
    assert told(scratch=0.6, masked=0.5, supervised=0.7) is False
    assert told(scratch=0.5, masked=0.7, supervised=0.6) is False
    assert told(scratch=0.5, masked=0.502, supervised=0.6) is False  # within the deviation over seeds
    partial = masked_patches.sheet(MINIATURE, Results(dict.fromkeys(GRID)))
    assert partial.finding.agrees is None


def test_the_paper_is_quoted():
    assert masked_patches.paper() == {SCRATCH: 77.91, MASKED: 79.9, SUPERVISED: 84.15}
