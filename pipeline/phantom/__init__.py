"""Digital patients with known truth, and lesions put into any volume: for demo, tests and benchmarks."""
