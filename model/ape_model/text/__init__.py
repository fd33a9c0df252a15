"""Prompts to embeddings: text towers, tokenizers, caches."""
