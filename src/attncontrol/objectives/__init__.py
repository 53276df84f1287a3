"""What test-time losses share: their contract, the descent on them, boxes and the search of
noises."""
