"""Registry -> a model that answers.

In: token ids for a model, a deployment or a provisioned throughput. Out: token ids as they come. Engines are child
processes, one per set of base weights, started when first asked for. The room speaks token ids: it knows neither text
nor templates, and never imports torch outside engines/.
"""

from outcrop.serving.capacity import Capacity
from outcrop.serving.deployments import Deployment, Provisioned
from outcrop.serving.protocol import Generate, Reply
from outcrop.serving.serving import Serving, Target

__all__ = ["Capacity", "Deployment", "Generate", "Provisioned", "Reply", "Serving", "Target"]
