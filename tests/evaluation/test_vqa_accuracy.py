import pytest

from vilau_hf.evaluation.vqa_accuracy import normalize_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("Yes.", "yes"),
        ("3.5", "3.5"),
        ("U.S.A.", "usa"),
        ("Two cats", "2 cats"),
        ("none", "0"),
        ("the dog and a cat", "dog and cat"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("the girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("100,978", "100978"),
        ("red,green", "red green"),
        ("red, green", "red green"),
        ("t-shirt", "t shirt"),
        ("t-shirt - blue", "tshirt blue"),
        ("what?", "what"),
        ("\tleft\n side ", "left side"),
    ],
)
def test_answers_are_normalised_as_the_challenge_describes(answer, normalized):
    assert normalize_answer(answer) == normalized


@pytest.mark.parametrize(
    ("agreeing", "expected"),
    # (m-1)/3 for those who agree and m/3 for the rest, at most 1, over ten people
    [(0, 0.0), (1, 9 * 1 / 30), (2, (2 * 1 + 8 * 2) / 30), (3, (3 * 2 + 7 * 3) / 30), (4, 1.0), (10, 1.0)],
)
def test_accuracy_is_the_mean_over_all_choices_of_nine_people(agreeing, expected):
    references = ["2"] * agreeing + ["other"] * (10 - agreeing)
    assert vqa_accuracy(["Two."], [references]) == pytest.approx(expected)


def test_questions_count_alike_and_a_single_reference_is_matched():
    assert vqa_accuracy(["a red ball", "blue"], [["Red ball"], ["green"]]) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], []), "the same length, got 1 and 0"),
        (([], []), "at least one question"),
        ((["a"], [[]]), r"a list of at least one answer, got \[\]"),
        ((["a"], ["a"]), "a list of at least one answer, got 'a'"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        vqa_accuracy(*arguments)
