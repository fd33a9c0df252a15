"""Cost of a whole frame: frame compares forms of a model, profiler times its stages."""
