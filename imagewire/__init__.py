"""The application: command line, settings, embedded stack; the only package that knows all."""
