"""Commands of `ape-stream` that belong to the network; mounted through entry points.

    models, prompts, bench   `ape-stream models | prompts | bench`
    common                   errors in one line, tables, progress

They import torch only when they run: `ape-stream --help` must not wait for it.
"""
