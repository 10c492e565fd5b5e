"""Video clips as images: which frames are taken, and how they are decoded."""
