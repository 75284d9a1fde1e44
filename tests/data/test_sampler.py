import pytest

from vilau_hf.data.sampler import LengthGroupedBatchSampler


def test_batches_have_one_length_and_random_order():
    lengths = [1, 4] * 20 + [1] * 8
    sampler = LengthGroupedBatchSampler(lengths, batch_size=4, seed=0)
    indices = list(sampler)
    assert sorted(indices) == list(range(48)) and len(sampler) == 48
    batches = [{lengths[index] for index in indices[begin : begin + 4]} for begin in range(0, 48, 4)]
    assert all(len(batch) == 1 for batch in batches)
    assert batches != sorted(batches, key=min)  # long and short batches alternate


def test_order_depends_only_on_seed_and_epoch():
    def order(seed, epoch):
        sampler = LengthGroupedBatchSampler([1, 2, 3] * 10, batch_size=5, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_short_batch_is_last():
    lengths = [1] * 6 + [9]
    assert list(LengthGroupedBatchSampler(lengths, batch_size=3, seed=0))[-1] == 6


def test_rejects_a_batch_size_of_0():
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1, got 0"):
        LengthGroupedBatchSampler([1], 0, 0)


def test_a_dataset_without_records_has_no_indices():
    assert list(LengthGroupedBatchSampler([], batch_size=4, seed=0)) == []
