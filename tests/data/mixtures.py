"""Small mixtures for the tests of mixtures and streams."""

import json

from vilau_hf.data.mixture import Mixture, MixtureSource

from .converters.sources import save_image


SIZES = {"a": 7, "b": 23, "c": 1}


def write_chats(folder, name, size, num_files=1):
    """Writes `size` questions with the ids 0, 1 and so on in LLaVA's JSON, in one file or several."""
    rows = [
        {"id": number, "conversations": [{"from": "human", "value": "what"}, {"from": "gpt", "value": "a square"}]}
        for number in range(size)
    ]
    for index in range(num_files):
        (folder / f"{name}-{index}.json").write_text(json.dumps(rows[index::num_files]))
    return str(folder / f"{name}-*.json")


def chats(folder, sizes=SIZES, weights=None, stopping_strategy="all_exhausted", num_files=1, seed=0):
    sources = [
        MixtureSource(write_chats(folder, name, size, num_files), "llava", name, (weights or {}).get(name, 1))
        for name, size in sizes.items()
    ]
    return Mixture(sources, seed, stopping_strategy)


def once(folder, **kwargs):
    return chats(folder, stopping_strategy="all_exhausted_without_replacement", **kwargs)


ALL_IDS = sorted(f"{name}/{number}" for name, size in SIZES.items() for number in range(size))


def write_images(folder, bad=()):
    """Writes twenty images in LLaVA's JSON. The files of those in `bad` are not images."""
    rows = []
    for number in range(20):
        save_image(folder / f"{number}.png", number)
        if number in bad:
            (folder / f"{number}.png").write_text("not an image")
        talk = [{"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": "a square"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": talk})
    (folder / "images.json").write_text(json.dumps(rows))
    return Mixture([MixtureSource(str(folder / "images.json"), "llava", "images")])
