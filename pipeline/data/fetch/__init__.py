"""From a URL to a local path: HTTP and fsspec, resumed, checked and mirrored."""
