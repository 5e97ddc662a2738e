"""The embedded gallery: embeddings and labels on disk, exact search in memory."""
