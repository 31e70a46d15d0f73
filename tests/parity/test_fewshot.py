"""Linear few-shot evaluation against big_vision's."""

import numpy as np
import pytest

from vitlab.evals.fewshot import choose, solve, sweep


@pytest.mark.parametrize("name", ["solver_primal", "solver_dual", "solver_1shot", "solver_imbalanced"])
def test_the_closed_form_is_that_of_big_vision(golden, agree, name):
    case = golden(f"fewshot/{name}")
    arrays, classes = case.arrays("npz"), case.config["num_classes"]
    for index, l2 in enumerate(arrays["l2_reg"]):
        head = solve(arrays["x_train"], arrays["y_train"], classes, float(l2))
        scores = head.scores(arrays["x_test"])
        exact = arrays["scores_float64_direct_solve"][index]
        agree(f"{case.name} (their float64)", scores, exact, atol=1e-4 * np.abs(exact).max())
        agree(f"{case.name} (their float32)", scores, arrays["scores"][index], **case.tolerance["scores"])
        accuracy = head.accuracy(arrays["x_test"], arrays["y_test"])
        assert accuracy == pytest.approx(float(arrays["accuracy"][index]), abs=1.001 / len(arrays["y_test"]))


@pytest.mark.parametrize("name", ["solver_primal", "solver_dual", "solver_1shot", "solver_imbalanced"])
def test_one_decomposition_for_all_l2_is_that_of_big_vision(golden, agree, name):
    case = golden(f"fewshot/{name}")
    arrays = case.arrays("npz")
    l2s = [float(l2) for l2 in arrays["l2_reg"]]
    heads = list(sweep(arrays["x_train"], arrays["y_train"], case.config["num_classes"], l2s))
    assert len(heads) == len(l2s)
    for index, head in enumerate(heads):
        exact = arrays["scores_float64_direct_solve"][index]
        scores = head.scores(arrays["x_test"])
        agree(f"{case.name} (their float64)", scores, exact, atol=1e-4 * np.abs(exact).max())
        accuracy = head.accuracy(arrays["x_test"], arrays["y_test"])
        assert accuracy == pytest.approx(float(arrays["accuracy"][index]), abs=1.001 / len(arrays["y_test"]))


@pytest.mark.parametrize("name", ["protocol", "protocol_imbalanced"])
def test_the_chosen_examples_and_the_accuracy_are_those_of_big_vision(golden, agree, name):
    case = golden(f"fewshot/{name}")
    arrays, config = case.arrays("npz"), case.config
    for seed in config["seeds"]:
        for shots in config["shots"]:
            chosen = choose(arrays["y_train"], shots, seed)
            np.testing.assert_array_equal(chosen, arrays[f"idx_seed{seed}_shot{shots}"])
            head = solve(arrays["x_train"][chosen], arrays["y_train"][chosen], config["num_classes"], config["l2_reg"])
            accuracy = head.accuracy(arrays["x_test"], arrays["y_test"])
            want = arrays[f"acc_seed{seed}_shot{shots}"]
            agree(f"{case.name} accuracy", accuracy, want, atol=1.001 / len(arrays["y_test"]))
