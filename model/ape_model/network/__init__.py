"""The network of the paper: modules alone, no files, no text towers, no selection."""
