"""The console: pages for a browser, which ask the public API and nothing else."""
