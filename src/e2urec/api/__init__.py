"""What a user does, from run folder to run folder: train, prepare, unlearn, evaluate, score."""
