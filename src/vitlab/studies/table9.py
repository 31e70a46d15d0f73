"""Table 9 (appendix D.10): every task of VTAB-1k for ViTs after large and medium pre-training sets."""

from functools import partial

from vitlab.studies.bench import CONTESTS, GROUPS, IMAGES, bench, by_group, scores, tasks_of, titles_of
from vitlab.studies.rivals import lead
from vitlab.studies.spread import percent
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.vtab import all_tasks, table9
from vitlab.studies.vtab_page import group_means
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

MEANS = {"all": "mean", **{group: f"mean, {group}" for group in GROUPS}}


def edition(world: World) -> Edition:
    """Return the study in `world`: every entry learns every task from few images."""
    return Edition(world.words, bench(world), partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return ours and the paper's table, and whether the larger set is better on average over the tasks."""
    return Sheet([_ours(world, results), _published()], [], _finding(world, results))


def _ours(world: World, results: Results) -> Table:
    entries, titles = CONTESTS[world.scale].entries(), titles_of(world)
    rows = [["task", "group", *(entry.title(world) for entry in entries)]]
    for task, group in tasks_of(world).items():
        rows.append([titles[task], group, *(percent(scores(world, results, entry, [task])) for entry in entries)])
    means = [by_group(world, results, entry) for entry in entries]
    rows += [[title, "", *(percent(each[group]) for each in means)] for group, title in MEANS.items()]
    how = (
        "fine-tuned on 1,000 images"
        if world.scale == "paper"
        else f"by linear heads on frozen features of {IMAGES} images, the mean of several draws of them"
    )
    note = f"Top-1 in percent, {how}; mean and sample deviation over seeds of the pre-training."
    return Table("Accuracy on every task", rows, note)


def _published() -> Table:
    models = [name for name in table9()[0] if name not in ("task", "title")]
    rows = [["task", "group", *models]]
    rows += [[row["title"], all_tasks()[row["task"]], *(row[model] for model in models)] for row in table9()]
    means = [group_means({row["task"]: float(row[model]) for row in table9()}) for model in models]
    rows += [[title, "", *(f"{each[group] or 0:.1f}" for each in means)] for group, title in MEANS.items()]
    note = "Top-1 in percent after fine-tuning on the 1,000 images of each task of VTAB-1k."
    return Table("In the paper", rows, note)


def _finding(world: World, results: Results) -> Finding:
    large, medium = CONTESTS[world.scale].large, CONTESTS[world.scale].medium
    tasks = list(tasks_of(world))
    ahead = lead(scores(world, results, large, tasks), scores(world, results, medium, tasks))
    if ahead is None:
        return Finding(None, f"{large.network} is not measured on every task after both sets.")
    found = {task: [scores(world, results, each, [task]) for each in (large, medium)] for task in tasks}
    better = [task for task, (first, second) in found.items() if first and second and first.mean > second.mean]
    words = (
        f"On average over {len(tasks)} tasks {large.network} after {world.titles[large.data]} is "
        f"{ahead.words('the one after ' + world.titles[medium.data])}; it is better on {len(better)} of them."
    )
    return Finding(None if abs(ahead.mean) <= ahead.deviation else ahead.mean > 0, words)


STUDY = Study(
    name="table9",
    title="VTAB, task by task",
    question="On which tasks of few images does a larger pre-training set help?",
    found=(
        "On average over VTAB's 19 tasks of 1,000 images ViT-L/16 reaches 76.3 % after JFT-300M and 72.7 % after ImageNet-21k; it "
        "is better on 16 of them. ViT-H/14 reaches 77.6 %."
    ),
    source="Table 9, appendix D.10",
    editions=in_every_world(edition),
    minutes=3,
)
