import numpy as np
import pytest
from small_graphs import images, residual_model, run

from edgecv.errors import UsageError
from edgecv.quantize.calibrate import check_method, observe, ranges_of

DATA = images(10)


def test_min_max_ranges_are_those_of_the_activations() -> None:
    model = residual_model()
    found = ranges_of(observe(model, ["r", "s"], lambda: iter([DATA[:7], DATA[7:]])), "minmax")
    for name in ("r", "s"):
        direct = residual_model()
        value = next(o for node in direct.graph for o in node.outputs if o.name == name)
        direct.graph.outputs[:] = [value]
        expected = run(direct, DATA)
        assert found[name].low == pytest.approx(expected.min(), rel=1e-5, abs=1e-6)
        assert found[name].high == pytest.approx(expected.max(), rel=1e-5)


def test_means_are_those_of_the_images_and_the_count_is_right() -> None:
    seen = observe(residual_model(), [], lambda: iter([DATA[:7], DATA[7:]]), mean_of=["image", "g"])
    assert seen.images == 10
    np.testing.assert_allclose(seen.means["image"][0], DATA.mean(axis=0), atol=1e-6)
    assert seen.means["g"].shape == (1, 8, 1, 1)


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_bad_activation_names_the_tensor_and_the_image(bad: float, word: str) -> None:
    data = images(9)
    data[6, 0, 3, 3] = bad
    with pytest.raises(UsageError, match=rf"activation 'a' is {word} on calibration image 6 "):
        observe(residual_model(), ["a", "s"], lambda: iter([data[:4], data[4:]]))


def test_an_unknown_method_shows_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'percentil' is not one of mse, percentile, minmax.*'percentile'"):
        check_method("percentil")


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    import tracemalloc

    def peak(repeats: int) -> int:
        tracemalloc.start()
        observe(residual_model(), ["low", "r", "s"], lambda: (DATA for _ in range(repeats)), mean_of=["low"])
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)
    assert peak(40) < 1.2 * peak(2)
