"""Figure 2 (section 4.2): VTAB by groups of tasks, for a ViT and a ResNet that are pre-trained on the same large set."""

from collections.abc import Mapping
from functools import partial

from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, columns
from vitlab.studies.bench import CONTESTS, Entry, bench, by_group, tasks_of
from vitlab.studies.findings import Figure
from vitlab.studies.rivals import lead
from vitlab.studies.spread import percent
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

CLAIMED = ("natural", "structured")
"""The groups in which the paper's ViT is ahead; in the other the two are similar."""

Means = Mapping[Entry, Mapping[str, OverRuns | None]]


def edition(world: World) -> Edition:
    """Return the study in `world`: it has the pieces of table 9."""
    return Edition(world.words, bench(world), partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the bars and their numbers, and whether the ViT is ahead of the ResNet where the paper's is."""
    means = {entry: by_group(world, results, entry) for entry in CONTESTS[world.scale].entries()}
    groups, tasks = next(iter(means.values())), tasks_of(world)
    counts = {group: sum(group in ("all", each) for each in tasks.values()) for group in groups}
    heading = ["", *(f"{group} ({counts[group]})" for group in groups)]
    rows = [[entry.title(world), *map(percent, found.values())] for entry, found in means.items()]
    note = "Mean top-1 in percent over the tasks, whose number is in brackets, and its sample deviation over seeds."
    return Sheet([Table("Means by group", [heading, *rows], note)], [_figure(world, means)], _finding(world, means))


def _figure(world: World, means: Means) -> Figure:
    bars = {
        entry.title(world): {
            group: Point(0, 100 * found.mean, None if found.std is None else 100 * found.std)
            for group, found in groups.items()
            if found is not None
        }
        for entry, groups in means.items()
    }
    text = f"The tasks are {', '.join(f'{task} ({group})' for task, group in tasks_of(world).items())}."
    return Figure("VTAB's groups of tasks", text, columns(bars, "mean top-1 [%]"))


def _finding(world: World, means: Means) -> Finding:
    vit, resnet = CONTESTS[world.scale].vit, CONTESTS[world.scale].resnet
    leads = {group: lead(found, means[resnet][group]) for group, found in means[vit].items()}
    known = {group: found for group, found in leads.items() if found is not None}
    if len(known) < len(leads):
        return Finding(None, f"Not both of {vit.network} and {resnet.network} are measured on every task.")
    words = f"Compared with {resnet.network}, {vit.network} is " + ", ".join(
        f"{found.words()} on {'average' if group == 'all' else f'{group} tasks'}" for group, found in known.items()
    )
    claimed = [known[group] for group in CLAIMED]
    if any(found.mean < -found.deviation for found in claimed):
        return Finding(False, words + ".")
    return Finding(True if all(found.mean > found.deviation for found in claimed) else None, words + ".")


STUDY = Study(
    name="figure2",
    title="VTAB by groups of tasks",
    question="On which kinds of tasks is a ViT better than a ResNet that is pre-trained on the same images?",
    found=(
        "ViT-H/14 outperforms BiT-R152x4, and other methods, on VTAB's natural and structured tasks; on the specialised ones the "
        "two are similar."
    ),
    source="Figure 2, section 4.2",
    editions=in_every_world(edition),
    minutes=3,
)
