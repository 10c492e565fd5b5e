"""What is served: pre- and post-processing, the predictor, the Bento service and its packing."""
