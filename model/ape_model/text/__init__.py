"""Prompts to embeddings.

embedder                     PromptEmbedder: kind and embedding of every prompt
cache, embedding_file        embeddings on disk: of this user; a bank to carry along
clip_tower, clip_tokenizer   the text towers of the released models
nano_tower                   nano's small text tower
"""
