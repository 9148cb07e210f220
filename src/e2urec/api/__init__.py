"""What a user does, from run folder to run folder: train, unlearn, evaluate, score."""
