"""Accuracy of the VQA challenge, as a metric for `evaluate.load`."""

import datasets
import evaluate

from vilau_hf.evaluation.vqa_accuracy import vqa_accuracy


_DESCRIPTION = """
Accuracy on questions that several people answered. Compared with all people but one, an answer counts 1/3 for each
who gave it, and at most 1. The accuracy is the mean over who is left out, and over questions. Answers are first
normalised as described at visualqa.org/evaluation.
"""

_CITATION = """
@inproceedings{antol2015vqa,
  title={{VQA}: Visual Question Answering},
  author={Antol, Stanislaw and Agrawal, Aishwarya and Lu, Jiasen and Mitchell, Margaret and Batra, Dhruv and
    Zitnick, C. Lawrence and Parikh, Devi},
  booktitle={ICCV},
  year={2015}
}
"""

_INPUTS = """
Args:
    predictions: answer to each question.
    references: list of people's answers to each question, ten in VQA.
Returns:
    vqa_accuracy: mean accuracy in [0, 1].
"""


class VqaAccuracy(evaluate.Metric):
    """Metric with the accuracy of the VQA challenge."""

    # Abstract in the base class: describes the metric and the types of its inputs. The documentation of `evaluate`
    # asks for this method and for `_compute`.
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"vqa_accuracy": vqa_accuracy(predictions, references)}
