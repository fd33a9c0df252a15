"""Which prompts a training step asks for."""
