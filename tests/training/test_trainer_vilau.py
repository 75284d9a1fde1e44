import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo import OptimizedModule
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from vilau_hf import TINY_CHECKPOINT, VilaUForConditionalGeneration, VilaUProcessor
from vilau_hf.data import VilaUDataCollator
from vilau_hf.drawn import drawn_shapes
from vilau_hf.modeling.sub_models_vilau import SUB_MODELS
from vilau_hf.training import VilaUTrainer, VilaUTrainingArguments


class Rows(Dataset):
    """Rows with different numbers of text and visual targets: an image, an answer about an image, or text only."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(0)
        self.rows = []
        for index in range(count):
            words = torch.randint(5, 50, (3 + index % 4,), generator=generator).tolist()
            image = [54] + [58] * 16 + [55]
            if index % 3 == 2:
                self.rows.append(([1, *words, 2], 2, None))
                continue
            codes = torch.randint(24, (1, 16, 3), generator=generator)
            row = ([1, *words, *image, 2], 1 + len(words), codes) if index % 3 else ([1, *image, *words, 2], 19, codes)
            self.rows.append(row)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"row": self.rows[index]}


def collate(records):
    rows = [record["row"] for record in records]
    length = max(len(ids) for ids, _, _ in rows)
    ids = torch.tensor([ids + [0] * (length - len(ids)) for ids, _, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _, _ in rows])
    labels = ids.masked_fill(mask == 0, -100)
    for index, (_, first, _) in enumerate(rows):
        labels[index, :first] = -100
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    codes = [codes for _, _, codes in rows if codes is not None]
    return {**batch, "codes": torch.cat(codes)} if codes else batch


def train(config, tmp_path, state=None, **kwargs):
    torch.manual_seed(1)
    model = VilaUForConditionalGeneration(config)
    if state is not None:
        model.load_state_dict(state)
    arguments = VilaUTrainingArguments(
        output_dir=str(tmp_path),
        **{
            "max_steps": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            **kwargs,
        },
    )
    trainer = VilaUTrainer(
        model=model, args=arguments, train_dataset=Rows(16), eval_dataset=Rows(8), data_collator=collate
    )
    trainer.train()
    return trainer


def test_eight_accumulated_batches_of_one_train_like_a_batch_of_eight(config, tmp_path):
    settings = {"learning_rate": 0.1, "train_sampling_strategy": "sequential"}
    whole = train(config, tmp_path, **settings)
    accumulated = train(config, tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=8, **settings)
    for (name, expected), actual in zip(whole.model.named_parameters(), accumulated.model.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, msg=name)
    for expected, actual in zip(whole.state.log_history[:2], accumulated.state.log_history[:2], strict=True):
        for name in ("loss", "text_loss", "visual_loss"):
            assert actual[name] == pytest.approx(expected[name], rel=1e-4)


def test_logs_both_losses_and_their_sum(config, tmp_path):
    trainer = train(config, tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    for log in trainer.state.log_history[:2]:
        assert log["text_loss"] > 0 and log["visual_loss"] > 0
        assert log["loss"] == pytest.approx(log["text_loss"] + log["visual_loss"], rel=1e-3)
    metrics = trainer.evaluate()
    log = trainer.state.log_history[-1]
    assert metrics["eval_loss"] == pytest.approx(log["eval_text_loss"] + log["eval_visual_loss"], rel=1e-3)


def test_evaluation_loss_does_not_depend_on_the_batch_size(config, tmp_path):
    losses = [
        train(config, tmp_path, max_steps=1, learning_rate=0.0, per_device_eval_batch_size=size).evaluate()
        for size in (1, 3, 8)
    ]
    for name in ("eval_loss", "eval_text_loss", "eval_visual_loss"):
        values = [loss[name] for loss in losses]
        assert values == pytest.approx([values[0]] * 3, rel=1e-5) and values[0] > 0


def test_counts_the_targets_of_all_batches_of_a_step(config, tmp_path):
    trainer = train(config, tmp_path, max_steps=1, learning_rate=0.0)
    batches = [collate([Rows(16)[index] for index in range(first, first + 4)]) for first in (0, 4, 8)]
    expected = [0, 0]
    for ids in torch.cat([batch["labels"][:, 1:].flatten() for batch in batches]).tolist():
        if ids != -100:
            expected[ids == config.image_token_id] += 1
    given, counts = trainer.get_batch_samples(iter(batches), 5, torch.device("cpu"))
    assert len(given) == 3 and counts.tolist() == expected
    assert trainer.get_batch_samples(iter([]), 5, torch.device("cpu")) == ([], None)
    assert (
        Trainer.get_batch_samples(trainer, iter(batches), 3, torch.device("cpu"))[1] is None
    )  # counts nothing itself


@pytest.mark.parametrize("name", ["bf16", "fp16", "bf16_full_eval", "fp16_full_eval"])
def test_rejects_rounding_by_deepspeed(model, tmp_path, monkeypatch, name):
    def create(trainer, create=Trainer.create_accelerator_and_postprocess):
        create(trainer)
        trainer.is_deepspeed_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)
    args = VilaUTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    setattr(args, name, True)
    with pytest.raises(ValueError, match=f"`{name}` must be False with DeepSpeed, got True"):
        VilaUTrainer(model, args, train_dataset=Rows(1), data_collator=collate)


@pytest.mark.parametrize("sub_model", ["projector", "language_model", "depth_transformer"])
def test_frozen_sub_models_stay_and_the_others_change(config, tmp_path, sub_model):
    torch.manual_seed(1)
    before = VilaUForConditionalGeneration(config).state_dict()
    trainer = train(config, tmp_path, learning_rate=0.1, **{f"tune_{sub_model}": False})
    for name, tensor in trainer.model.state_dict().items():
        frozen = name.startswith(SUB_MODELS[sub_model]) or name.startswith(SUB_MODELS["vision_tower"])
        assert torch.equal(tensor, before[name]) == frozen, name


def test_evaluation_drops_no_prompt(tmp_path):
    processor = VilaUProcessor.from_pretrained(TINY_CHECKPOINT)
    trainer = VilaUTrainer(
        model=VilaUForConditionalGeneration.from_pretrained(TINY_CHECKPOINT),
        args=VilaUTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", per_device_train_batch_size=8),
        train_dataset=(data := drawn_shapes("train", 8, tasks={"text_to_image": 1})),
        eval_dataset=data,
        data_collator=VilaUDataCollator(processor, unconditional_probability=1.0),
    )
    loaders = trainer.get_train_dataloader(), trainer.get_eval_dataloader(), trainer.get_test_dataloader(data)
    trained, *evaluated = [next(iter(loader))["attention_mask"].sum() for loader in loaders]
    whole = VilaUDataCollator(processor, unconditional_probability=0.0)(list(data))["attention_mask"].sum()
    assert trained < whole and evaluated == [whole, whole]


@pytest.mark.parametrize("lora", [False, True])
def test_applies_liger_kernels_to_the_language_model(config, tmp_path, monkeypatch, lora):
    """The kernels are applied and not run, because they need a GPU."""
    from liger_kernel.transformers import LigerSwiGLUMLP
    from transformers.models.llama import modeling_llama

    for name in ("apply_rotary_pos_emb", "LlamaRMSNorm", "LlamaMLP"):  # those of the whole process
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))
    model = VilaUForConditionalGeneration(config)
    layer, forward = model.model.language_model.layers[0], model.forward
    if lora:
        model = get_peft_model(model, LoraConfig(target_modules=r".*language_model.*\.q_proj"))
    arguments = VilaUTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", use_liger_kernel=True)
    VilaUTrainer(model=model, args=arguments, train_dataset=Rows(1), data_collator=collate)
    assert layer.mlp.forward.__func__ is LigerSwiGLUMLP.forward
    assert "Liger" in type(layer.input_layernorm).__name__ or "liger" in layer.input_layernorm.forward.__module__
    assert (model.base_model.model if lora else model).forward == forward


def test_compiled_layers_train_like_layers_without_compilation(config, tmp_path, monkeypatch):
    expected = train(config, tmp_path)
    monkeypatch.setenv("ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION", "true")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")  # the arguments set it, and `monkeypatch` restores it
    trainer = train(config, tmp_path, torch_compile_backend="aot_eager")
    compiled = trainer.model_wrapped
    for layers in (compiled.model.language_model.layers, compiled.depth_transformer.layers):
        assert all(isinstance(layer, OptimizedModule) for layer in layers)
    assert set(trainer.model.state_dict()) == set(expected.model.state_dict())
    for (name, weight), other in zip(expected.model.named_parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(other, weight, msg=name)


def test_rejects_training_of_the_vision_tower(tmp_path):
    with pytest.raises(ValueError, match="`tune_vision_tower` must be False"):
        VilaUTrainingArguments(output_dir=str(tmp_path), tune_vision_tower=True, use_cpu=True)


def test_sub_models_have_their_learning_rates(config, tmp_path):
    trainer = train(config, tmp_path, projector_learning_rate=0.5, depth_transformer_learning_rate=0.25)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            expected = 1e-3
            if name.startswith(SUB_MODELS["projector"]):
                expected = 0.5
            elif name.startswith(SUB_MODELS["depth_transformer"]):
                expected = 0.25
            assert group["lr"] == expected, name


@pytest.mark.parametrize("sub_model", ["projector", "language_model", "depth_transformer"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_sub_model_is_trained_from_its_start_step_on(config, tmp_path, sub_model, schedule):
    torch.manual_seed(1)
    begun = VilaUForConditionalGeneration(config).state_dict()
    settings = {
        f"{sub_model}_start_step": 2,
        "lr_scheduler_type": schedule,
        "learning_rate": 0.1,
        "optim": "adamw_torch",
    }
    before = train(config, tmp_path, **settings).model.state_dict()
    after = train(config, tmp_path, max_steps=4, **settings).model.state_dict()
    for name, weight in begun.items():
        if name.startswith(SUB_MODELS["vision_tower"]):
            continue
        assert torch.equal(before[name], weight) == name.startswith(SUB_MODELS[sub_model]), name
        assert not torch.equal(after[name], weight), name


def test_uses_a_given_optimizer(config, tmp_path):
    model = VilaUForConditionalGeneration(config)
    optimizer = torch.optim.SGD(model.model.multi_modal_projector.parameters(), lr=0.1)
    begun = {name: weight.clone() for name, weight in model.state_dict().items()}
    args = VilaUTrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, report_to="none", save_strategy="no")
    VilaUTrainer(
        model=model, args=args, train_dataset=Rows(8), data_collator=collate, optimizers=(optimizer, None)
    ).train()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, begun[name]) == (not name.startswith(SUB_MODELS["projector"])), name


def test_rejects_a_start_step_without_a_schedule_by_steps(config, tmp_path):
    settings = {"projector_start_step": 1, "lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"}
    with pytest.raises(ValueError, match="got `lr_scheduler_type='reduce_lr_on_plateau'`"):
        train(config, tmp_path, **settings)


def test_stock_trainer_gets_the_mean_over_batches(config, tmp_path):
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3, 50, (8, 10))]
    losses = []
    for batch_size, steps in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
        )
        trainer = Trainer(VilaUForConditionalGeneration(config), arguments, train_dataset=rows)
        trainer.train()
        losses.append((trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["grad_norm"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_rejects_other_arguments(model, tmp_path):
    with pytest.raises(TypeError, match="`args` must be VilaUTrainingArguments, got TrainingArguments"):
        VilaUTrainer(model, TrainingArguments(str(tmp_path)))


def test_rejects_several_gpus_in_one_process(model, tmp_path):
    args = VilaUTrainingArguments(str(tmp_path), use_cpu=True)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"`args.n_gpu` must be at most 1, got 2: .* `torchrun`"):
        VilaUTrainer(model, args)


def arguments_of(tmp_path, **kwargs):
    settings = {"max_steps": 2, "learning_rate": 1e-3, "save_strategy": "no", "report_to": "none", "use_cpu": True}
    return VilaUTrainingArguments(str(tmp_path), disable_tqdm=True, **{**settings, **kwargs})


def test_model_init_trains_like_the_model_that_it_builds(config, tmp_path):
    def build():
        torch.manual_seed(3)
        return VilaUForConditionalGeneration(config)

    data = {"train_dataset": Rows(16), "eval_dataset": Rows(8), "data_collator": collate}
    args = arguments_of(tmp_path, tune_language_model=False)
    given = VilaUTrainer(build(), args, **data)
    built = VilaUTrainer(args=args, model_init=build, **data)
    given.train()
    built.train()
    for (name, expected), actual in zip(given.model.named_parameters(), built.model.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, msg=name)
        assert actual.requires_grad == expected.requires_grad, name


def test_searches_hyperparameters_by_the_evaluation_loss(config, tmp_path):
    pytest.importorskip("optuna")
    data = {"train_dataset": Rows(8), "eval_dataset": Rows(8), "data_collator": collate}
    trainer = VilaUTrainer(
        args=arguments_of(tmp_path, eval_strategy="steps", eval_steps=2),
        model_init=lambda: VilaUForConditionalGeneration(config),
        **data,
    )
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-3, 1e-4])},
        n_trials=2,
        backend="optuna",
    )
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert losses and best.objective > 0 and set(best.hyperparameters) == {"learning_rate"}


def test_the_objective_of_a_search_is_the_evaluation_loss(config, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        Trainer, "hyperparameter_search", lambda self, space, objective, **kwargs: given.update(objective=objective)
    )
    data = {"train_dataset": Rows(8), "eval_dataset": Rows(8), "data_collator": collate}
    trainer = VilaUTrainer(VilaUForConditionalGeneration(config), arguments_of(tmp_path), **data)
    trainer.hyperparameter_search(n_trials=1)
    assert given["objective"]({"eval_loss": 3.0, "eval_text_loss": 1.0, "eval_visual_loss": 2.0}) == 3.0
    trainer.hyperparameter_search(compute_objective=len)
    assert given["objective"] is len


@pytest.mark.parametrize("trainer_class", [VilaUTrainer, Trainer])
def test_compute_metrics_gets_logits_and_labels(config, tmp_path, trainer_class):
    seen = []

    def accuracy(prediction):
        seen.append(prediction)
        hits = prediction.predictions.argmax(-1)[:, :-1] == prediction.label_ids[:, 1:]
        return {"accuracy": float(hits[prediction.label_ids[:, 1:] != -100].mean())}

    model = VilaUForConditionalGeneration(config)
    data = {"train_dataset": Rows(8), "eval_dataset": Rows(8), "data_collator": collate}
    args = arguments_of(tmp_path, per_device_eval_batch_size=3)
    metrics = trainer_class(model, args, compute_metrics=accuracy, **data).evaluate()
    rows = collate([Rows(8)[index] for index in range(8)])
    (prediction,) = seen
    assert prediction.predictions.shape == (*rows["labels"].shape, config.text_config.vocab_size)
    assert (torch.as_tensor(prediction.label_ids) == rows["labels"]).all()
    with torch.no_grad():
        logits = model(**{name: value for name, value in rows.items() if name != "labels"}).logits
    is_token = rows["attention_mask"].bool()
    torch.testing.assert_close(torch.as_tensor(prediction.predictions)[is_token], logits[is_token])
    assert 0 <= metrics["eval_accuracy"] <= 1
