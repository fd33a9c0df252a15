"""Training: losses, assigners, the embedding bank, data and the loop. The model never imports it."""
