"""robolearn: simulated tasks and a real arm behind one gymnasium interface, and what learns on it.

Importing the package registers the environments with gymnasium.
"""

import robolearn.envs  # noqa: F401  (registers robolearn/<Task>-v0)
import robolearn.hardware  # noqa: F401  (registers robolearn/SO101-v0)

__version__ = "0.1.0"
