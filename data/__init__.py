"""From corpora to batches: readers, the front-end, feature stores, folds, leaks, and the demo corpus."""
