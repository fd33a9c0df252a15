"""APE, the network: torch modules, presets, weights, text and training."""
