"""The application: command line, settings, embedded stack. The only package that knows all others."""
