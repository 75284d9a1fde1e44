"""VQA accuracy: answers compared with those of several people, as the VQA challenge defines it."""

import re


_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# contractions without one of their apostrophes -> the correct contraction
_MISSPELT = {
    word[:index] + word[index + 1 :]: word
    for word in _CONTRACTIONS.split()
    for index in range(len(word))
    if word[index] == "'"
}


def normalize_answer(answer: str) -> str:
    """
    Converts an answer to the form in which answers are compared (visualqa.org/evaluation).

    The result is lower case and has no articles. Numbers up to ten are digits, and contractions have their
    apostrophes. All punctuation is removed, except apostrophes, colons and decimal points.

    Args:
        answer (`str`): an answer.
    """
    text = " ".join(answer.split())
    # As in the code of the challenge: a mark becomes a space. It is deleted instead if it is beside a space anywhere
    # in the text, or if the text has a comma between two digits.
    in_number = re.search(r"\d,\d", text) is not None
    marks: dict[str, str | int | None] = {
        mark: "" if in_number or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION
    }
    text = text.translate(str.maketrans(marks))
    words = re.sub(r"\.(?!\d)", "", text).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_MISSPELT.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(predictions: list[str], references: list[list[str]]) -> float:
    """
    Computes the VQA accuracy (Antol et al., 2015), averaged over questions.

    The accuracy of one answer is the mean over people of `min(1, m / 3)`. Here m is the number of *other* people who
    gave the predicted answer.

    Args:
        predictions (`list[str]` of length N): the predicted answer to each question.
        references (`list[list[str]]` of length N): the answers of people to each question, ten in VQA. If there is
            only one, the accuracy is 1 if the two agree, and otherwise 0.

    Returns:
        A share in [0, 1].

    Raises:
        ValueError: if the lengths differ, both are 0, or a question has no reference.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"`predictions` and `references` must have the same length, got {len(predictions)} and {len(references)}."
        )
    if not references:
        raise ValueError("`references` must contain at least one question, got none.")
    return sum(map(answer_accuracy, predictions, references)) / len(references)


def answer_accuracy(prediction: str, references: list[str]) -> float:
    """
    Computes the VQA accuracy of one answer, as [`vqa_accuracy`] does.

    Args:
        prediction (`str`): the predicted answer.
        references (`list[str]`): the answers of people, at least one.

    Raises:
        ValueError: if there is no reference.
    """
    if isinstance(references, str) or not references:
        raise ValueError(f"each entry of `references` must be a list of at least one answer, got {references!r}.")
    agreeing = [normalize_answer(reference) == normalize_answer(prediction) for reference in references]
    if len(agreeing) == 1:
        return float(agreeing[0])
    # leave each person out in turn, as the challenge does
    return sum(min(1, (sum(agreeing) - left_out) / 3) for left_out in agreeing) / len(agreeing)


__all__ = ["answer_accuracy", "normalize_answer", "vqa_accuracy"]
