"""Export each example with a batch of any size, compare it with the model, and print what went wrong as JSON.

A program of its own: torch.export cannot trace a model whose annotations are executed, as they are in these tests.
Usage: python -m tests.contract.exporting HEIGHT WIDTH
"""

import json
import logging
import sys
from typing import Any

import torch

from tests.contract.examples import EXAMPLES, Example, make
from vitlab.nn.grid import Size


def problem(example: Example, size: Size) -> str | None:
    """Return why `example` cannot be exported, or what its export does wrong; None when all is well."""
    model = make(example.settings(size))
    images = torch.randn(6, 3, *size, generator=torch.Generator().manual_seed(1))
    dynamic: Any = ({0: torch.export.Dim("batch", min=1)},)
    try:
        exported = torch.export.export(model, (images[:3],), dynamic_shapes=dynamic).module()
        for batch in (images, images[:1]):
            torch.testing.assert_close(exported(batch), model(batch), atol=1e-5, rtol=1e-5)
    except Exception as error:  # whatever it is, it is this example's
        return f"{type(error).__name__}: {error}"[:500]
    return None


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    size = Size(*map(int, sys.argv[1:3]))
    with torch.no_grad():
        print(json.dumps({example.name: problem(example, size) for example in EXAMPLES}))


if __name__ == "__main__":
    main()
