"""Try a folder's tokenizer and chat template in a process of its own: `python -m outcrop.rendering FOLDER`.

A template is a program. The sandbox keeps it from the machine, and here it is kept from taking all of the machine's time
and memory: what does not write a short conversation within the limits is not let into the service.
"""

import json
import resource
import sys
from pathlib import Path

from outcrop.errors import Invalid
from outcrop.rendering.conversation import Conversation
from outcrop.rendering.renderer import Renderer

MOST_CPU_S, MOST_BYTES = 10, 4 << 30


def main(folder: Path) -> int:
    """Print what was found as JSON; exit status 0 when the folder can be used."""
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    try:
        renderer = Renderer(folder)
        turns = ["Where is the quarry?", "Behind the hill.", "When does it open?", "At nine."]
        rows = [renderer.training_row(Conversation.of(*turns, system="Answer briefly.")) for _ in range(3)]
    except Invalid as error:
        print(json.dumps({"reason": error.message}))
        return 1
    except MemoryError:
        print(
            json.dumps({"reason": f"the chat template takes more than {MOST_BYTES >> 30} GB for a short conversation"})
        )
        return 1
    print(json.dumps({"has_template": renderer.has_template, "tokens": len(rows[0].tokens)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
