"""The options that verbs share, each documented once."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from vitlab.studies.evaluation import Reading


class OnBadImage(StrEnum):
    """What to do about images that cannot be decoded."""

    FAIL = "fail"
    SKIP = "skip"


class WhichSuite(StrEnum):
    """A collection of measurements."""

    PAPER = "paper"


class HowDecoded(StrEnum):
    """What the pixels of a file are."""

    STANDARD = "standard"
    PIL_COMPAT = "pil-compat"


class By(StrEnum):
    """How a rate is chosen and a result is measured."""

    PAPER = "paper"


class HowPrecise(StrEnum):
    """What products are computed in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


Data = Annotated[
    str | None,
    typer.Argument(
        help="A folder of class folders (with train/val folders or without), parquet files, a .csv or .jsonl table, "
        "what `vitlab data pack` made (also at s3:// and other addresses), webdataset's .tar files, hf://datasets/owner/name, "
        "'digits' or 'fractals'."
    ),
]
Described = Annotated[str, typer.Argument(metavar="DATA", help="A data set, as for finetune.")]
Readers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes that read; 0 for none but this. Default: one a core.")
]
Decoding = Annotated[
    HowDecoded | None,
    typer.Option(
        help="The pixels of a file: as viewers show them (upright, sRGB, over white), or as Pillow alone gives them, which is how "
        "most published accuracies were measured. Default: as the model says."
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(min=1, help="Refuse larger images before they are decoded. Default: 64 million pixels."),
]
EvalData = Annotated[str | None, typer.Option("--eval-data", help="Evaluate on this instead of a part of DATA.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; it must not exist. Default: runs/<recipe>-<data>.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="A name from `vitlab models`: S/16 is a size and a patch size, R50+B/32 a hybrid, BiT-R50x1 a ResNet."
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Start from these weights: a released .npz, a .safetensors, a run folder, a name from "
        "`vitlab models --weights`, hf://owner/name, or an https:// address."
    ),
]
Weighted = Annotated[str, typer.Argument(help="A run folder, a file of weights, or a name as for finetune --weights.")]
Transfer = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A name from `vitlab recipes`, as cifar10, transfer or bit. Default: that of the model's own paper, of any length.",
    ),
]
Pretraining = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="A name from `vitlab recipes`, as jft/L16; masked learns without labels. Default: pretrain, for any model.",
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Pixels: 224, or 384x640 (height x width). Default: that of --recipe, else that of the weights; "
        "the paper fine-tunes at 384."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Updates to make.")]
Epochs = Annotated[float | None, typer.Option(min=0, help="Passes over the data, instead of --steps.")]
Lr = Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")]
Rates = Annotated[
    list[float] | None,
    typer.Option(min=0, help="Peak learning rate; with --protocol several may be given, each with a --lr."),
]
Protocol = Annotated[
    By | None,
    typer.Option(
        help="As the paper measures: the rate chosen among the recipe's on images held out, then trained on all, with some seeds."
    ),
]
Seeds = Annotated[int | None, typer.Option(min=1, help="With --protocol: runs on all images. Default: 3.")]
BatchSize = Annotated[
    str | None,
    typer.Option(
        metavar="INTEGER|auto",
        help="Images an update, whatever the hardware. 'auto': the recipe's, in the largest pieces that fit the memory.",
    ),
]
Precision = Annotated[
    HowPrecise,
    typer.Option(help="What products are computed in; weights are float32. Default: bfloat16 on a GPU that has it."),
]
Exact = Annotated[
    bool,
    typer.Option("--exact", help="The same bits on 1, 2, 4, 8 processes, and when resumed on another number of them."),
]
Sharded = Annotated[
    bool,
    typer.Option("--sharded", help="Each process keeps a part of every tensor: for models that do not fit (FSDP2)."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the layers with torch.compile; starts slower.")]
Remat = Annotated[
    bool,
    typer.Option("--remat", help="Compute each layer again for its gradient: far less memory, a third more work."),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Everything random follows from it.  [default: 0]", show_default=False)
]
EvalEvery = Annotated[int | None, typer.Option(min=1, help="Steps between evaluations. Default: a tenth of the run.")]
CheckpointEvery = Annotated[
    int | None, typer.Option(min=1, help="Steps between checkpoints. Default: a tenth of the run.")
]
BadImages = Annotated[
    OnBadImage, typer.Option("--on-bad-image", help="Stop and list them all, or skip and count them.")
]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that read ahead. Default: half of the cores.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1, help="Train with so many processes on this machine, one a GPU; over several machines use torchrun."
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change any setting: --set train.optimizer.weight_decay=0.03")
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out; DATA and options may be left out. With DATA it is started where there is none yet: one "
        "command that a scheduler can give every time.",
    ),
]
Override = Annotated[
    bool, typer.Option("--override-resume", help="Resume although settings differ; those of before are kept beside.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")]
