"""The model file: the graph, int8, the check against PyTorch, and what the file says about itself."""
