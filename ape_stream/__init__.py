"""Words in, tracked masks out, on any video."""
