"""Files of weights, read without running anything in them.

checkpoint_reader  PyTorch checkpoints of unknown origin
safetensors_io     safetensors, written whole or not at all
read_errors        all errors of a damaged file, as one line
"""
