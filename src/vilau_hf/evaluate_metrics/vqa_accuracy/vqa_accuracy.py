"""Accuracy of the VQA challenge, for `evaluate.load`."""

import datasets
import evaluate

from vilau_hf.evaluation.vqa_accuracy import vqa_accuracy


_DESCRIPTION = """
Accuracy on questions that several people answered: an answer that three others gave as well is right, one that fewer
gave counts a third for each. Answers are normalised first, as described at visualqa.org/evaluation.
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
    predictions: one answer a question.
    references: a list of what people answered to it, ten in VQA.
Returns:
    vqa_accuracy: share in [0, 1].
"""


class VqaAccuracy(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions, references):
        return {"vqa_accuracy": vqa_accuracy(predictions, references)}