WandB = Annotated[
    str | None, typer.Option("--wandb", metavar="PROJECT", help="Send metrics to this Weights & Biases project too.")
]
ListWeights = Annotated[bool, typer.Option("--weights", help="List the published weights instead.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def to_reading(
    decoding: HowDecoded | None,
    max_pixels: int | None,
    on_bad_image: OnBadImage,
    resize: int | None = None,
    missing_images: OnBadImage = OnBadImage.FAIL,
) -> "Reading":
    """Return how images are read, of the options that say it."""
    from vitlab.studies.evaluation import Reading

    how = None if decoding is None else decoding.value
    skip_bad, skip_missing = on_bad_image == OnBadImage.SKIP, missing_images == OnBadImage.SKIP
    return Reading(how, max_pixels, resize, skip_bad, skip_missing)


def parse_size(text: str | None, flag: str = "--image-size") -> int | tuple[int, int] | None:
    """Return "224" as 224, "384x640" as (384, 640), None as None.

    Raises:
        SettingsError: it is neither.
    """
    from vitlab.errors import SettingsError

    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise SettingsError(flag, f"'{text}' is no size", "write 224, or 384x640 for height x width")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def parse_batch_size(text: str | None) -> "int | Literal['auto'] | None":
    """Return "256" as 256, and "auto" and None as they are.

    Raises:
        SettingsError: it is none of them.
    """
    from vitlab.errors import SettingsError

    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not (text.isdecimal() and int(text)):
        raise SettingsError("--batch-size", f"'{text}' is no number of images", "write 256, or auto")
    return int(text)


def parse_counts(text: str, flag: str) -> tuple[int, ...]:
    """Return "10,1,5" as (1, 5, 10).

    Raises:
        SettingsError: it holds something else than whole numbers above zero.
    """
    from vitlab.errors import SettingsError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 and int(word) for word in words):
        raise SettingsError(flag, f"'{text}' is no list of numbers above zero", "write 5, or 1,5,10")
    return tuple(sorted({int(word) for word in words}))


def parse_bytes(text: str, flag: str) -> int:
    """Return "256MB" as 256,000,000 and "1GiB" as 2³⁰.

    Raises:
        SettingsError: it is no number of bytes above zero.
    """
    import re

    from vitlab.errors import SettingsError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip(), re.IGNORECASE)
    scale = (1024 if found[3] else 1000) ** " kmgt".index(found[2].lower() or " ") if found else 0
    size = int(float(found[1]) * scale) if found else 0
    if size < 1:
        raise SettingsError(flag, f"'{text}' is no size", "write 256MB, or 1GB")
    return size


def parse_count(text: str | None, flag: str) -> float | None:
    """Return "303M" as 303,000,000, "1,281,167" and "14e6" as they say, None as None.

    Raises:
        SettingsError: it is no number above zero.
    """
    import re

    from vitlab.errors import SettingsError

    if text is None:
        return None
    plain = text.strip().lower().replace(",", "").replace("_", "")
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?(?:e\d{1,2})?)\s*([kmb]?)", plain)
    number = float(found[1]) * 1000 ** " kmb".index(found[2] or " ") if found else 0.0
    if not number:
        raise SettingsError(flag, f"'{text}' is no number of images", "write 303M, or 1281167")
    return number
