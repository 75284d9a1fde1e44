"""The split of concepts, styles and clips into training and test, fixed by hashes of their names."""

import hashlib
from dataclasses import dataclass

from .concepts import Concept
from .packages import STYLES


# Shares that are held out: of the families, of the other families in one unit of styles, and of the clips.
HELD_OUT_CONCEPTS = 0.04
HELD_OUT_PAIRS = 0.25
HELD_OUT_CLIPS = 0.12
# Both Fluent styles share their outlines, so they are held out together.
STYLE_UNITS = (("noto",), ("twemoji",), ("flat", "3d"))
# Larger families stay in training: to hold one out would take a whole kind of face away.
LARGEST_HELD_OUT_FAMILY = 4

# Groups that the shipped model learns. Flags, symbols and people are left out: a training on CPUs cannot teach all.
TAUGHT_GROUPS = (
    "Smileys & Emotion",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
)

# Concepts that look alike in two styles or more: root mean square distance below 0.075 between their images of
# 16 x 16 pixels with alpha, each channel in [0, 1]. `examples/emoji/near_duplicates.py` measures it.
FAMILIES = (
    ("1st place medal", "3rd place medal", "sports medal"),
    ("angry face with horns", "smiling face with horns"),
    (
        "anguished face",
        "astonished face",
        "disappointed face",
        "face with hand over mouth",
        "face with open eyes and hand over mouth",
        "frowning face with open mouth",
        "hushed face",
        "pensive face",
        "persevering face",
        "relieved face",
        "smirking face",
        "worried face",
    ),
    ("artist", "man artist", "woman artist"),
    ("astronaut", "man astronaut", "woman astronaut"),
    ("back arrow", "end arrow"),
    ("bathtub", "person taking bath"),
    (
        "boy",
        "child",
        "man",
        "man beard",
        "man curly hair",
        "man red hair",
        "person",
        "person beard",
        "person red hair",
    ),
    ("camel", "two-hump camel"),
    ("camera", "camera with flash"),
    ("cat face", "cat with wry smile", "grinning cat", "grinning cat with smiling eyes", "kissing cat", "pouting cat"),
    ("christmas tree", "evergreen tree"),
    ("club suit", "spade suit"),
    ("coin", "full moon", "yellow circle"),
    (
        "confused face",
        "expressionless face",
        "face with diagonal mouth",
        "face with raised eyebrow",
        "face without mouth",
        "frowning face",
        "kissing face",
        "kissing face with closed eyes",
        "kissing face with smiling eyes",
        "neutral face",
        "shushing face",
        "slightly frowning face",
        "slightly smiling face",
        "smiling face",
        "smiling face with smiling eyes",
    ),
    ("construction worker", "man construction worker"),
    ("cook", "man cook", "woman cook"),
    ("cool button", "free button", "input latin letters", "new button"),
    ("copyright", "registered"),
    ("couple with heart man, man", "couple with heart woman, man"),
    ("crossed fingers", "index pointing up"),
    ("detective", "man detective", "woman detective"),
    ("divide", "plus"),
    ("dotted six-pointed star", "star of david"),
    (
        "down arrow",
        "down-left arrow",
        "downwards button",
        "eject button",
        "fast down button",
        "fast up button",
        "information",
        "keycap #",
        "keycap *",
        "keycap 0",
        "keycap 1",
        "keycap 2",
        "keycap 3",
        "keycap 4",
        "keycap 5",
        "keycap 6",
        "keycap 7",
        "keycap 8",
        "keycap 9",
        "pause button",
        "play button",
        "reverse button",
        "up arrow",
        "up-down arrow",
        "up-right arrow",
        "upwards button",
    ),
    ("down-right arrow", "up-left arrow"),
    ("egg", "onion"),
    (
        "eight o’clock",
        "eight-thirty",
        "eleven o’clock",
        "eleven-thirty",
        "five o’clock",
        "five-thirty",
        "four o’clock",
        "four-thirty",
        "nine o’clock",
        "nine-thirty",
        "one o’clock",
        "one-thirty",
        "seven o’clock",
        "seven-thirty",
        "six o’clock",
        "six-thirty",
        "ten o’clock",
        "ten-thirty",
        "three o’clock",
        "three-thirty",
        "twelve o’clock",
        "twelve-thirty",
        "two o’clock",
        "two-thirty",
    ),
    ("ewe", "ram"),
    ("face holding back tears", "pleading face"),
    ("face with tongue", "squinting face with tongue"),
    ("factory worker", "man factory worker", "woman factory worker"),
    (
        "family",
        "family adult, adult, child",
        "family man, man, boy",
        "family man, man, girl",
        "family man, woman, boy",
        "family man, woman, girl",
        "family woman, woman, boy",
        "family woman, woman, girl",
    ),
    (
        "family adult, adult, child, child",
        "family man, man, boy, boy",
        "family man, woman, boy, boy",
        "family woman, woman, boy, boy",
    ),
    ("family adult, child", "family man, boy", "family man, girl", "family woman, boy", "family woman, girl"),
    (
        "family adult, child, child",
        "family man, boy, boy",
        "family man, girl, boy",
        "family man, girl, girl",
        "family woman, boy, boy",
        "family woman, girl, boy",
        "family woman, girl, girl",
    ),
    (
        "family man, man, girl, boy",
        "family man, man, girl, girl",
        "family man, woman, girl, boy",
        "family man, woman, girl, girl",
        "family woman, woman, girl, boy",
        "family woman, woman, girl, girl",
    ),
    ("farmer", "man farmer", "woman farmer"),
    (
        "fast reverse button",
        "fast-forward button",
        "last track button",
        "left arrow",
        "left-right arrow",
        "next track button",
        "play or pause button",
        "right arrow",
    ),
    ("firefighter", "man firefighter", "woman firefighter"),
    ("fog", "white large square"),
    ("genie", "man genie"),
    ("grinning face", "grinning face with big eyes"),
    ("grinning face with smiling eyes", "grinning squinting face"),
    ("guard", "man guard", "woman guard"),
    ("hand with fingers splayed", "vulcan salute"),
    ("health worker", "man health worker", "woman health worker"),
    ("heart suit", "red heart"),
    ("inbox tray", "outbox tray"),
    ("input latin lowercase", "input latin uppercase", "input numbers", "input symbols"),
    ("japanese post office", "post office"),
    ("judge", "man judge"),
    ("kiss", "kiss man, man", "kiss woman, man", "kiss woman, woman"),
    ("latin cross", "orthodox cross"),
    ("left speech bubble", "right anger bubble", "speech balloon"),
    ("locked", "unlocked"),
    ("mage", "woman mage"),
    ("man bald", "old man", "person bald", "woman bald"),
    ("man biking", "person biking", "woman biking"),
    ("man blond hair", "man white hair", "person blond hair", "person white hair"),
    ("man bouncing ball", "woman bouncing ball"),
    ("man cartwheeling", "person cartwheeling", "woman cartwheeling"),
    ("man climbing", "person climbing", "woman climbing"),
    ("man facepalming", "man frowning"),
    ("man fairy", "woman fairy"),
    ("man golfing", "person golfing", "woman golfing"),
    ("man in lotus position", "woman in lotus position"),
    ("man in manual wheelchair", "person in manual wheelchair", "woman in manual wheelchair"),
    (
        "man in manual wheelchair facing right",
        "person in manual wheelchair facing right",
        "woman in manual wheelchair facing right",
    ),
    ("man in motorized wheelchair", "person in motorized wheelchair", "woman in motorized wheelchair"),
    (
        "man in motorized wheelchair facing right",
        "person in motorized wheelchair facing right",
        "woman in motorized wheelchair facing right",
    ),
    ("man in tuxedo", "person in tuxedo", "woman in tuxedo"),
    ("man juggling", "person juggling", "woman juggling"),
    ("man kneeling", "person kneeling", "woman kneeling"),
    ("man kneeling facing right", "person kneeling facing right", "woman kneeling facing right"),
    ("man lifting weights", "woman lifting weights"),
    ("man mechanic", "mechanic", "woman mechanic"),
    ("man mountain biking", "person mountain biking", "woman mountain biking"),
    ("man office worker", "office worker", "woman office worker"),
    ("man pilot", "pilot", "woman pilot"),
    ("man playing handball", "woman playing handball"),
    ("man playing water polo", "person playing water polo", "woman playing water polo"),
    ("man police officer", "police officer", "woman police officer"),
    ("man rowing boat", "person rowing boat", "woman rowing boat"),
    ("man running", "person running", "woman running"),
    ("man running facing right", "person running facing right", "woman running facing right"),
    ("man scientist", "scientist", "woman scientist"),
    ("man standing", "person standing", "woman standing"),
    ("man student", "student", "woman student"),
    ("man superhero", "superhero", "woman superhero"),
    ("man supervillain", "supervillain", "woman supervillain"),
    ("man teacher", "teacher", "woman teacher"),
    ("man technologist", "technologist", "woman technologist"),
    ("man vampire", "vampire"),
    ("man walking", "person walking", "woman walking"),
    ("man walking facing right", "person walking facing right", "woman walking facing right"),
    ("man wearing turban", "person wearing turban", "woman wearing turban"),
    ("man with veil", "person with veil", "woman with veil"),
    ("man with white cane", "person with white cane", "woman with white cane"),
    ("man with white cane facing right", "person with white cane facing right", "woman with white cane facing right"),
    ("man zombie", "zombie"),
    ("men with bunny ears", "people with bunny ears", "women with bunny ears"),
    ("minus", "wavy dash"),
    ("new moon", "new moon face"),
    ("peace symbol", "wheel of dharma"),
    ("person facepalming", "person frowning"),
    ("person swimming", "woman swimming"),
    ("record button", "stop button"),
    ("red triangle pointed down", "red triangle pointed up", "small orange diamond"),
    ("repeat button", "repeat single button"),
    ("revolving hearts", "two hearts"),
    ("snowman", "snowman without snow"),
    ("speaker high volume", "speaker low volume", "speaker medium volume"),
    ("umbrella", "umbrella with rain drops"),
    ("woman", "woman beard"),
    ("woman and man holding hands", "women holding hands"),
    ("woman facepalming", "woman frowning"),
)
_FAMILY_OF = {name: family[0] for family in FAMILIES for name in family}
_FAMILY_SIZE = {family[0]: len(family) for family in FAMILIES}


