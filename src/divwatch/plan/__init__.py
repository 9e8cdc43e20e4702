"""What looks will cost before a run starts: seconds, memory and share of the training time."""
