"""accelerate under the trainers that people use: the losses and parameters of the untouched model."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import transformers as hf
from torch import nn

import sentcore
from accelerated import batches_for, classifier, same_parameters
from families import SMALL, save_tokenizer
from folders import make_bert_folder

pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


OPTIONS = {"max_steps": 6, "logging_steps": 1, "learning_rate": 1e-3, "seed": 3, "save_strategy": "no", "use_cpu": True}
QUIET = {"report_to": "none", "disable_tqdm": True}


def logged(trainer: hf.Trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def compared(train) -> None:
    """`train(accelerate or not) -> (model, its losses)` twice."""
    (ours, mine), (theirs, others) = train(True), train(False)
    assert len(others) == 6 and len(set(others)) > 3  # it learns something
    for step, (a, b) in enumerate(zip(mine, others, strict=True)):
        assert abs(a - b) <= 1e-4 * abs(b) + 1e-4, step  # they are logged with four digits
    same_parameters(ours, theirs)


# ---- transformers' Trainer --------------------------------------------------------------------------------------------


def rows() -> list[dict[str, torch.Tensor]]:
    """Single texts of 40 columns, padded."""
    batches = batches_for("Token", 3, 0)
    return [{name: value[row] for name, value in batch.items()} for batch in batches for row in range(4)]


RECOMPUTED = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(hf.TrainingArguments, name)
)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, RECOMPUTED: True}])
def test_trainer(options, tmp_path):
    def train(accelerated: bool):
        model = classifier()
        if accelerated:
            sentcore.accelerate(model)
        arguments = hf.TrainingArguments(str(tmp_path), per_device_train_batch_size=4, **OPTIONS, **QUIET, **options)
        return model, logged(hf.Trainer(model, arguments, train_dataset=rows()))

    compared(train)


def test_hyperparameter_search(tmp_path):
    optuna = pytest.importorskip("optuna", reason="Trainer.hyperparameter_search needs optuna")

    def values(accelerated: bool) -> list[float]:
        arguments = hf.TrainingArguments(str(tmp_path), **{**OPTIONS, "max_steps": 2}, **QUIET)
        trainer = hf.Trainer(
            model_init=lambda trial: sentcore.accelerate(classifier()) if accelerated else classifier(),
            args=arguments,
            train_dataset=rows(),
            eval_dataset=rows(),
        )
        found = []
        trainer.hyperparameter_search(
            hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2)},
            compute_objective=lambda metrics: found.append(metrics["eval_loss"]) or metrics["eval_loss"],
            n_trials=2,
            backend="optuna",
            sampler=optuna.samplers.GridSampler({"learning_rate": [1e-4, 1e-3]}, seed=0),
        )
        return found

    mine, others = values(True), values(False)
    assert len(others) == 2 and others[0] != others[1]
    assert mine == pytest.approx(others, rel=1e-4)


@pytest.mark.parametrize("to", ["tensorboard", "wandb"])
def test_reports(to, tmp_path, monkeypatch):
    pytest.importorskip(to, reason=f"{to} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    arguments = hf.TrainingArguments(str(tmp_path), report_to=to, disable_tqdm=True, **{**OPTIONS, "max_steps": 2})
    hf.Trainer(sentcore.accelerate(classifier()), arguments, train_dataset=rows()).train()
    written = [os.path.join(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
    if to == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(next(path for path in written if "tfevents" in path))
        events.Reload()
        assert len(events.Scalars("train/loss")) == 2
    else:
        import wandb

        wandb.finish()
        assert any(path.endswith(".wandb") and os.path.getsize(path) for path in written)


# ---- sentence-transformers' trainers ----------------------------------------------------------------------------------

PAIRS = [
    ("the cat", "a dog sat"),
    ("b c d e f g", "sat on"),
    ("我爱", "北京天安门"),
    ("q", "w e r t y u i"),
    ("on", "the"),
]
SCORES = [0.9, 0.1, 0.7, 0.2, 0.5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(
        tmp_path_factory.mktemp("model") / "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


@pytest.fixture(scope="module")
def st():
    pytest.importorskip("datasets", reason="sentence-transformers' trainers need datasets")
    return pytest.importorskip("sentence_transformers")


@pytest.mark.parametrize("name", ["ranking", "cosent", "matryoshka", "cached"])
def test_sentence_transformer_trainer(name, folder, st, tmp_path):
    from datasets import Dataset

    def loss_of(model: nn.Module) -> nn.Module:
        from sentence_transformers import losses

        return {
            "ranking": lambda: losses.MultipleNegativesRankingLoss(model),
            "cosent": lambda: losses.CoSENTLoss(model),
            "matryoshka": lambda: losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), [32, 8]),
            "cached": lambda: losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2),
        }[name]()

    columns = {"anchor": [a for a, _ in PAIRS], "positive": [b for _, b in PAIRS]}
    data = Dataset.from_dict({**columns, "score": SCORES} if name == "cosent" else columns)

    def train(accelerated: bool):
        torch.manual_seed(0)  # of a pooler that the folder does not hold
        model = st.SentenceTransformer(str(folder), device="cpu")
        if accelerated:
            sentcore.accelerate(model)
        arguments = st.SentenceTransformerTrainingArguments(
            str(tmp_path), per_device_train_batch_size=5, **OPTIONS, **QUIET
        )
        return model, logged(st.SentenceTransformerTrainer(model, arguments, data, loss=loss_of(model)))

    compared(train)


def test_a_cached_loss_has_the_gradients_of_the_uncached_one_under_dropout(st, tmp_path):
    """It embeds twice, without gradients and with; the second time has to drop what the first one did."""
    from sentence_transformers import losses

    model = sentcore.accelerate(st.SentenceTransformer(str(make_bert_folder(tmp_path / "model")), device="cpu"))
    columns = [model.preprocess([pair[side] for pair in PAIRS]) for side in (0, 1)]
    ranking = losses.MultipleNegativesRankingLoss(model)
    cached = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)

    def parts(column: dict) -> list[dict]:
        return [
            {k: v[at : at + 2] if isinstance(v, torch.Tensor) else v for k, v in column.items()}
            for at in range(0, len(PAIRS), 2)
        ]

    found = []
    for which in ("cached", "uncached", "without dropout"):
        torch.manual_seed(8)
        model.zero_grad()
        model.train(which != "without dropout")
        if which == "cached":
            value = cached(columns, None)
        else:
            embedded = [torch.cat([model(part)["sentence_embedding"] for part in parts(column)]) for column in columns]
            value = ranking.compute_loss_from_embeddings(embedded, None)
        value.backward()
        found.append((value.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (loss, gradient), (other_loss, other), (_, plain) = found
    assert abs(loss - other_loss) <= 1e-5 * other_loss
    assert (gradient - other).norm() <= 1e-4 * other.norm()
    assert (gradient - plain).norm() > 0.1 * plain.norm()  # dropout did something


def test_cross_encoder_trainer(st, tmp_path):
    from datasets import Dataset

    classifier("BertForSequenceClassification", num_labels=1).save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model", SMALL["vocab_size"], 0, max_length=64)
    names = ("query", "response")
    data = Dataset.from_dict({name: [p[at] for p in PAIRS] for at, name in enumerate(names)} | {"label": SCORES})

    def train(accelerated: bool):
        torch.manual_seed(0)  # of a pooler that the folder does not hold
        model = st.CrossEncoder(str(tmp_path / "model"), device="cpu")
        if accelerated:
            sentcore.accelerate(model)
        arguments = st.CrossEncoderTrainingArguments(
            str(tmp_path / "out"), per_device_train_batch_size=5, **OPTIONS, **QUIET
        )
        return model, logged(st.CrossEncoderTrainer(model, arguments, data))

    compared(train)
