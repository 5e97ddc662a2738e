"""The HTTP edge: takes bytes, asks `inference` and `gallery`, and answers JSON or a problem."""
