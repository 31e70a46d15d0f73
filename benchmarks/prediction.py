"""Predictions of image files, written to parquet, against the predictor on images that are ready in memory: 1 is no wait at all."""

import tempfile
from pathlib import Path

from peers_input import generated
from timing import Row, compare

from vitlab import files
from vitlab.data.folder import find_images
from vitlab.models.catalog import build_named
from vitlab.serve.predict import Predictor
from vitlab.studies.prediction import Wanted, predict_to_file
from vitlab.weights.save import save

LIMIT = "the predictor alone (the limit is 1)"


def measure(photos: int = 1024, rounds: int = 3) -> list[Row]:
    """With the smallest model of the catalog, which leaves the least time to read files beside it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "photos").mkdir()
        for index, data in enumerate(generated(32)):
            for copy in range(photos // 32):
                (folder / "photos" / f"{index}-{copy}.jpg").write_bytes(data)
        save(build_named("Ti/16", num_classes=10, image_size=224), folder / "model.safetensors")
        predict = Predictor.load(folder / "model.safetensors", images=photos)
        ready = [predict.prepare(path) for path in find_images(folder / "photos")]
        starts = range(0, len(ready), predict.batch_size)

        def bare() -> None:
            for at in starts:
                predict.answer(ready[at : at + predict.batch_size])

        def ours(workers: int) -> None:
            files.remove(folder / "p.parquet")
            places, out = (str(folder / "photos"),), folder / "p.parquet"
            predict_to_file(Wanted(str(folder / "model.safetensors"), places, out, workers=workers, device="cpu"))

        claim = f"predictions, Ti/16 at 224, {photos} JPEG files to parquet, {{}}"
        return [
            compare(claim.format(words), LIMIT, lambda w=workers: ours(w), bare, rounds)
            for workers, words in enumerate(("0 workers", "1 worker"))
        ]


if __name__ == "__main__":
    for row in measure():
        print(row.markdown())
