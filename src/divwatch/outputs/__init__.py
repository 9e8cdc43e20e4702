"""What users see of a look: terminal lines, the trainer log, W&B and other trackers, the HTML report."""
