"""From images to regions: preprocessing, CUDA graphs, selection."""
