"""``python -m examples.demo``: brings everything up, tells the story, and leaves the cluster up."""

from __future__ import annotations

import signal
import sys
import time

from examples.demo.ground import Ground, bring_up, setting
from examples.demo.narrator import Narrator
from examples.demo.service import Unexpected
from examples.demo.story import tell
from tests.cluster.errors import ClusterError


class _Interruption:
    """Remembers that somebody pressed Ctrl-C."""

    def __init__(self) -> None:
        self.noticed = False
        signal.signal(signal.SIGINT, self._notice)

    def _notice(self, *_: object) -> None:
        self.noticed = True
        raise KeyboardInterrupt


def main() -> int:
    """Run the demo, and return the exit status: 0 when every step ended as it should."""
    narrator = Narrator()
    interruption = _Interruption()
    began = time.monotonic()
    ground: Ground | None = None
    try:
        narrator.say(f"ModelRollout, the demo: {setting()}.")
        ground = bring_up()
        pictures = tell(ground, narrator)
    except ClusterError as error:
        # Ctrl-C goes to the programs under way as well, and their end may be noticed first.
        if interruption.noticed:
            narrator.interrupted(ground)
            return 130
        narrator.problem(str(error))
        return 1
    except Unexpected as surprise:
        narrator.surprise(surprise)
        return 1
    except KeyboardInterrupt:
        narrator.interrupted(ground)
        return 130
    narrator.farewell(ground, pictures, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
