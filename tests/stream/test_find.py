from results import PROMPTS  # noqa: F401
