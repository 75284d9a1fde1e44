"""
The verbs of the `vilau` command, one module for each.

Each has `HELP` (one line), `add_arguments(parser)`, which imports no library, and `run(args)`, which imports what it
needs. So `vilau --help` and mistakes in arguments are answered at once.
"""
