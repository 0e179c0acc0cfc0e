"""What the three parts share and none owns; imports neither Beam nor TensorFlow."""
