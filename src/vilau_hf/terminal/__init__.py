"""
Chats and images in a terminal.

`rich` draws text, tables and bars. It is installed with transformers, whose command line needs it. It knows what a
terminal can show, and follows `NO_COLOR`. Two small files of this package show images:

- `half_blocks.py` shows an image as coloured half blocks, which every terminal with 256 colours can.
- `sixel.py` encodes an image as sixel graphics, and asks the terminal whether it can show them.

`textual-image` does both as well. It is not used: it has the licence LGPL, its versions since 2026 need Python 3.12,
and its import asks the terminal, even if no image will be shown.
"""
