"""The original release of VILA-U: its files, its weights, and their conversion.

`convert_vilau_weights_to_hf.py` converts or loads a release. `release.py` maps its configurations, tokenizer and
processor, and `weights.py` maps its tensors. `weight_files.py` reads and writes one tensor at a time.
"""
