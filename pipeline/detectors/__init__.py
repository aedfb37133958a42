"""One file per detector; which of them run is named in the settings."""
