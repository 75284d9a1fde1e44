"""Prompts of branches, and the cache that they share."""

import torch
from transformers import DynamicCache

from vilau_hf.modeling.generation_branches_vilau import BranchPrompt, VilaUSpanCache, reserve_marker_position


def test_a_span_cache_returns_the_keys_and_values_of_a_dynamic_cache():
    ours = VilaUSpanCache(num_layers=2, max_length=9)
    theirs = DynamicCache()
    for length in (4, 1, 1, 3):
        for layer in range(2):
            keys = torch.randn(2, 3, length, 5)
            values = torch.randn(2, 3, length, 6)
            found = ours.update(keys, values, layer)
            expected = theirs.update(keys, values, layer)
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_span_cache_keeps_its_memory():
    cache = VilaUSpanCache(num_layers=1, max_length=8)
    addresses = {cache.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4), 0)[0].data_ptr() for _ in range(8)}
    assert len(addresses) == 1


def test_repeated_prompts_follow_one_another():
    prompt = BranchPrompt(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[0, 1], [1, 1]]))
    repeated = prompt.repeat(4)
    assert repeated.ids.tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]] and repeated.visual_codes is None
    assert repeated.mask.tolist() == [[0, 1], [0, 1], [1, 1], [1, 1]]


def test_visual_tokens_are_appended_and_padding_comes_first():
    prompt = BranchPrompt(torch.tensor([[1, 2]]), torch.tensor([[1, 1]]))
    longer = prompt.append_visual(58, torch.tensor([[[7, 8], [5, 6]]])).pad(5, pad_token_id=9)
    assert longer.ids.tolist() == [[9, 1, 2, 58, 58]] and longer.mask.tolist() == [[0, 1, 1, 1, 1]]
    assert longer.visual_codes.tolist() == [[[-1, -1], [-1, -1], [-1, -1], [7, 8], [5, 6]]]


def test_a_marker_is_seen_once_in_each_row():
    ids, mask = reserve_marker_position(
        torch.tensor([[1, 7], [1, 54]]),
        torch.ones(2, 2, dtype=torch.long),
        last=torch.tensor([56, 5]),
        markers=[54, 56],
        prefix=[3],
    )
    assert ids.tolist() == [[1, 7, 3, 56], [1, 54, 3, 54]]
    # the second prompt brings its prefix and marker, and the marker is masked until the row opens a span
    assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_a_span_cache_stores_rows_at_their_slots_and_overwrites_drafts():
    cache = VilaUSpanCache(num_layers=1, max_length=6)
    prompt = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 2, 1)
    cache.update(prompt, prompt, 0)
    drafts = torch.full((2, 1, 2, 1), 7.0)
    for slots, keys in (([[2, 3], [2, 3]], drafts), ([[3, 4], [2, 3]], drafts + 1)):
        cache.store_at(torch.tensor(slots), 5)
        found, _ = cache.update(keys, keys, 0)
    assert found[:, 0, :, 0].tolist() == [[0, 0, 7, 8, 8], [1, 1, 8, 8, 0]] and cache.get_seq_length() == 2
    cache.store_at(None)
    cache.extend(2)
    found, _ = cache.update(drafts[:, :, :1], drafts[:, :, :1], 0)
    assert found[:, 0, :, 0].tolist() == [[0, 0, 7, 8, 7], [1, 1, 8, 8, 7]]


def test_a_reset_span_cache_is_empty_and_keeps_its_memory():
    cache = VilaUSpanCache(num_layers=1, max_length=3)
    address = cache.update(torch.full((1, 1, 3, 1), torch.nan), torch.ones(1, 1, 3, 1), 0)[0].data_ptr()
    cache.reset()
    cache.store_at(torch.tensor([[0]]), 3)
    keys, _ = cache.update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 0)
    assert keys.flatten().tolist() == [1, 0, 0] and keys.data_ptr() == address and cache.get_seq_length() == 0
