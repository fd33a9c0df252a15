"""Training: losses, assigners, prompts, data, the loop. The model never imports it."""
