"""Archives, unpacked without trusting their contents."""