@dataclass(frozen=True)
class Split:
    """
    Says what is held out of training for one concept.

    Args:
        is_concept (`bool`): the concept is held out in all styles, with its clip.
        styles (`tuple[str, ...]`): styles that are held out.
        is_clip (`bool`): the clip is held out.
    """

    is_concept: bool
    styles: tuple[str, ...]
    is_clip: bool


def family_of(name: str) -> str:
    """Returns the name that stands for all concepts that look like the concept `name`."""
    return _FAMILY_OF.get(name, name)


def split_of(concept: Concept) -> Split:
    """Returns what is held out for a concept; the same for all concepts of a family."""
    family = family_of(concept.name)
    if _FAMILY_SIZE.get(family, 1) > LARGEST_HELD_OUT_FAMILY:
        return Split(False, (), False)
    if _fraction("concept", family) < HELD_OUT_CONCEPTS:
        return Split(True, tuple(STYLES), True)
    styles: tuple[str, ...] = ()
    if _fraction("pair", family) < HELD_OUT_PAIRS:
        styles = STYLE_UNITS[int(_fraction("unit", family) * len(STYLE_UNITS))]
    # A frame of a clip shows the concept in the 3D style.
    is_clip = "3d" in styles or _fraction("clip", family) < HELD_OUT_CLIPS
    return Split(False, styles, is_clip)


def is_taught(concept: Concept) -> bool:
    """Returns whether the shipped model learns a concept."""
    return concept.group in TAUGHT_GROUPS and "o’clock" not in concept.name and not concept.name.endswith("-thirty")


def _fraction(purpose: str, family: str) -> float:
    """Returns a number in [0, 1) that depends on the texts alone."""
    digest = hashlib.sha256(f"vilau emoji {purpose} {family}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


__all__ = ["FAMILIES", "STYLE_UNITS", "TAUGHT_GROUPS", "Split", "family_of", "is_taught", "split_of"]
