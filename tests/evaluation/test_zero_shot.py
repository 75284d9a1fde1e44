import torch
from transformers import AutoTokenizer

from vilau_hf import TINY_CHECKPOINT, VilaUVisionTowerForPreTraining
from vilau_hf.evaluation.zero_shot import embed_classes


def test_each_class_has_an_embedding_of_norm_one_that_does_not_depend_on_the_others():
    tower = VilaUVisionTowerForPreTraining.from_pretrained(f"{TINY_CHECKPOINT}/tower", dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHECKPOINT)
    length = tower.config.text_config.max_position_embeddings
    classes = ["a red cross", "a blue circle"]
    embeddings = embed_classes(tower, tokenizer, classes, length)
    assert embeddings.dtype == torch.float32 and not embeddings.requires_grad
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))
    for row, caption in zip(embeddings, classes, strict=True):
        alone = embed_classes(tower, tokenizer, [caption], length)[0]
        torch.testing.assert_close(row, alone, atol=2e-2, rtol=0)
