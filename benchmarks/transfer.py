"""What pre-training on CIFAR-10 is worth on other images: transfer by the paper's protocol and few-shot, against from scratch.

    python benchmarks/transfer.py WEIGHTS OUT STEPS DATA [DATA ...]

WEIGHTS are of Mini/4, as `benchmarks/cifar10.py` leaves them in OUT/vitlab. For each data set: fine-tuning by the protocol, the
same network from scratch by the same protocol with the rates of Adam, and linear heads on the features of both.
Prints a table; what is finished in OUT is not run again.
"""

import sys
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console

from vitlab.evals.interval import wilson_interval
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.studies.cell import Studio
from vitlab.studies.fewshot import Measured, Protocol, measure_data, open_sides
from vitlab.studies.plan import Asked
from vitlab.studies.protocol import Found, is_protocol, plan_protocol, run_protocol
from vitlab.weights.load import load
from vitlab.weights.save import save

MODEL, SIZE, BATCH, SEEDS, SHOTS = "Mini/4", 32, 128, 3, (5, 10)
RATES = {"pre-trained": (0.003, 0.01, 0.03), "from scratch": (0.0003, 0.001, 0.003)}
"""Table 4's upper three for SGD from weights; for Adam from scratch, around the rate that the weights were trained with."""


def main(weights: Path, out: Path, steps: int, data: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / "fresh.safetensors"
    if not fresh.exists():
        model = build(settings_for(MODEL, 10, SIZE))
        model.image_spec = load(weights).image_spec
        save(model, fresh)
    console = Console(stderr=True)
    studio = Studio(console, lambda line: console.print(line, highlight=False, markup=False))
    heads = " | ".join(f"{shots} images a class" for shots in SHOTS)
    print(f"| data | weights | {steps} steps by the protocol | {heads} |\n| --- | --- | --- |{' --- |' * len(SHOTS)}")
    for name in data:
        for kind, file in {"pre-trained": weights, "from scratch": fresh}.items():
            found = transfer(name, weights if kind == "pre-trained" else None, out, kind, steps, studio)
            few = measure_data(str(file), open_sides(name), Protocol(shots=SHOTS, seeds=SEEDS), workers=0)
            print(
                f"| {name} | {kind} | {told(found)} | {' | '.join(shown(few, shots) for shots in SHOTS)} |", flush=True
            )


def transfer(name: str, weights: Path | None, out: Path, kind: str, steps: int, studio: Studio) -> Found:
    folder = out / f"{Path(name).name}-{kind.replace(' ', '-')}"
    asked = Asked(
        data=name, weights=weights, model=None if weights else MODEL, image_size=SIZE, steps=steps, batch_size=BATCH,
        workers=1, device="cpu",
    )  # fmt: skip
    _, protocol = plan_protocol(asked, RATES[kind], SEEDS, "benchmarks/transfer.py")
    return run_protocol(protocol, folder, studio, resume=is_protocol(folder))


def told(found: Found) -> str:
    scores = [outcome.score for outcome in found.finals.values()]
    images = round(next(iter(found.finals.values())).of("count"))
    low, high = wilson_interval(mean(scores), images)
    return f"{100 * mean(scores):.1f} ± {100 * stdev(scores):.1f} % ({100 * low:.1f}–{100 * high:.1f}; {found.chosen})"


def shown(few: Measured, shots: int) -> str:
    scores = few.accuracies[shots][:, few.best(shots)]
    return f"{100 * scores.mean():.1f} ± {100 * scores.std(ddof=1):.1f} %"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
