"""How good is a model: any perceiver judged on any synthetic world, by public libraries."""

from ape_stream.evaluation.synthetic import EvaluationPlan, evaluate

__all__ = ["EvaluationPlan", "evaluate"]
