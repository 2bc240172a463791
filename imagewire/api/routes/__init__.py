"""One file for each kind of question. Each has a `router`, which the application finds by itself."""
