"""Fine-tuning of a released model (`ape-stream train --mode`): its words, its heads, or all of it.

run, config     a whole run; its settings
mode, modes     the modes; which weights each of them learns
lora            low-rank layers, merged at the end
dataset, words  images as batches; prompts and negatives as vectors
features, step  what frozen parts make of an image, kept on disk; the losses of a batch
budget          memory that a run needs, before it starts
scores, export  how good and what was forgotten; a model or a bank that `--model` takes
"""
