"""
The verbs of the `vilau` command, one module for each verb.

Each module has `HELP` (one line), `add_arguments(parser)` and `run(args)`. Only `run` imports libraries. So
`vilau --help` and error messages about arguments appear at once.
"""
