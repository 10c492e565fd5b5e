"""The figures, thumbnails and page of the data report."""
