"""Archives from outside, unpacked without trusting a word of them."""
