"""Asks the worker in this container whether it is healthy; exit status 0 if it is.

The worker's endpoint is reachable from other containers and therefore asks for a key, which this
script reads from the same variable as the worker. In a container of the HTTP API it is given the
port: its /healthz asks for no key.
"""

import os
import sys
import urllib.error
import urllib.request

PORT = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("IMAGEWIRE_HTTP__PORT", "9108")
KEY = os.environ.get("IMAGEWIRE_HTTP__KEY", "")


def main() -> int:
    """0 when it answers 200, else 1 with the reason on standard error."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/healthz", headers={"Authorization": f"Bearer {KEY}"}
    )
    # Without proxies: it is on this very address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=4):
            return 0
    except (urllib.error.URLError, OSError) as error:
        sys.stderr.write(f"what listens on port {PORT} is not healthy: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
