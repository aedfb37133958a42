"""``python -m pacs_bridge``: the same as ``ctriage``."""

from pacs_bridge.cli import main

main()
