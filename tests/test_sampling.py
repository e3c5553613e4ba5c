"""The same windows in the same batches, whatever the number of workers."""

from __future__ import annotations

import numpy as np
import pytest

from xsite.data.sampling import batches, epoch_indices, n_batches


def test_epochs_are_permutations_reshuffled_and_reproducible():
    first, again, second = (epoch_indices(100, seed=3, epoch=e) for e in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert sorted(first) == list(range(100))
    assert not np.array_equal(first, second)
    drawn = epoch_indices(100, seed=3, epoch=0, windows_per_epoch=30)
    assert len(set(drawn.tolist())) == 30
    assert len(epoch_indices(10, seed=3, epoch=0, windows_per_epoch=30)) == 10
    with pytest.raises(ValueError, match="no window"):
        epoch_indices(0, seed=0, epoch=0)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_global_batch_is_the_same_for_every_world_size(world_size):
    indices = epoch_indices(103, seed=0, epoch=5)
    whole = list(batches(indices, 20))
    shares = [list(batches(indices, 20, rank, world_size)) for rank in range(world_size)]
    assert n_batches(103, 20) == len(whole) == 5
    for number, batch in enumerate(whole):
        dealt = [share[number] for share in shares]
        np.testing.assert_array_equal(np.concatenate(dealt), batch)
        assert len({len(part) for part in dealt}) == 1


def test_a_short_epoch_is_one_batch_and_uneven_deals_are_refused():
    (only,) = batches(np.arange(7), 20)
    np.testing.assert_array_equal(only, np.arange(7))
    with pytest.raises(ValueError, match="batch size such as 21"):
        list(batches(np.arange(50), 20, 0, 3))
    with pytest.raises(ValueError, match="fewer workers"):
        list(batches(np.arange(1), 20, 0, 2))
