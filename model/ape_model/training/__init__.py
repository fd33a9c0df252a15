"""Training: the network never imports it.

command, recipe, train    `ape-stream train`; a TOML file; one whole run
task, trainer, state      data sets of a run; the loop, which resumes at any step
engine, rates, official   the loop of the released models; learning rates; checkpointing: memory
finetuning, dropout  `--mode`: prompt, head, lora or full; what is left out in a step
validate, export          AP while training; a model that `--model` takes
data                      batches of the drawn world and of COCO files, augmentation
prompts                   which prompts a step has
losses, errors            assignment of predictions, and all losses; DataError and others
text_tower                distillation of nano's text tower
"""
