"""What training leaves and import brings: base models, custom models, their lineage.

In: folders of weights with what is known of them. Out: the same by id, ARN or name. The room opens no weights but to
read their headers, and knows neither HTTP nor how a model is served.
"""

from outcrop.registry.base_models import BaseModel
from outcrop.registry.custom_models import CustomModel
from outcrop.registry.data_sets import DataSet, Origin
from outcrop.registry.imported_models import ImportedModel
from outcrop.registry.lineage import Node, trace
from outcrop.registry.registry import Registry, Weights

__all__ = ["BaseModel", "CustomModel", "DataSet", "ImportedModel", "Node", "Origin", "Registry", "Weights", "trace"]
