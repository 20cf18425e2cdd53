"""What the quality benchmarks share: data sets, methods, scores, runs in processes of their own, and the page."""
