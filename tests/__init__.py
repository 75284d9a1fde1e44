"""Tests. Before any of them is imported, private names of libraries that we import are checked."""

from .compat_files import check_compat_files


check_compat_files()
