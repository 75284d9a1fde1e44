import torch

from vilau_hf import TINY_CHECKPOINT, VilaUConfig
from vilau_hf.memory.live_memory import LiveMemory, model_on_meta


def test_no_memory_is_live_after_the_results_are_deleted():
    config = VilaUConfig.from_pretrained(TINY_CHECKPOINT)
    run = LiveMemory(model_on_meta(config, torch.float32).eval())
    with run, torch.no_grad():
        output = run.module(torch.zeros(2, 7, dtype=torch.long))
        assert run.live >= output.logits.nbytes
        del output
    assert run.live == 0 < run.take_peak()
