"""What looking inside holds in memory: one layer's attention at a time, so that a ViT-L at 512 pixels fits in 8 GB."""

import json
import os
import subprocess
import sys

import pytest

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty

LAYERS_AT_ONCE = 8
"""Relevance holds this many times the attention of one layer at most: logits, weights, gradients and their products."""

PROGRAM = """
import json, resource, sys
import torch
from vitlab.inspection.attention import rollout
from vitlab.inspection.distance import attention_distance
from vitlab.inspection.relevance import relevance
from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings

torch.set_num_threads(1)
what, depth, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
settings = ViTSettings(
    image_size=(size, size), stem={"type": "Patches", "patch_size": (16, 16)}, width=32, depth=depth, num_heads=16,
    mlp_dim=32, num_classes=3,
)
model, image = build(settings), torch.randn(1, 3, size, size)
run = {"rollout": lambda: rollout(model, image), "distance": lambda: attention_distance(model, image),
       "relevance": lambda: relevance(model, image, [0, 1])}[what]
run()
print(json.dumps([settings.num_tokens, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def peak(what, depth, size=512):
    command = [sys.executable, "-c", PROGRAM, what, str(depth), str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["rollout", "distance", "relevance"])
def test_the_peak_does_not_grow_with_the_layers_and_is_a_few_of_them(what):
    """As many tokens and heads as ViT-L/16 has at 512 pixels."""
    tokens, few = peak(what, 2)
    _, many = peak(what, 10)
    _, nothing = peak(what, 2, 32)
    attention = 4 * 16 * tokens**2
    assert tokens == 1025
    assert many - few < attention, "another eight layers cost less than the attention of one"
    assert few - nothing < LAYERS_AT_ONCE * attention


def test_a_vit_l_at_512_pixels_fits_in_8_gb():
    settings = settings_for("L/16", 1000, 512)
    weights = sum(parameter.numel() for parameter in empty(settings).parameters())
    attention = settings.num_heads * settings.num_tokens**2
    inputs = (settings.depth + 1) * settings.num_tokens * settings.width
    block = settings.num_tokens * (20 * settings.width + 6 * settings.mlp_dim)  # what one block keeps for its gradient
    assert 4 * (weights + LAYERS_AT_ONCE * attention + inputs + block) < 3e9
