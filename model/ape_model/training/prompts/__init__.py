"""The prompts of a training step.

sampler          PromptSampler: chooses and embeds them
negatives        NegativeSampler: all names of a data set, and words of other things
federated        which classes, where data are not labelled exhaustively
embedding_queue  EmbeddingQueue: earlier phrases (APE's embedding bank)
"""
