"""Drawn shapes: their vocabulary, their captions, and the code that draws them."""

import itertools
import random
from dataclasses import dataclass

import torch


COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 210, 40),
    "purple": (150, 50, 190),
    "orange": (245, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = {"small": 0.19, "large": 0.29}  # radius as a share of the image's side
PLACES = {"center": (0.5, 0.5), "top": (0.5, 0.3), "bottom": (0.5, 0.7), "left": (0.3, 0.5), "right": (0.7, 0.5)}
BACKGROUNDS = {"white": (250, 250, 250), "gray": (128, 128, 128), "black": (10, 10, 10)}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
PLACE_PHRASES = {
    "center": "in the center",
    "top": "at the top",
    "bottom": "at the bottom",
    "left": "on the left",
    "right": "on the right",
}

# Random variation of an image: of the centre, as a share of the side, and of the radius, as a share of itself.
_PLACE_JITTER = 0.03
_SIZE_JITTER = 0.05
# distance from the middle at the first and the last frame of a video, as a share of the side
_TRAVEL = 0.2


@dataclass(frozen=True)
class Drawing:
    """One shape in an image; each field is a word of the vocabulary above."""

    color: str
    shape: str
    size: str
    place: str
    background: str

    @property
    def caption(self) -> str:
        """Returns the caption, which names all five attributes."""
        return f"a {self.size} {self.color} {self.shape} {PLACE_PHRASES[self.place]} on a {self.background} background"

    @classmethod
    def from_caption(cls, caption: str) -> "Drawing":
        """
        Returns the drawing with this caption.

        Args:
            caption (`str`): a caption as [`Drawing.caption`] builds it.

        Raises:
            ValueError: if no drawing has this caption.
        """
        for words in itertools.product(COLORS, SHAPES, SIZES, PLACES, BACKGROUNDS):
            if cls(*words).caption == caption:
                return cls(*words)
        example = cls("red", "cross", "small", "bottom", "white").caption
        raise ValueError(f'`caption` must be the caption of a drawing, such as "{example}", got {caption!r}.')

    @property
    def short_caption(self) -> str:
        """Returns a caption of colour and shape only, such as "a red cross"."""
        return f"a {self.color} {self.shape}"

    @property
    def answers(self) -> dict[str, str]:
        """Returns questions about the image and their answers."""
        return {
            "what color is the shape?": self.color,
            "what shape is it?": self.shape,
            "how large is the shape?": self.size,
            "where is the shape?": self.place,
            "what color is the background?": self.background,
        }

    description_request = "describe the image"


@dataclass(frozen=True)
class Motion:
    """One shape that crosses the middle of a video; each field is a word of the vocabulary above."""

    color: str
    shape: str
    size: str
    background: str
    direction: str

    @property
    def caption(self) -> str:
        """Returns the caption, which names all five attributes."""
        return f"a {self.size} {self.color} {self.shape} moving {self.direction} on a {self.background} background"

    @property
    def answers(self) -> dict[str, str]:
        """Returns questions about the video and their answers."""
        return {"which way does the shape move?": self.direction}

    description_request = "describe the video"


def _held_out(last: list[str], count: int, seed: int) -> set[tuple[str, str, str]]:
    """
    Chooses combinations of colour, shape and a third attribute to hold out from training.

    No pair of colour and shape loses more than one value of the third attribute. Shapes, colours and values are chosen
    evenly.

    Args:
        last (`list[str]`): values of the third attribute.
        count (`int`): number of combinations.
        seed (`int`): seed of the order in which pairs are chosen.
    """
    pairs = list(itertools.product(COLORS, SHAPES))
    random.Random(seed).shuffle(pairs)
    chosen = []
    used: dict[str, int] = {}  # how often a word was chosen
    for index in range(count):
        # the pair whose words were chosen least, so that the choice is even over shapes and colours
        pair = min(pairs, key=lambda pair: used.get(pair[0], 0) + used.get(pair[1], 0))
        pairs.remove(pair)
        for word in pair:
            used[word] = used.get(word, 0) + 1
        chosen.append((*pair, last[index % len(last)]))
    return set(chosen)


HELD_OUT_DRAWINGS = _held_out(list(PLACES), 12, seed=0)
HELD_OUT_MOTIONS = _held_out(list(DIRECTIONS), 10, seed=1)


def check_split(split: str) -> None:
    """Raises a `ValueError` unless `split` is `"train"` or `"test"`."""
    if split not in ("train", "test"):
        raise ValueError(f'`split` must be "train" or "test", got {split!r}.')


def drawings(split: str) -> list[Drawing]:
    """Returns all drawings of a split; `"train"` lacks the combinations of colour, shape and place of `"test"`."""
    check_split(split)
    every = [Drawing(*words) for words in itertools.product(COLORS, SHAPES, SIZES, PLACES, BACKGROUNDS)]
    return [d for d in every if ((d.color, d.shape, d.place) in HELD_OUT_DRAWINGS) == (split == "test")]


def motions(split: str) -> list[Motion]:
    """Returns all motions of a split; `"train"` lacks the combinations of colour, shape and direction of `"test"`."""
    check_split(split)
    every = [Motion(*words) for words in itertools.product(COLORS, SHAPES, SIZES, BACKGROUNDS, DIRECTIONS)]
    return [m for m in every if ((m.color, m.shape, m.direction) in HELD_OUT_MOTIONS) == (split == "test")]


def shape_distance(shape: str, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """
    Returns the signed distance to a shape around the origin, negative inside.

    Args:
        shape (`str`): one of `SHAPES`.
        x (`torch.Tensor`): horizontal coordinates, in any unit.
        y (`torch.Tensor`): vertical coordinates in the same unit, downwards.
        radius (`torch.Tensor`): radius in the same unit. The three tensors are broadcast together.
    """
    if shape == "circle":
        return (x.square() + y.square()).sqrt() - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.85 * radius
    if shape == "triangle":  # its point is up, and the centroid of its corners is the origin
        slanted = (x.abs() * 3**0.5 - y) / 2 - radius * 0.55
        return torch.maximum(slanted, y - radius * 0.55)
    arm = 0.34 * radius
    horizontal = torch.maximum(x.abs() - radius, y.abs() - arm)
    vertical = torch.maximum(y.abs() - radius, x.abs() - arm)
    return torch.minimum(horizontal, vertical)


def render(
    shapes: list[str],
    colors: torch.Tensor,
    backgrounds: torch.Tensor,
    centers: torch.Tensor,
    radii: torch.Tensor,
    side: int,
) -> torch.Tensor:
    """
    Renders one shape in each image, with smooth edges.

    Args:
        shapes (`list[str]` of length N): names of the shapes.
        colors (`torch.Tensor` of shape `(N, 3)`): colours of the shapes, in 0..255.
        backgrounds (`torch.Tensor` of shape `(N, 3)`): colours of the backgrounds, in 0..255.
        centers (`torch.Tensor` of shape `(N, 2)`): x and y of the centres, as shares of the side.
        radii (`torch.Tensor` of shape `(N,)`): radii as shares of the side.
        side (`int`): side of the images, in pixels.

    Returns:
        `torch.Tensor` of shape `(N, 3, side, side)`, uint8.
    """
    grid = torch.arange(side) + 0.5
    x = grid[None, None, :] - centers[:, 0, None, None] * side  # (N, 1, side), in pixels
    y = grid[None, :, None] - centers[:, 1, None, None] * side
    distance = torch.empty(len(shapes), side, side)
    for shape in set(shapes):
        rows = torch.tensor([index for index, name in enumerate(shapes) if name == shape])
        distance[rows] = shape_distance(shape, x[rows], y[rows], radii[rows, None, None] * side)
    cover = (0.5 - distance).clamp(0, 1)[:, None]  # share of the pixel inside the shape
    pixels = backgrounds[:, :, None, None] * (1 - cover) + colors[:, :, None, None] * cover
    return pixels.round().to(torch.uint8)


def _jitter(count: int, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws offsets `(count, 2)` of the centres and factors `(count,)` on the radii; none without a generator."""
    if generator is None:
        return torch.zeros(count, 2), torch.ones(count)
    noise = torch.rand(count, 3, generator=generator) * 2 - 1
    return noise[:, :2] * _PLACE_JITTER, 1 + noise[:, 2] * _SIZE_JITTER


def draw(drawings: list[Drawing], image_size: int = 32, generator: torch.Generator | None = None) -> torch.Tensor:
    """
    Draws images.

    Args:
        drawings (`list[Drawing]` of length N): one drawing for each image.
        image_size (`int`, *optional*, defaults to 32): side of the images in pixels.
        generator (`torch.Generator`, *optional*): source of small variations of position and size; without it there
            are none.

    Returns:
        `torch.Tensor` of shape `(N, 3, image_size, image_size)`, uint8.
    """
    offsets, scales = _jitter(len(drawings), generator)
    return render(
        [d.shape for d in drawings],
        torch.tensor([COLORS[d.color] for d in drawings], dtype=torch.float32),
        torch.tensor([BACKGROUNDS[d.background] for d in drawings], dtype=torch.float32),
        torch.tensor([PLACES[d.place] for d in drawings]) + offsets,
        torch.tensor([SIZES[d.size] for d in drawings]) * scales,
        image_size,
    )


def animate(
    motions: list[Motion], num_frames: int = 4, image_size: int = 32, generator: torch.Generator | None = None
) -> torch.Tensor:
    """
    Draws videos in which the shape crosses 0.4 of the side.

    Args:
        motions (`list[Motion]` of length N): one motion for each video.
        num_frames (`int`, *optional*, defaults to 4): frames of a video.
        image_size (`int`, *optional*, defaults to 32): side of the frames in pixels.
        generator (`torch.Generator`, *optional*): source of small variations of position and size; without it there
            are none.

    Returns:
        `torch.Tensor` of shape `(N, num_frames, 3, image_size, image_size)`, uint8.
    """
    offsets, scales = _jitter(len(motions), generator)
    steps = torch.linspace(-_TRAVEL, _TRAVEL, num_frames) if num_frames > 1 else torch.zeros(1)
    headings = torch.tensor([DIRECTIONS[m.direction] for m in motions], dtype=torch.float32)
    centers = 0.5 + offsets[:, None] + headings[:, None] * steps[None, :, None]  # (N, F, 2)

    def for_each_frame(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).repeat_interleave(num_frames, 0)

    frames = render(
        [m.shape for m in motions for _ in range(num_frames)],
        for_each_frame([COLORS[m.color] for m in motions]),
        for_each_frame([BACKGROUNDS[m.background] for m in motions]),
        centers.flatten(0, 1),
        (torch.tensor([SIZES[m.size] for m in motions]) * scales).repeat_interleave(num_frames),
        image_size,
    )
    return frames.unflatten(0, (len(motions), num_frames))


__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "DIRECTIONS",
    "PLACES",
    "SHAPES",
    "SIZES",
    "Drawing",
    "Motion",
    "animate",
    "draw",
    "drawings",
    "motions",
    "render",
]
