import torch

from vitlab.nn.pooling import ClassToken, Mean


def test_the_class_token_is_the_first():
    encoded = torch.randn(2, 5, 3)
    assert torch.equal(ClassToken().pool(encoded), encoded[:, 0])
    assert ClassToken().num_prefix == 1


def test_the_mean_is_over_all_patches():
    encoded = torch.randn(2, 5, 3)
    torch.testing.assert_close(Mean().pool(encoded), sum(encoded[:, n] for n in range(5)) / 5)
    assert Mean().num_prefix == 0


def test_a_pooling_reads_no_more_tokens_than_it_says():
    encoded = torch.randn(2, 5, 3)
    for pool in (ClassToken(), Mean()):
        torch.testing.assert_close(pool.pool(encoded[:, : pool.num_inputs]), pool.pool(encoded))
