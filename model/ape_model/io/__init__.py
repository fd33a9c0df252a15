"""Files of weights, read without running anything in them.

checkpoint_reader  PyTorch checkpoints from strangers
safetensors_io     safetensors, written whole or not at all
read_errors        whatever a damaged file raises, as one line
"""
