import numpy as np

from edgecv.quantize.moments import Moments


def correlated(images_seen: int, samples_of_image: int, seed: int = 0) -> tuple[Moments, np.ndarray]:
    """Samples with a known covariance about a mean of 3; those of one image differ from one another by little."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(12) + 0.2 * rng.standard_normal((12, 12))
    moments = Moments(1, 12)
    for image in range(images_seen):
        common = rng.standard_normal((1, 1, 12))
        own = rng.standard_normal((1, samples_of_image, 12)) * 0.1
        moments.add(((common + own) @ mixing.T + 3).astype(np.float32), image)
    return moments, mixing @ mixing.T * 1.01


def test_the_covariance_is_centred() -> None:
    moments, true = correlated(4000, 5)
    np.testing.assert_allclose(moments.covariance()[0], true, atol=0.2)
    np.testing.assert_allclose(moments.mean(), 3, atol=0.1)
    np.testing.assert_allclose(moments.shrunk_covariance(centred=False)[0], true + 9, rtol=0.05)


def test_a_mean_far_above_the_spread_leaves_a_true_covariance() -> None:
    moments = Moments(1, 12)
    rng = np.random.default_rng(0)
    for image in range(200):
        moments.add((rng.standard_normal((1, 50, 12)) * 0.01 + 100).astype(np.float32), image)
    np.testing.assert_allclose(moments.covariance()[0], np.eye(12) * 1e-4, atol=5e-6)
    np.testing.assert_allclose(moments.shrunk_covariance(centred=False)[0], 1e4, rtol=1e-4)


def test_few_images_are_believed_less_however_many_samples_they_give() -> None:
    errors = []
    for seed in range(5):
        few, true = correlated(6, 2000, seed)
        plain, shrunk = few.covariance()[0], few.shrunk_covariance()[0]
        errors.append([np.square(c - true).sum() for c in (plain, shrunk)])
        np.testing.assert_allclose(np.trace(shrunk), np.trace(plain))
        assert np.linalg.eigvalsh(shrunk)[0] > 3 * np.linalg.eigvalsh(plain)[0]
    before, after = np.mean(errors, axis=0)
    assert after < 0.7 * before
    many, _ = correlated(4000, 5)
    np.testing.assert_allclose(many.shrunk_covariance(), many.covariance(), atol=0.1)


def test_a_single_image_tells_the_variance_alone() -> None:
    moments, _ = correlated(1, 100)
    shrunk = moments.shrunk_covariance()[0]
    np.testing.assert_allclose(shrunk, np.eye(12) * shrunk[0, 0], atol=1e-12)
