"""Table 8 (appendix D.4): which kind of position embedding, and where it is added."""

from collections.abc import Mapping
from functools import partial

from vitlab.evals.interval import OverRuns, over_runs
from vitlab.nn.position import Learned1D, Learned2D, NoPosition, Place, Position, Relative
from vitlab.studies.ablation import task_of
from vitlab.studies.published import read_table
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.work import Piece
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

PLACES: dict[str, Place] = {"stem": "stem", "every_layer": "layers", "every_layer_shared": "shared"}
"""The columns of the table, and our names of where positions are added."""
TITLES = {"stem": "after the stem", "every_layer": "in every layer", "every_layer_shared": "in every layer, shared"}
KINDS: Mapping[str, Mapping[str, Position]] = {
    "none": {"stem": NoPosition()},
    "1d": {column: Learned1D(place=place) for column, place in PLACES.items()},
    "2d": {column: Learned2D(place=place) for column, place in PLACES.items()},
    "relative": {"stem": Relative()},
}
"""What is compared, by row and column of the table."""


def paper() -> dict[str, dict[str, float]]:
    """Return the table of the paper, as shares, by row and column."""
    rows = read_table("table8")
    return {row["position_embedding"]: {column: float(row[column]) for column in PLACES if row[column]} for row in rows}


def edition(world: World) -> Edition:
    """Return the study in `world`: every kind is pre-trained, and judged by linear heads on frozen features."""
    grid: dict[str, Piece] = {}
    usual = world.networks[world.usual]
    for row, columns in KINDS.items():
        for column, position in columns.items():
            for seed in world.seeds:
                model = usual.model_copy(update={"position": position})
                trained = world.variant(f"position-{row}-{PLACES[column]}", model, seed=seed)
                grid[_label(row, column, seed)] = world.heads(trained, task=task_of(world))
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the table with the paper's beside it, and whether positions matter while their kind does not."""
    ours = {
        row: {column: results.over([_label(row, column, seed) for seed in world.seeds], "top1") for column in columns}
        for row, columns in KINDS.items()
    }
    published = paper()
    heading = ["position", *(title for column in PLACES for title in (TITLES[column], "in the paper"))]
    rows = [
        [
            row,
            *(cell for column in PLACES for cell in (percent(ours[row].get(column)), _percent(published[row], column))),
        ]
        for row in KINDS
    ]
    note = (
        f"Top-1 in percent of linear heads on {world.shots} images a class of {task_of(world)}, mean and deviation over seeds. "
        "The paper's are of ImageNet, after JFT: compare the order."
    )
    return Sheet([Table("Linear few-shot accuracy", [heading, *rows], note)], [], _finding(ours))


def _finding(ours: Mapping[str, Mapping[str, OverRuns | None]]) -> Finding:
    """Without positions it is worse than with them, by more than kinds deviate from each other and runs over seeds."""
    none = ours["none"]["stem"]
    kinds = [found for row, columns in ours.items() if row != "none" for found in columns.values()]
    known = [found for found in kinds if found is not None]
    if none is None or len(known) < len(kinds):
        return Finding(None, "Not every kind could be measured.")
    over_kinds = over_runs([found.mean for found in known])
    gap, between, noise = over_kinds.mean - none.mean, over_kinds.std or 0.0, typical_deviation([none, *known])
    words = (
        f"Without positions top-1 is {100 * none.mean:.1f} %, {100 * gap:.1f} points below the mean of the others, "
        f"which deviate by {100 * between:.1f} from each other and by {100 * noise:.1f} over seeds."
    )
    return Finding(gap > max(between, noise), words)


def _label(row: str, column: str, seed: int) -> str:
    return f"{row}, {column}, seed {seed}"


def _percent(columns: Mapping[str, float], column: str) -> str:
    return f"{100 * columns[column]:.2f}" if column in columns else ""


STUDY = Study(
    name="table8",
    title="Position embeddings",
    question="Does it matter how a ViT is told where its patches are?",
    found="Without positions it is clearly worse; how they are encoded, and where they are added, makes little difference.",
    source="Table 8, appendix D.4",
    editions=in_every_world(edition),
    minutes=5,
)
