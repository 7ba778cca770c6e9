"""Session Config Cache: session configs for fleets of agents, kept exactly, in Redis.

The layers, from the top: `cli` and `supervisor` (processes), `http` (aiohttp), `store` (redis and Lua), `configs` (pure: the
stored document, its index terms, containment). Imports point down only; `tests/unit/test_layers.py` holds that.
"""

__version__ = "0.1.0"
