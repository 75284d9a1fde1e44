"""Direct preference optimization with adapters, compared with a loop over `dpo_loss`."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from vilau_hf import TINY_CHECKPOINT, VilaUProcessor
from vilau_hf.data import VilaUDataCollator
from vilau_hf.training import (
    PreferencePairCollator,
    VilaUDPOTrainer,
    VilaUDPOTrainingArguments,
    VilaUTrainingArguments,
    dpo_loss,
)


IMAGE = [54, *[58] * 16, 55]
TARGETS = r".*language_model.*\.(q|v)_proj"


def collate(pairs):
    """Makes rows with a prompt of one word and an image, whose codes are the answer."""
    prompts = torch.tensor([pair["word"] for pair in pairs] * 2)
    ids = torch.tensor([1, 0, *IMAGE]).repeat(len(prompts), 1)
    ids[:, 1] = prompts
    codes = torch.stack([pair[name] for name in ("chosen", "rejected") for pair in pairs])
    return {"input_ids": ids, "labels": ids.where(ids == 58, -100), "codes": codes}


@pytest.fixture
def pairs():
    return [
        {"word": 5 + index, "chosen": torch.randint(24, (16, 3)), "rejected": torch.randint(24, (16, 3))}
        for index in range(8)
    ]


@pytest.fixture
def adapted(model):
    return get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS))


def make_trainer(model, pairs, folder, **kwargs):
    arguments = VilaUDPOTrainingArguments(
        str(folder),
        **{
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch",
            "train_sampling_strategy": "sequential",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "beta": 0.5,
            **kwargs,
        },
    )
    return VilaUDPOTrainer(model, arguments, train_dataset=pairs, eval_dataset=pairs, data_collator=collate)


def test_trains_the_weights_of_a_loop_over_the_loss(adapted, pairs, tmp_path):
    begun = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    trainer = make_trainer(adapted, pairs, tmp_path)
    trainer.train()
    trained = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    logs = trainer.state.log_history[:4]

    adapted.load_state_dict(begun)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    for step in range(4):
        batch = collate(pairs[2 * step : 2 * step + 2])
        with torch.no_grad(), adapted.disable_adapter():
            reference = adapted.score(**batch).log_probs.chunk(2)
        output = dpo_loss(*adapted.score(**batch).log_probs.chunk(2), *reference, beta=0.5)
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(adapted.parameters(), 1.0)
        optimizer.step()
        assert logs[step]["loss"] == pytest.approx(output.loss.item(), rel=1e-5)
        assert logs[step]["chosen_reward"] == pytest.approx(output.chosen_rewards.mean().item(), abs=1e-5)
        assert logs[step]["rejected_reward"] == pytest.approx(output.rejected_rewards.mean().item(), abs=1e-5)
    for name, weight in adapted.state_dict().items():
        torch.testing.assert_close(weight, trained[name], msg=name)
        assert ("lora_B" in name) == (not torch.equal(weight, begun[name])) or "lora_A" in name, name


def test_accumulated_batches_train_like_one_batch(adapted, pairs, tmp_path):
    begun = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    results = []
    for size, steps in ((4, 1), (2, 2)):
        adapted.load_state_dict(begun)
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "optim": "sgd"}
        trainer = make_trainer(adapted, pairs, tmp_path, max_steps=2, **settings)
        trainer.train()
        results.append({name: weight.clone() for name, weight in adapted.state_dict().items()})
        results[-1]["logs"] = torch.tensor([log["chosen_reward"] for log in trainer.state.log_history[:2]])
    for name, weight in results[0].items():
        torch.testing.assert_close(results[1][name], weight, msg=name)


def test_evaluation_logs_the_loss_and_the_rewards(adapted, pairs, tmp_path):
    trainer = make_trainer(adapted, pairs, tmp_path)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert trainer.state.log_history[-1]["eval_chosen_reward"] == 0


def test_collates_all_chosen_records_before_the_rejected_ones():
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    records = [
        {"messages": [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": answer}]}
        for answer in ("a circle", "a square", "red", "blue")
    ]
    pairs = [{"chosen": records[index], "rejected": records[index + 2]} for index in range(2)]
    batch = PreferencePairCollator(processor)(pairs)
    expected = VilaUDataCollator(processor, unconditional_probability=0)(records)
    assert set(batch) == set(expected)
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name


def test_rejects_a_model_without_adapters_and_other_arguments(model, adapted, pairs, tmp_path):
    with pytest.raises(TypeError, match=r"`model` must be a peft.PeftModel, got VilaUForConditionalGeneration"):
        make_trainer(model, pairs, tmp_path)
    arguments = VilaUTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(TypeError, match="`args` must be VilaUDPOTrainingArguments, got VilaUTrainingArguments"):
        VilaUDPOTrainer(adapted, arguments)
