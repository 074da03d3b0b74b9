"""Everything between audio files and batches: corpora, features, feature stores, folds and leak checks."""
