import importlib
import threading

import numpy as np
import pytest
from PIL import Image
from results import PROMPTS  # noqa: F401

import ape_stream
from ape_stream.errors import PluginError, PromptError, SourceError, UsageError
from ape_stream.find import BATCH, KEPT, LoadedModel
from ape_stream.pixels import to_bgr
from ape_stream.testing import OraclePerceiver
