"""Table 5 (appendix D.1): ViTs pre-trained on the small, the medium and the large set, on every task."""

from functools import partial

from vitlab.studies.published import read_table
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.transfer import Transfer, networks_of
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world


def compared(world: World) -> list[Transfer]:
    """Return every ViT on every set, the smallest set and the cheapest ViT first."""
    return [Transfer(world, network, data, world.seeds) for data in world.sets for network in networks_of(world, "ViT")]


def edition(world: World) -> Edition:
    """Return the study in `world`: every ViT is pre-trained on every set and fine-tuned on every task."""
    grid = {label: piece for model in compared(world) for label, piece in model.grid().items()}
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the table, the paper's as its own, and whether large sets help large models most."""
    models, networks = compared(world), networks_of(world, "ViT")
    rows = [
        [
            f"{task}, after {world.titles[data]}",
            *(percent(model.top1(results, task)) for model in models if model.data == data),
        ]
        for data in world.sets
        for task in world.tasks
    ]
    note = "Top-1 in percent after fine-tuning, mean and sample deviation over seeds; models that cost more stand to the right."
    ours = Table("Accuracy by task and what was pre-trained on", [["task", *networks], *rows], note)
    return Sheet([ours, _theirs()], [], finding(world, results))


def _theirs() -> Table:
    lines = read_table("table5")
    models = [name for name in lines[0] if name.startswith("ViT-")]
    rows = [[f"{line['transfer']}, after {line['pretraining']}", *(line[model] for model in models)] for line in lines]
    return Table(
        "In the paper", [["task", *models], *rows], "Its tasks, sets and models; nothing here was measured by vitlab."
    )


def finding(world: World, results: Results) -> Finding:
    """Return whether the dearest ViT gains from the largest set, and gains more from it than the cheapest."""
    models = compared(world)
    averages = {(model.network, model.data): model.average(results) for model in models}
    known = {key: found for key, found in averages.items() if found is not None}
    if len(known) < len(models):
        return Finding(None, f"{len(known)} of {len(models)} models are measured.")
    networks, (least, *_, most) = networks_of(world, "ViT"), world.sets
    spread = typical_deviation(list(known.values()))
    small, large = (known[network, most].mean - known[network, least].mean for network in (networks[0], networks[-1]))
    words = (
        f"From the small set to the large one, the average over tasks moves by {100 * large:+.1f} points with {networks[-1]} and "
        f"{100 * small:+.1f} with {networks[0]}; models vary by {100 * spread:.1f} over seeds."
    )
    return Finding(large > spread and large - small > spread, words)


STUDY = Study(
    name="table5",
    title="Transfer after pre-training on three sets",
    question="How much does a larger set to pre-train on help, and which models?",
    found="After ImageNet large models are no better than smaller ones; it takes the larger sets to see what they can do.",
    source="Table 5, appendix D.1",
    editions=in_every_world(edition),
    minutes=7,
)
