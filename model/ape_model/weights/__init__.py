"""Models on disk.

registry         find_model: a name or path to a model's files
built_in         the models that ship
import_official  a released checkpoint to our two files
hub              download of the released checkpoints
state_dict       weights of a module to and from a file, strict both ways
"""
