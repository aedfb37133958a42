"""Engineers' measurements, side by side with peers; never installed."""
