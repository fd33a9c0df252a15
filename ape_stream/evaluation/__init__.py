"""How good is a model: any perceiver judged on any synthetic world, or on labelled images.

synthetic         evaluate: all figures of one model
plan              EvaluationPlan: what is drawn, in which sizes
names, sentences  words with synonyms, absent and unknown ones; one thing described among several
tracks            identities in videos
detection         average precision on a user's labelled images
semantic, labelled  semantic maps against label images; folders of these
precision         average precision, precision and recall, by pycocotools
timing            a perceiver that is timed
benchmarks        the benchmarks of the paper
command           `ape-stream eval`
"""

from ape_stream.evaluation.plan import EvaluationPlan
from ape_stream.evaluation.synthetic import evaluate

__all__ = ["EvaluationPlan", "evaluate"]
