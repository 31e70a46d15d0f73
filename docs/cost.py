"""Write docs/cost.md, what the models of table 6 cost beside what the paper printed: `python docs/cost.py`."""

from pathlib import Path

from vitlab.studies.table6 import table6

TARGET = Path(__file__).with_name("cost.md")
HEAD = """# What the models cost

Written by `python docs/cost.py`; do not edit.

`vitlab cost` prints this table, `vitlab cost L/16` one model by its parts. The paper's table 6 states the compute of each
pre-training on JFT-300M. `vitlab.cost` arrives at it from the models themselves:

    exaFLOPs = 3 (forward, and backward twice as much) · 2 (multiply, add) · MACs · 303 million images · epochs / 10¹⁸

MACs are the multiply-accumulates of one image of 224 pixels: matrix products, convolutions without the taps that fall on padding,
and the products of attention, for every token in every block. As in pre-training, a ViT has its representation layer (a hidden
layer of its own width before the head), and every model a head of 18,291 classes; both are in the parameters too.

"""


def page() -> str:
    """Return the text of docs/cost.md."""
    found = table6()
    (heading, *rows), (note, within) = found.tables()[0], found.lines()
    lines = [heading, ["---", *("---:" for _ in heading[1:])], *rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"{HEAD}{table}\n{note}\n{within}\n".replace("*", "\\*")


if __name__ == "__main__":
    TARGET.write_text(page())
