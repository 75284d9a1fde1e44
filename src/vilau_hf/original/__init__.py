"""The original release of VILA-U: its files, its weights, and their conversion."""
