"""Training: the network never imports it.

command, recipe, train    `ape-stream train`; a TOML file of nano; one whole run of it
engine, settings, ranges, state  the one loop, which resumes; its settings, checked; its states
averaging, progress, rates  averaged weights; lines of progress; learning rates
nano, official, finetuning  what is given to the loop: nano, the released models, `--mode`
task, dropout             data sets of nano; what is left out in a step; checkpointing: memory
validate, export          AP while training; a model that `--model` takes
data                      batches of the drawn world and of COCO files, augmentation
prompts                   which prompts a step has
losses, errors            assignment of predictions, and all losses; DataError and others
text_tower                distillation of nano's text tower
"""
