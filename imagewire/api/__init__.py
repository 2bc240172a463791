"""The HTTP API and what stands behind it; `imagewire.api.app` makes the application."""
