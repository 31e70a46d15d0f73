"""Write src/vitlab/data/digits.npz from scikit-learn's copy of the UCI digits, the same bytes every time.

Needs scikit-learn, which nothing else here does: `pip install --target /tmp/sk scikit-learn`, then
`PYTHONPATH=/tmp/sk python scripts/make_digits.py`.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).parents[1] / "src/vitlab/data/digits.npz"


def main() -> None:
    """Write the file and print its size."""
    images, labels = load_digits(return_X_y=True)
    arrays = {"images": images.reshape(-1, 8, 8).astype(np.uint8), "labels": labels.astype(np.uint8)}
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.save(data, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy")  # its date is 1980-01-01: no clock in the bytes
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data.getvalue(), compresslevel=9)
    print(f"{TARGET}: {len(labels)} digits, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
