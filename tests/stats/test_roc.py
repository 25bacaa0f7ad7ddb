"""The area under the ROC curve: what few or perfectly separated answers can say."""

from __future__ import annotations

import numpy as np
import pytest

from prospect.stats.roc import auc, auc_interval


def test_two_that_stand_apart_from_six_are_two():
    assert auc(np.array([9.0, 8.0]), np.arange(6.0)) == 1.0
    assert auc_interval(np.array([9.0, 8.0]), np.arange(6.0)) == pytest.approx((0.158, 1.0), abs=1e-3)
    assert auc_interval(np.array([]), np.arange(6.0)) == (0.0, 1.0)
    many = auc_interval(np.arange(100.0) + 100, np.arange(100.0))
    assert many == pytest.approx((0.964, 1.0), abs=1e-3)


@pytest.mark.parametrize(("n", "shift"), [(8, 0.0), (8, 2.0), (60, 1.0), (60, 3.0)])
def test_interval_covers(n, shift):
    rng = np.random.default_rng(0)
    truth = auc(rng.normal(shift, 1, size=4000), rng.normal(size=4000))
    found = [auc_interval(rng.normal(shift, 1, size=n), rng.normal(size=n)) for _ in range(300)]
    assert np.mean([low <= truth <= high for low, high in found]) >= 0.92
