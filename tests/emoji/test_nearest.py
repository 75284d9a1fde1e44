import torch

from vilau_hf.emoji.nearest import as_pixels, nearest_images, share_nearer_to_truth

from .test_scores import pixels_of, plain


def test_finds_the_nearest_images_with_their_distances():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    drawn = images[[5, 2]].clone()
    drawn[1, 0, 0, 0] ^= 16  # one of 48 values changes by 16
    distances, indices = nearest_images(drawn, images, 2)
    assert indices[:, 0].tolist() == [5, 2]
    assert distances[0, 0] == 0
    torch.testing.assert_close(distances[1, 0], torch.tensor(16 / 48**0.5))
    for row, index in zip(range(2), indices[:, 1].tolist(), strict=True):
        others = [other for other in range(7) if other != indices[row, 0]]
        naive = {other: float(((drawn[row].double() - images[other]) ** 2).mean().sqrt()) for other in others}
        assert index == min(naive, key=naive.get)


def test_a_copy_of_a_training_image_is_not_nearer_to_the_truth():
    train = pixels_of([plain("red"), plain("green")])
    true = pixels_of([plain("blue"), plain("blue")])
    drawn = torch.stack([train[0], true[1]])
    score = share_nearer_to_truth(drawn, true, train)
    assert score.value == 0.5 and score.count == 2


def test_pixels_have_the_background_behind_them():
    one = plain("red")
    one.rgba[0, 0, 3] = 0
    pixels = as_pixels([one], "white")
    assert pixels[0, :, 0, 0].tolist() == [255, 255, 255] and pixels[0, :, 1, 1].tolist() == [255, 0, 0]
