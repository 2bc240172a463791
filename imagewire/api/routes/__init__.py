"""One file for each kind of question; the application finds the `router` of each by itself."""
