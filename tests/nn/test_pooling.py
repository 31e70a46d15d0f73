import torch
from torch import nn

from vitlab.nn.encoder import BlockSettings
from vitlab.nn.pooling import AttentionPool, AttentionPooling, ClassToken, FirstPatch, Mean, build_pooling

BLOCK = BlockSettings(6, 2, 12)


def test_the_class_token_is_the_first():
    encoded = torch.randn(2, 5, 6)
    assert torch.equal(build_pooling(ClassToken(), BLOCK, 1)(encoded), encoded[:, 0])
    assert ClassToken().num_prefix == 1


def test_the_mean_is_over_all_patches_and_no_register():
    encoded = torch.randn(2, 5, 6)
    torch.testing.assert_close(build_pooling(Mean(), BLOCK, 0)(encoded), sum(encoded[:, n] for n in range(5)) / 5)
    torch.testing.assert_close(build_pooling(Mean(), BLOCK, 2)(encoded), encoded[:, 2:].mean(dim=1))
    assert Mean().num_prefix == 0


def test_the_first_patch_is_behind_the_registers():
    encoded = torch.randn(2, 5, 6)
    assert torch.equal(build_pooling(FirstPatch(), BLOCK, 2)(encoded), encoded[:, 2])
    assert FirstPatch().num_prefix == 0


def test_attention_pooling_reads_the_patches_in_any_order_and_no_register():
    torch.manual_seed(0)
    pool = build_pooling(AttentionPool(), BLOCK, 1)
    assert isinstance(pool, AttentionPooling)
    nn.init.normal_(pool.probe)
    encoded = torch.randn(2, 5, 6)
    shuffled = torch.cat([torch.randn(2, 1, 6), encoded[:, [3, 1, 4, 2]]], dim=1)
    torch.testing.assert_close(pool(shuffled), pool(encoded))
    assert not torch.allclose(pool(torch.randn(2, 5, 6)), pool(encoded))


def test_a_pooling_reads_no_more_tokens_than_it_says():
    encoded = torch.randn(2, 5, 6)
    for kind in (ClassToken(), Mean(), FirstPatch()):
        pool = build_pooling(kind, BLOCK, kind.num_prefix)
        torch.testing.assert_close(pool(encoded[:, : kind.num_inputs]), pool(encoded))


def test_the_norm_of_the_mean_is_that_of_a_layer_norm():
    encoded = torch.randn(2, 5, 6)
    pool = build_pooling(Mean(class_token=True, norm="mean"), BLOCK, 1)
    expected = torch.nn.functional.layer_norm(encoded[:, 1:].mean(dim=1), (6,), eps=1e-6)
    torch.testing.assert_close(pool(encoded), expected)
    assert [name for name, _ in pool.named_parameters()] == ["norm.weight", "norm.bias"]
    assert list(build_pooling(Mean(), BLOCK, 0).parameters()) == []
